"""``python -m plsc.train run_id=...``: train in this process; torchrun starts one per rank."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import hydra
from omegaconf import DictConfig

from plsc import doorway, storage
from plsc.conf import from_hydra
from plsc.train.process_group import LostContactError
from plsc.train.stage import run

log = logging.getLogger("plsc.train")


@hydra.main(version_base="1.3", config_path="pkg://plsc.conf", config_name="config")
def _main(tree: DictConfig) -> None:
    with doorway.main("train"):
        config = from_hydra(tree)
        if os.environ.get("RANK", "0") == "0":  # before the ranks meet: none has failed yet
            storage.delete(doorway.failure_uri(config, "train"))
        with doorway.enter("train", config), _reasons_only():
            run(config)


@contextmanager
def _reasons_only() -> Iterator[None]:
    """End on lost contact, but leave no reason: another rank may have left the real one."""
    try:
        yield
    except LostContactError as error:
        log.error("%s: %s", type(error).__name__, error)  # noqa: TRY400
        sys.exit(error.exit_code)


if __name__ == "__main__":
    _main()
