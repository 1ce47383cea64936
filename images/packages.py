"""What each image installs, from pyproject.toml's extras: ``python packages.py FOLDER``.

Writes one file per layer: ``core.txt`` (in every image), ``torch.txt`` (shared by those that need
torch) and one per extra with the rest. A layer is then made anew when its own list changes, not
whenever pyproject.toml does.
"""

import sys
import tomllib
from pathlib import Path

_EVERYWHERE = ("cluster",)
"""Extras whose packages are in every image."""
_ALSO = {"preprocess": ("hdfs",)}
"""Further extras of an image."""
_LAUNCHER = ("pyarrow",)
"""What the train step needs where others train: the index of the data set."""
_SHARED = "torch"


def lists(project: dict) -> dict[str, list[str]]:
    """Return file name -> requirements, for the ``project`` table of pyproject.toml."""
    extras = project["optional-dependencies"]
    core = {*project["dependencies"], "kfp", *(line for e in _EVERYWHERE for line in extras[e])}
    rest = {
        name: {line for extra in (name, *_ALSO.get(name, ())) for line in extras[extra]}
        for name in extras
    }
    rest["launcher"] = {line for line in extras["train"] if line in _LAUNCHER}
    found = {name: lines - core - {_SHARED} for name, lines in rest.items()}
    return {
        name: sorted(lines) for name, lines in (found | {"core": core, "torch": {_SHARED}}).items()
    }


def main() -> None:
    """Write the lists into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, lines in lists(project).items():
        (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
