"""Shows a run while it goes on: when steps begin and end, and what they say in between."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.text import Text

from plsc.progress import duration

__all__ = ["ConsoleView"]


class ConsoleView:
    """A view for terminals, with a running clock, and for files and CI, where it is plain lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._running: dict[str, str] = {}  # step -> since when

    def begin(self, step: str) -> None:
        """Say that a step begins, and show that it runs."""
        self._close_status()
        self._print(Text(f"▶ {step}", style="bold cyan"))
        self._running[step] = time.strftime("%H:%M:%S")
        self._open_status()

    def line(self, step: str, text: str) -> None:
        """Show what a step says."""
        self._print(Text.assemble((f"[{step}] ", "dim"), text))

    def end(self, step: str, seconds: float, *, succeeded: bool, note: str = "") -> None:
        """Say how a step has ended, with a word on it if there is one to say."""
        self._close_status()
        self._running.pop(step, None)
        mark, style = ("✓", "bold green") if succeeded else ("✗", "bold red")
        told = f"{mark} {step}  {duration(seconds)}" + (f"  ({note})" if note else "")
        self._print(Text(told, style=style))
        self._open_status()

    @contextmanager
    def paused(self) -> Iterator[Console]:
        """Give the terminal to the block, without the running clock."""
        self._close_status()
        try:
            yield self._console
        finally:
            self._open_status()

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _open_status(self) -> None:
        if self._running and self._console.is_terminal:
            told = ", ".join(f"{step} runs since {since}" for step, since in self._running.items())
            self._status = self._console.status(told, spinner="dots")
            self._status.start()

    def _close_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __enter__(self) -> "ConsoleView":
        return self

    def __exit__(self, *_: object) -> None:
        self._close_status()
        self._running.clear()
