"""Signals that ask this process to stop, as an exception, so that all on the way is closed."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Stopped", "stoppable"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """The process was asked to stop."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum
        self.name = signal.Signals(signum).name


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise ``Stopped`` in the block at the first SIGINT, SIGTERM or SIGHUP.

    The next ones are ignored, so that it stops in order.
    """

    def stop(signum: int, _frame: object) -> None:
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped(signum)

    before = {signum: signal.signal(signum, stop) for signum in _SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
