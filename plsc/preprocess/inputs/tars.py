"""WebDataset: tar files in which ``<key>.jpg`` and ``<key>.cls`` follow each other.

A *sample* is all files in a row whose names are equal up to the first dot behind the last slash.
Its image ends in jpg, jpeg, png, bmp or webp; its label in cls (or txt, when labels are names).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from plsc.artifacts.records import LABEL_LIMIT_BYTES, LINE_LIMIT_BYTES, BadRowError, Reason
from plsc.conf.schema import LabelKind, PipelineConfig
from plsc.preprocess.inputs.compression import Stream, open_stream
from plsc.preprocess.inputs.fetching import IMAGE_SUFFIXES, is_hidden
from plsc.preprocess.inputs.item import BEGINNING_BYTES, Item, Row
from plsc.preprocess.inputs.judge import Judge
from plsc.preprocess.inputs.records import too_long
from plsc.preprocess.inputs.tar_members import TarFiles
from plsc.storage import ObjectInfo

__all__ = ["LAYOUT", "Tars", "is_tar", "read"]

LAYOUT = "tar"

_LABEL_FILE_BYTES = 4 * LABEL_LIMIT_BYTES
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst")


def is_tar(name: str) -> bool:
    """Return whether a file of this name is a tar, plain or compressed."""
    return name.endswith(_SUFFIXES) and not is_hidden(name)


class Tars:
    """Every tar file below ``data_uri``."""

    layout = LAYOUT

    def __init__(self, config: PipelineConfig, files: dict[str, ObjectInfo]) -> None:
        """Take the files.

        Args:
            config: Tells what labels are: integers, unless names are asked for.
            files: All files below ``data_uri``.
        """
        self.is_named = config.preprocess.labels is LabelKind.names
        self.files = {name: info for name, info in sorted(files.items()) if is_tar(name)}

    def items(self, item_bytes: int) -> Iterator[Item]:  # noqa: ARG002  a tar cannot be cut
        """Yield every tar whole: nothing tells where its samples begin."""
        for name, info in self.files.items():
            yield Item(
                layout=LAYOUT,
                part=name,
                uri=info.uri,
                etag=info.etag,
                start=0,
                stop=info.size_bytes,
                size_bytes=info.size_bytes,
            )


@dataclass
class _Sample:
    """Files of one name."""

    key: str
    offset: int
    images: list[bytes] = field(default_factory=list)
    labels: dict[str, list[bytes]] = field(default_factory=dict)
    long: list[BadRowError] = field(default_factory=list)
    """Why images of it were not read."""

    def add(self, suffix: str, size_bytes: int, take: Callable[[int], bytes]) -> None:
        """Read a file of the sample, if it matters; two of a kind are enough to know it is bad."""
        if "." + suffix in IMAGE_SUFFIXES:
            if size_bytes > LINE_LIMIT_BYTES:
                self.long.append(too_long(size_bytes))
            elif len(self.images) < 2:
                self.images.append(take(size_bytes))
        elif suffix in {"cls", "txt"}:
            labels = self.labels.setdefault(suffix, [])
            if len(labels) < 2:
                labels.append(take(_LABEL_FILE_BYTES + 1))


def read(item: Item, judge: Judge) -> Iterator[Row]:
    """Yield what became of every sample; files that belong to no sample are blank rows.

    Raises:
        RecordError: If the tar is cut off or damaged.
        StorageError: If reading fails on the way.
    """
    with open_stream(item.uri) as stream:
        told = 0
        for number, sample in enumerate(_samples(item.uri, stream), 1):
            told, before = stream.source_bytes, told
            yield _row(number, sample, stream.source_bytes - before, judge)


def _samples(uri: str, stream: Stream) -> Iterator[_Sample]:
    sample: _Sample | None = None
    files = TarFiles(uri, stream)
    for member, content in files:
        name = member.name.removeprefix("./")
        folder, slash, file = name.rpartition("/")
        if file.startswith("."):
            continue
        stem, _, suffix = file.partition(".")
        key, suffix = folder + slash + stem, suffix.lower()
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = _Sample(key, member.offset)
        sample.add(suffix, member.size, partial(files.read, content))
    if sample is not None:
        yield sample


def _row(number: int, sample: _Sample, size_bytes: int, judge: Judge) -> Row:
    labels = sample.labels.get("cls", [])
    if judge.is_named and not labels:
        labels = sample.labels.get("txt", [])
    if not sample.images and not sample.labels and not sample.long:
        return Row(number, sample.offset, size_bytes)
    try:
        if sample.long:
            raise sample.long[0]
        if len(sample.images) != 1 or len(labels) != 1:
            raise BadRowError(
                Reason.MISSING,
                f"expected an image and a label, found {len(sample.images)} and {len(labels)}",
            )
        if len(labels[0]) > _LABEL_FILE_BYTES:
            what = f"the label's file is longer than the {_LABEL_FILE_BYTES} bytes allowed"
            raise BadRowError(Reason.LONG_NAME, what)
        label = judge.label(labels[0])
        judge.image(sample.images[0])
    except BadRowError as bad:
        beginning = sample.key.encode("utf-8", "surrogateescape")[:BEGINNING_BYTES]
        return Row(number, sample.offset, size_bytes, bad=bad, beginning=beginning)
    return Row(number, sample.offset, size_bytes, sample.images[0], label, LAYOUT)
