"""Stopping before the end: every rank learns of it at the same step, and a checkpoint is written.

A SIGTERM may reach one rank, or all, at any moment. The rank takes note of it, and its next vote
tells the others; they all read that vote with the same step.
"""

import logging
import signal
import threading
from enum import IntEnum
from types import FrameType, TracebackType
from typing import Self

from plsc.train.process_group import Ranks, Vote

__all__ = ["Reason", "Stopped", "Stopping"]

log = logging.getLogger(__name__)


class Reason(IntEnum):
    """Why to stop; where ranks differ the largest counts."""

    NONE = 0
    SIGNAL = 1
    LEASE = 2


_STORIES = {
    Reason.SIGNAL: "stopped by SIGTERM",
    Reason.LEASE: "stopped: the step that started the ranks has given no sign for train.lease_s",
}
_EXIT_CODES = {Reason.SIGNAL: 128 + signal.SIGTERM, Reason.LEASE: 0}  # nobody is there: not again


class Stopped(SystemExit):
    """Training stopped early, as it was asked to. No failure: the run can go on from there."""


class Stopping:
    """Whether training is to stop. In the block, SIGTERM asks for it instead of ending the process.

    More of them change nothing: who ends a run (torchrun, a kubelet, a person) tends to send
    several, and SIGKILL when patience is at its end.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.reason = Reason.NONE
        """What the ranks have agreed on."""
        self._asked = Reason.NONE
        self._vote = Vote(ranks)
        self._before: signal._HANDLER = None
        self._handles_signals = threading.current_thread() is threading.main_thread()

    def ask(self, reason: Reason) -> None:
        """Ask for an early end; any thread may."""
        self._asked = max(self._asked, reason)

    def is_agreed(self) -> bool:
        """Return whether the step that begins is the last one: the same on every rank.

        Collective: one vote. It does not wait for ranks that are in the same step or the one
        before.
        """
        self.reason = Reason(self._vote.cast(self._asked))
        return self.reason is not Reason.NONE

    def end_if_agreed(self, step: int) -> None:
        """Say that training stopped after ``step``, if it did; its checkpoint is written by now.

        Raises:
            Stopped: If it did.
        """
        if self.reason is not Reason.NONE:
            story = _STORIES[self.reason]
            log.info("%s at step %d, checkpoint written: it goes on from there", story, step)
            raise Stopped(_EXIT_CODES[self.reason])

    def _take_note(self, _number: int, _frame: FrameType | None) -> None:
        self.ask(Reason.SIGNAL)

    def __enter__(self) -> Self:
        """Collective."""
        self._vote.open()
        if self._handles_signals:
            self._before = signal.signal(signal.SIGTERM, self._take_note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handles_signals:
            signal.signal(signal.SIGTERM, self._before)
