"""How a Job or a PyTorchJob stands, read from its conditions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["JobState", "condition"]

_SUCCESS = ("Succeeded", "Complete")  # a PyTorchJob's word, a Job's word
_FAILURE = ("Failed",)


@dataclass(frozen=True)
class JobState:
    """What a job's conditions say.

    Attributes:
        has_succeeded: It did all its work.
        has_failed: It gave up; ``reason`` and ``message`` say why.
        is_suspended: It waits in a queue, without pods.
        is_being_deleted: Somebody has deleted it.
        reason: One word: ``BackoffLimitExceeded``.
        message: A sentence.
        completed: Indexes of an Indexed Job that are done; their pods may be gone.
        failed: Indexes of an Indexed Job that were given up.
    """

    has_succeeded: bool = False
    has_failed: bool = False
    is_suspended: bool = False
    is_being_deleted: bool = False
    reason: str = ""
    message: str = ""
    completed: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, job: Mapping[str, Any]) -> "JobState":
        """Return the state of an object as the API gives it."""
        failed = condition(job, *_FAILURE) or {}
        status = job.get("status") or {}
        suspended = condition(job, "Suspended") is not None
        return cls(
            has_succeeded=condition(job, *_SUCCESS) is not None,
            has_failed=bool(failed),
            is_suspended=suspended,
            is_being_deleted="deletionTimestamp" in job["metadata"],
            reason=failed.get("reason") or "",
            message=failed.get("message") or "",
            completed=frozenset(_indexes(status.get("completedIndexes") or "")),
            failed=frozenset(_indexes(status.get("failedIndexes") or "")),
        )

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.has_succeeded or self.has_failed


def condition(thing: Mapping[str, Any], *types: str) -> dict[str, Any] | None:
    """Return the condition of one of ``types`` that holds; old ones stay, with status False."""
    found: list[dict[str, Any]] = (thing.get("status") or {}).get("conditions") or []
    held = [one for one in found if one["type"] in types and one.get("status") == "True"]
    return held[0] if held else None


def _indexes(text: str) -> Iterator[str]:
    """Yield the indexes of ``0,3-5,7``."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from map(str, range(int(first), int(last or first) + 1))
