"""Which checkpoints of a run there are, and which of them stay.

They lie in ``<store_uri>/runs/<run_id>/checkpoints/step-00000200/``, one folder each. Only a folder
with an ``index.json`` is a checkpoint: the index is written last and removed first.
"""

import logging
import math
import re
from collections.abc import Iterable, Iterator

from plsc import storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.conf.schema import PipelineConfig
from plsc.errors import CheckpointError

__all__ = ["best", "checkpoint_folder", "checkpoints_uri", "index_uris", "latest", "prune"]
__all__ += ["remove"]

log = logging.getLogger(__name__)

_INDEX = re.compile(r"/step-(\d+)/index\.json$")


def checkpoints_uri(config: PipelineConfig, run_id: str) -> str:
    """Return the folder of all checkpoints of a run."""
    return storage.join(config.store_uri, "runs", run_id, "checkpoints")


def checkpoint_folder(config: PipelineConfig, step: int) -> str:
    """Return the folder of this run's checkpoint of ``step``."""
    return storage.join(checkpoints_uri(config, config.run_id), f"step-{step:08d}")


def index_uris(config: PipelineConfig, run_id: str) -> dict[int, str]:
    """Return the indexes of a run's complete checkpoints by step, oldest first.

    Raises:
        StorageError: If the store cannot be asked.
    """
    return _indexes(info.uri for info in _files(config, run_id))


def latest(config: PipelineConfig, run_id: str) -> Checkpoint | None:
    """Return the newest complete checkpoint of a run, or None if it has none.

    Raises:
        StorageError: If the store cannot be asked.
        CheckpointError: If its index is damaged.
    """
    indexes = index_uris(config, run_id)
    return Checkpoint.read(indexes[max(indexes)]) if indexes else None


def best(config: PipelineConfig, run_id: str) -> Checkpoint | None:
    """Return the checkpoint with the highest verified accuracy, the older one where two have it.

    None if no complete, undamaged checkpoint of the run was verified.

    Raises:
        StorageError: If the store cannot be asked.
    """
    _, checkpoint = _best(index_uris(config, run_id))
    return checkpoint


def prune(config: PipelineConfig, newest_step: int) -> None:
    """Remove this run's checkpoints that are not to be kept; nothing may be on its way meanwhile.

    Kept are ``train.keep_checkpoints`` up to ``newest_step``, the one just written, and with
    ``train.keep_best`` the best of all. Later ones belong to a course that was given up when the
    run resumed from an older step; folders without an index were given up half-way.

    Raises:
        StorageError: If the store refuses.
    """
    uris = [info.uri for info in _files(config, config.run_id)]
    indexes = {step: uri for step, uri in _indexes(uris).items() if step <= newest_step}
    kept = {indexes[step] for step in list(indexes)[-max(1, config.train.keep_checkpoints) :]}
    if config.train.keep_best:
        kept.add(_best(indexes)[0])
    kept_folders = {uri.removesuffix("/index.json") for uri in kept}
    for folder in sorted({uri.rpartition("/")[0] for uri in uris} - kept_folders):
        remove(folder)


def remove(folder: str) -> None:
    """Remove a checkpoint, or what is there of one, index first.

    Raises:
        StorageError: If the store refuses.
    """
    storage.delete(storage.join(folder, "index.json"))
    storage.delete_prefix(folder)


def _files(config: PipelineConfig, run_id: str) -> Iterator[storage.ObjectInfo]:
    return storage.list_objects(checkpoints_uri(config, run_id) + "/")


def _indexes(uris: Iterable[str]) -> dict[int, str]:
    found = {int(match[1]): uri for uri in uris if (match := _INDEX.search(uri))}
    return dict(sorted(found.items()))


def _best(indexes: dict[int, str]) -> tuple[str, Checkpoint | None]:
    """Return the best checkpoint and the uri of its index; "" and None if there is none."""
    found: tuple[str, Checkpoint | None] = ("", None)
    highest = -math.inf
    for uri in indexes.values():
        try:
            checkpoint = Checkpoint.read(uri)
        except CheckpointError as error:
            log.warning("cannot be the best checkpoint: %s", error)
            continue
        accuracy = checkpoint.figures.get("accuracy", -math.inf)
        if accuracy > highest:
            found, highest = (uri, checkpoint), accuracy
    return found
