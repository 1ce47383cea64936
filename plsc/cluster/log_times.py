"""The times that Kubernetes puts before the lines of a log."""

from datetime import datetime

__all__ = ["nanoseconds", "time_and_text"]

_SECOND_NS = 1_000_000_000


def nanoseconds(stamp: str) -> int:
    """Return an RFC 3339 time, whose fraction may have nine digits, since 1970.

    Raises:
        ValueError: If it is none.
    """
    head, dot, rest = stamp.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    whole = f"{head}{rest[len(digits) :]}" if dot else head
    return int(datetime.fromisoformat(whole).timestamp()) * _SECOND_NS + int(f"{digits[:9]:0<9}")


def time_and_text(line: str) -> tuple[str, str]:
    """Return both parts of a line; the time is empty where there is none.

    The kubelet answers with such a line of its own where it has lost a log.
    """
    time, _, text = line.partition(" ")
    try:
        nanoseconds(time)
    except ValueError:
        return "", line
    return time, text
