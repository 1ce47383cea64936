"""The experiments' own sample data: made where it is missing; and pictures to try."""

import itertools
from pathlib import Path

from plsc import conf, storage
from plsc.conf.schema import PipelineConfig
from plsc.datasets.recipes import RECIPES

__all__ = ["build_command", "download_samples", "is_missing"]

_NUM_SAMPLES = 12
_SUFFIXES = (".jpg", ".png")


def is_missing(config: PipelineConfig, experiment: str) -> bool:
    """Return whether the experiment's own sample data is to be made.

    A data set that the user names is never made: a wrong name is to fail.

    Raises:
        StorageError: If the store cannot be asked.
    """
    own = conf.compose(experiment, "run_id=own", f"store_uri={config.store_uri}").data_uri
    is_ours = experiment in RECIPES and config.data_uri == own
    return is_ours and not storage.exists(storage.join(own, "file_list.txt"))


def build_command(config: PipelineConfig, experiment: str) -> list[str]:
    """Return the arguments of Python that make the experiment's data set."""
    return ["-m", "plsc.datasets.glyphs", "--recipe", experiment, "--out-uri", config.data_uri]


def download_samples(config: PipelineConfig, folder: Path) -> list[Path]:
    """Copy some of the data set's pictures to try into ``folder``, and return them.

    Raises:
        StorageError: If the store cannot be asked.
    """
    prefix = storage.join(config.data_uri, "samples") + "/"
    pictures = (info.uri for info in storage.list_objects(prefix) if info.uri.endswith(_SUFFIXES))
    paths = []
    for uri in itertools.islice(pictures, _NUM_SAMPLES):
        paths.append(folder / uri.rpartition("/")[2])
        storage.download(uri, paths[-1])
    return paths
