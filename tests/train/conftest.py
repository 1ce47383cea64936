"""A small data set in shards, made by the real preprocess stage from the real tiny glyphs."""

from pathlib import Path

import pytest

from plsc.conf import compose
from plsc.conf.schema import PipelineConfig
from plsc.datasets.glyphs import RECIPES, build
from plsc.preprocess.stage import run as preprocess


class Place:
    """Folders of a data set and a store, and configurations that use them."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.store = folder / "store"
        self.data = data

    def config(self, run_id: str, *overrides: str) -> PipelineConfig:
        """Return the tiny experiment in this place."""
        return compose("tiny", *self.overrides(run_id), *overrides)

    def overrides(self, run_id: str) -> list[str]:
        """Return the overrides that put a run into this place."""
        places = {"store_uri": self.store, "data_uri": self.data}
        places["train.loader.cache_path"] = self.store.parent / "cache"
        return [f"run_id={run_id}", *(f"{key}={path}" for key, path in places.items())]


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The input folder of the tiny experiment."""
    folder = tmp_path_factory.mktemp("tiny-data")
    build(RECIPES["tiny"], str(folder), seed=0)
    return folder


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Place:
    """A place where run ``shards`` has preprocessed the tiny data set."""
    made = Place(tmp_path_factory.mktemp("train"), tiny_data)
    preprocess(made.config("shards"))
    return made
