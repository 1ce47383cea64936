"""The index: the small JSON document that *is* an artifact at a door between two stages.

An index names the payload (shards, checkpoint files, a graph) with sizes and SHA-256 digests, tells
where it comes from, and is written after all of it: an interrupted stage leaves no index. Format,
as JSON::

    {"kind": "ShardSet", "format": 1, "provenance": {...}, ...fields of the artifact}

``format`` rises when a reader of the old version could misunderstand; readers refuse what they do
not know.
"""

import datetime as dt
import re
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

import pydantic

from plsc import storage
from plsc.errors import ArtifactError

__all__ = [
    "Artifact",
    "Count",
    "Digest",
    "Payload",
    "Positive",
    "Provenance",
    "Seconds",
    "Uri",
    "Value",
    "now",
]

_LIMIT_BYTES = 64 * 1024 * 1024
_LARGEST_COUNT = 2**63
"""One more than the largest label: so many classes there can be."""
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def _usable(uri: str) -> str:
    if found := _CONTROL.search(uri):
        raise ValueError(f"a uri cannot hold the control character {found.group()!r}")
    urlsplit(uri)  # raises ValueError, which would else come out of whatever store it names
    return uri


Count = Annotated[int, pydantic.Field(ge=0, le=_LARGEST_COUNT)]
"""How many there are."""
Positive = Annotated[int, pydantic.Field(ge=1, le=_LARGEST_COUNT)]
"""How many there are, where there is at least one."""
Seconds = Annotated[float, pydantic.Field(ge=0)]
Digest = Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")]
"""SHA-256, 64 hexadecimal digits. Local copies are named after it: it must not be a path."""
Uri = Annotated[str, pydantic.AfterValidator(_usable)]
"""Where something lies; empty if it lies nowhere."""


def now() -> str:
    """Return the current time as ISO 8601 in UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


class Value(pydantic.BaseModel):
    """Base of the parts of an index: immutable; no unknown fields, no non-finite numbers."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Payload(Value):
    """One file that belongs to an artifact."""

    uri: Uri
    """Where it lies."""
    size_bytes: Count
    sha256: Digest


class Provenance(Value):
    """Where an artifact comes from."""

    run_id: str
    experiment: str
    created_at: str
    """ISO 8601, UTC."""
    seconds: Seconds
    """What the stage took, in seconds."""
    config: dict[str, Any]
    """The resolved configuration of the run."""


class Artifact(Value):
    """Base of every artifact: reads and writes itself as an index."""

    VERSION: ClassVar[int] = 1
    ERROR: ClassVar[type[ArtifactError]] = ArtifactError

    provenance: Provenance

    def to_json(self) -> bytes:
        """Return the index as indented UTF-8 JSON."""
        header = {"kind": type(self).__name__, "format": self.VERSION}
        document = header | self.model_dump(mode="json")
        return pydantic.TypeAdapter(dict[str, Any]).dump_json(document, indent=1) + b"\n"

    def write(self, uri: str) -> None:
        """Write the index to ``uri`` (atomically: this commits the artifact).

        Raises:
            StorageError: If the store refuses.
        """
        storage.write_bytes(uri, self.to_json())

    @classmethod
    def read(cls, uri: str) -> Self:
        """Read the index at ``uri`` and check that it is one of this kind and version.

        Raises:
            StorageError: If it cannot be read.
            ArtifactError: If it is not what it should be (each kind raises its own subclass).
        """
        return cls.from_json(storage.read_bytes(uri, limit_bytes=_LIMIT_BYTES), uri)

    @classmethod
    def from_json(cls, content: bytes, uri: str) -> Self:
        """Parse an index; ``uri`` is only for messages.

        Raises:
            ArtifactError: If it is not an index of this kind and version.
        """
        expected = f"expected an index of kind {cls.__name__}, version {cls.VERSION}"
        try:
            document = pydantic.TypeAdapter(dict[str, Any]).validate_json(content)
        except pydantic.ValidationError as error:
            raise cls.ERROR(
                f"{uri}: {expected}, found no JSON object: write it again with its stage"
            ) from error
        found = (document.pop("kind", None), document.pop("format", None))
        if found != (cls.__name__, cls.VERSION):
            advice = "check the uri"
            if found[0] == cls.__name__:
                advice = "another version of plsc wrote it: run its stage again with this one"
            raise cls.ERROR(f"{uri}: {expected}, found {found[0]}, version {found[1]}: {advice}")
        try:
            return cls.model_validate(document)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise cls.ERROR(
                f"{uri}: {expected}, but {where}: {first['msg']}: write it again with its stage"
            ) from error
