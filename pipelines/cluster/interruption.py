"""What Ctrl-C means while a run on the cluster is followed: it does not end the run by itself."""

import enum
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.text import Text

from pipelines.signals import Stopped
from pipelines.view import ConsoleView

__all__ = ["Choice", "ask", "interruptible"]


class Choice(enum.Enum):
    """What a person wants of a run that goes on."""

    TERMINATE = "terminate"
    GO_ON = "go on"
    DETACH = "detach"


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at SIGINT, ``Stopped`` at SIGTERM and SIGHUP."""

    def stop(signum: int, _frame: object) -> None:
        raise Stopped(signum)

    handlers = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: stop,
        signal.SIGHUP: stop,
    }
    before = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def ask(view: ConsoleView) -> Choice:
    """Ask what is to become of the run; without a terminal, or at a second Ctrl-C: detach."""
    with view.paused() as console:
        if not (sys.stdin.isatty() and console.is_terminal):
            return Choice.DETACH
        question = Text.assemble(
            "\nTerminate the run? ", ("[y]es, [N]o, [d]etach: it goes on without you  ", "bold")
        )
        try:
            answer = console.input(question).strip().lower()
        except (EOFError, KeyboardInterrupt):
            return Choice.DETACH
    if answer in {"y", "yes"}:
        return Choice.TERMINATE
    return Choice.DETACH if answer in {"d", "detach"} else Choice.GO_ON
