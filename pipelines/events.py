"""What the process that runs a pipeline tells the one that watches it: when steps begin and end.

Events travel as lines among the log lines, so their order is certain. They begin with an ASCII
record separator, which no log line does.
"""

import json
from dataclasses import asdict, dataclass

__all__ = ["StepBegan", "StepEnded", "decode", "encode"]

_MARK = "\x1e"


@dataclass(frozen=True)
class StepBegan:
    """A step's process was started."""

    step: str


@dataclass(frozen=True)
class StepEnded:
    """A step's process, and all that it had started, is gone."""

    step: str
    seconds: float
    """From just before its process was started."""
    returncode: int
    """As a shell tells it: 0 is success, 128 + n an end by signal n."""


def encode(event: StepBegan | StepEnded) -> str:
    """Return ``event`` as one line, without its end."""
    return _MARK + json.dumps({type(event).__name__: asdict(event)})


def decode(line: str) -> StepBegan | StepEnded | None:
    """Return the event in ``line``, or None when it is a log line."""
    if not line.startswith(_MARK):
        return None
    ((kind, fields),) = json.loads(line.removeprefix(_MARK)).items()
    return {kind.__name__: kind for kind in (StepBegan, StepEnded)}[kind](**fields)
