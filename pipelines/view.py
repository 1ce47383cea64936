"""Shows a run while it goes on: when steps begin and end, and what they say in between."""

import time

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

    def begin(self, step: str) -> None:
        """Say that a step begins, and show that it runs."""
        self._close_status()
        self._print(Text(f"▶ {step}", style="bold cyan"))
        if self._console.is_terminal:
            since = time.strftime("%H:%M:%S")
            self._status = self._console.status(f"{step} runs since {since}", spinner="dots")
            self._status.start()

    def line(self, step: str, text: str) -> None:
        """Show what a step says."""
        self._print(Text.assemble((f"[{step}] ", "dim"), text))

    def end(self, step: str, seconds: float, *, succeeded: bool) -> None:
        """Say how a step has ended."""
        self._close_status()
        mark, style = ("✓", "bold green") if succeeded else ("✗", "bold red")
        self._print(Text(f"{mark} {step}  {duration(seconds)}", style=style))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _close_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def __enter__(self) -> "ConsoleView":
        return self

    def __exit__(self, *_: object) -> None:
        self._close_status()
