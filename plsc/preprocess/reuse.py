"""Reuse: a data set lies where its input and settings say, so it is found, not made again."""

import hashlib
import json
import logging

from plsc import storage
from plsc.artifacts.shards import ShardSet
from plsc.conf import to_dict
from plsc.conf.schema import PipelineConfig
from plsc.errors import ShardError
from plsc.preprocess.inputs import Input

__all__ = ["find_complete", "folder_of"]

log = logging.getLogger(__name__)

_FORMAT = 2
"""Rises when the same input and settings would give other shards than before."""
_NO_MATTER = ("workers", "memory_mib", "pods")
"""Settings on which no byte depends."""


def folder_of(config: PipelineConfig, source: Input) -> str:
    """Return ``<store_uri>/datasets/<hash>``, with a hash over all that the data set depends on.

    These are names, sizes and tags of the input's files, the preprocess settings, the seed, the
    image size and the format; not where the input lies, nor in which order it is listed, nor how
    many workers there are and what memory they have.
    """
    settings = to_dict(config)["preprocess"]
    for name in _NO_MATTER:
        del settings[name]
    document = {
        "format": _FORMAT,
        "version": ShardSet.VERSION,
        "seed": config.seed,
        "image_size": config.image_size,
        "preprocess": settings,
        "layout": source.layout,
        "files": sorted((name, info.size_bytes, info.etag) for name, info in source.files.items()),
    }
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return storage.join(config.store_uri, "datasets", digest[:32])


def find_complete(folder_uri: str, *, also: list[str]) -> ShardSet | None:
    """Return the data set in ``folder_uri`` if its index and all its files are there.

    Sizes are compared here, digests when a shard is fetched.

    Args:
        folder_uri: What ``folder_of`` gave.
        also: Names of files that must lie beside the index.

    Raises:
        StorageError: If the store cannot be asked.
    """
    index_uri = storage.join(folder_uri, "index.json")
    if not storage.exists(index_uri):
        return None
    try:
        dataset = ShardSet.read(index_uri)
    except ShardError as error:
        log.warning("the data set is made again: %s", error)
        return None
    if dataset.uri != index_uri or any(
        shard.uri.rpartition("/")[0] != folder_uri for shard in dataset.shards
    ):
        log.warning("the data set is made again: %s was copied from elsewhere", index_uri)
        return None
    found = {
        info.uri.rpartition("/")[2]: info.size_bytes
        for info in storage.list_objects(folder_uri + "/")
    }
    expected = {shard.uri.rpartition("/")[2]: shard.size_bytes for shard in dataset.shards}
    expected[dataset.classes.uri.rpartition("/")[2]] = dataset.classes.size_bytes
    missing = [name for name, size in expected.items() if found.get(name) != size]
    needed = [*also, *([dataset.quarantine.uri] if dataset.quarantine.uri else [])]
    missing += [uri for uri in needed if uri.rpartition("/")[2] not in found]
    if missing:
        log.warning("the data set is made again: %s lacks %s", folder_uri, ", ".join(missing[:5]))
        return None
    return dataset
