"""What every test of the evaluate room stands on."""

from pathlib import Path

import pytest

from plsc.conf.schema import PipelineConfig
from tests.samples import tiny, write_benchmarks, write_checkpoint


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    """The tiny experiment with a checkpoint and benchmarks in place."""
    config = tiny(tmp_path)
    write_checkpoint(config)
    write_benchmarks(config)
    return config
