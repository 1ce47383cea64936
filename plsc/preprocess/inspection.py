"""Inspection: whether what an index names is there, whole, and what the index says."""

from collections.abc import Iterator
from dataclasses import dataclass

from plsc import storage
from plsc.artifacts.index import Payload
from plsc.artifacts.shards import ShardSet
from plsc.errors import ArtifactError, ShardError, StorageError
from plsc.preprocess.deep_checks import AGAIN, Problem, bad_rows, contents

__all__ = ["REPORT", "Inspection", "find", "inspect"]

REPORT = "data_report.html"
"""As ``data_report.NAME``, whose module loads matplotlib."""


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    uri: str
    """The index that was read: the data set's own, or a run's copy."""
    dataset: ShardSet
    problems: list[Problem]
    is_deep: bool
    """Whether every byte was read, or only names and sizes compared."""
    num_temporary: int
    """Objects of runs that go on or were broken off."""
    temporary_bytes: int


@dataclass(frozen=True)
class _Listing:
    """What lies in the data set's folder."""

    sizes: dict[str, int]
    """Name -> bytes."""
    num_temporary: int
    temporary_bytes: int


def find(uri: str) -> str:
    """Return the uri of the index at ``uri``: itself, or ``index.json`` in that folder.

    Raises:
        StorageError: If there is none, or the store cannot be asked.
    """
    index_uri = uri if uri.endswith(".json") else storage.join(uri, "index.json")
    if not storage.exists(index_uri):
        raise StorageError(
            f"{index_uri}: expected the index of a data set, found nothing: give the uri of an"
            " index.json that preprocess wrote, or of the folder that holds it"
        )
    return index_uri


def inspect(uri: str, *, is_deep: bool = False) -> Inspection:
    """Return what is wrong with the data set whose index ``find`` finds.

    Names and sizes cost one listing. Going deep reads every shard once, one at a time, and needs
    room for it in the temporary folder.

    Args:
        uri: An index, or the folder that holds it.
        is_deep: Whether to check digests, rows, labels, keys and counts as well.

    Raises:
        StorageError: If there is no index, or the store cannot be asked.
        ShardError: If it is not the index of a data set.
    """
    index_uri = find(uri)
    dataset = ShardSet.read(index_uri)
    if not _folder(dataset.uri):  # all of this machine's disk would be listed
        raise ShardError(
            f"{index_uri}: expected the uri of an index in a folder, found {dataset.uri!r}: the"
            " index was altered: run preprocess again"
        )
    listing = _list(_folder(dataset.uri))
    damaged = list(_files(dataset, listing))
    problems = [*_sums(dataset), *_own_index(dataset), *damaged]
    if is_deep:
        known = {problem.uri for problem in damaged}
        readable = [shard for shard in dataset.shards if shard.uri not in known]
        is_complete = len(readable) == len(dataset.shards)
        deep = [*contents(dataset, readable, is_complete=is_complete), *bad_rows(dataset)]
        problems += [problem for problem in deep if problem.uri not in known]
    return Inspection(
        uri=index_uri,
        dataset=dataset,
        problems=problems,
        is_deep=is_deep,
        num_temporary=listing.num_temporary,
        temporary_bytes=listing.temporary_bytes,
    )


def _list(folder_uri: str) -> _Listing:
    sizes: dict[str, int] = {}
    temporary: list[int] = []
    folder = _name(folder_uri)
    for info in storage.list_objects(folder_uri + "/"):
        *_, parent, name = info.uri.rsplit("/", 2)
        if parent == folder:
            sizes[name] = info.size_bytes
        elif f"/{folder}/work/" in info.uri:
            temporary.append(info.size_bytes)
    return _Listing(sizes, len(temporary), sum(temporary))


def _sums(dataset: ShardSet) -> Iterator[Problem]:
    """Yield where the index contradicts itself."""
    histogram = dataset.images_per_class
    claims = [
        ("samples of all shards", sum(s.num_samples for s in dataset.shards), dataset.num_samples),
        ("samples of all classes", sum(k * v for k, v in histogram.items()), dataset.num_samples),
        ("classes of the histogram", sum(histogram.values()), dataset.num_classes),
        ("empty classes of the histogram", histogram.get(0, 0), dataset.num_empty_classes),
    ]
    for what, found, expected in claims:
        if found != expected:
            yield Problem(
                dataset.uri,
                f"expected {expected} {what}, found {found}",
                "the index was altered: delete it and run preprocess again",
            )


def _own_index(dataset: ShardSet) -> Iterator[Problem]:
    """Yield what is wrong with the index beside the shards, of which a run's is a copy."""
    try:
        if storage.exists(dataset.uri) and ShardSet.read(dataset.uri).shards == dataset.shards:
            return
        found = "expected the data set's own index with the same shards, found another, or none"
    except ArtifactError as error:
        found = str(error).removeprefix(f"{dataset.uri}: ")
    yield Problem(dataset.uri, found, AGAIN)


def _files(dataset: ShardSet, listing: _Listing) -> Iterator[Problem]:
    """Yield what is missing or has another size."""
    payloads: list[Payload] = [*dataset.shards, dataset.classes]
    for payload in payloads:
        size = listing.sizes.get(_name(payload.uri))
        if size is None:
            yield Problem(payload.uri, "is missing", AGAIN)
        elif size != payload.size_bytes:
            expected = f"expected {payload.size_bytes:,} bytes, found {size:,}"
            yield Problem(payload.uri, expected, AGAIN)
    others = [storage.join(_folder(dataset.uri), REPORT)]
    others += [dataset.quarantine.uri] if dataset.quarantine.num_rows else []
    for uri in others:
        if _name(uri) not in listing.sizes:
            yield Problem(uri, "is missing", f"training does not need it; {AGAIN}")


def _folder(uri: str) -> str:
    return uri.rpartition("/")[0]


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]
