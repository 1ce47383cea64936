"""Runs the river of ``rivers.py`` as ``python -m pipelines run`` runs ours; the store is a folder.

``python drive.py STATE ACT``: everything local goes into STATE; the second step does ACT/act.py.
"""

import os
import sys
from pathlib import Path

from rich.console import Console

from pipelines import runner, services
from pipelines.request import Request


class FolderForStore:
    def __init__(self, state_path: Path) -> None:
        self._state_path = state_path

    def environment(self) -> dict[str, str]:
        return {"PLSC_STORE_URI": str(self._state_path / "store"), "MARK": "from the services"}


if __name__ == "__main__":
    services.up = FolderForStore
    state, act = Path(sys.argv[1]), sys.argv[2]
    request = Request("tiny", os.environ.get("OVERRIDES", ""), act, "", state)
    try:
        sys.exit(runner.run(request, Console(highlight=False), pipeline="rivers:river"))
    except runner.RunnerBusyError as error:
        sys.exit(f"busy: {error}")
