"""The contact sheet: what is drawn, and what is passed over."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc.artifacts.index import Payload
from plsc.artifacts.shards import Shard, shard_content
from plsc.errors import ShardError
from plsc.preprocess import contact_sheet
from tests.preprocess.data_sets import class_map, keys_of, payload, write_data_set
from tests.preprocess.rows import image


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "datasets" / "abc")


def test_a_sheet_depends_on_its_seed_alone_and_passes_over_what_is_broken(folder):
    dataset = write_data_set(folder)
    first = contact_sheet.render(dataset, columns=4, rows=3)
    assert contact_sheet.render(dataset, columns=4, rows=3) == first
    assert contact_sheet.render(dataset, columns=4, rows=3, seed=1) != first
    Path(dataset.shards[0].uri).unlink()
    with Image.open(io.BytesIO(contact_sheet.render(dataset, columns=10))) as picture:
        assert picture.size == contact_sheet.size_of(40, 10)
    for shard in dataset.shards[1:]:
        Path(shard.uri).write_bytes(b"altered")
    with pytest.raises(ShardError, match="no shard can be read"):
        contact_sheet.render(dataset)


def test_a_damaged_image_and_a_lost_class_map_do_not_end_the_sheet(folder):
    content = shard_content([image(0), b"no image"], np.array([0, 1]), keys_of(range(2)))
    shard = Shard(**payload(f"{folder}/one.arrow", bytes(content), num_samples=2))
    dataset = write_data_set(folder, shards=[shard])
    Path(dataset.classes.uri).unlink()
    with Image.open(io.BytesIO(contact_sheet.render(dataset))) as picture:
        assert picture.size == contact_sheet.size_of(2, 10)


def test_captions_are_names_that_the_font_can_draw(folder, tmp_path):
    dataset = write_data_set(folder)
    found = contact_sheet._captions(dataset, [3, 0, 2, 9], tmp_path)
    assert found == ["U+4E2D", "ada", "character U", "9"]


def test_captions_are_numbers_if_the_class_map_is_empty(folder, tmp_path):
    dataset = write_data_set(folder)
    classes = Payload(**payload(dataset.classes.uri, class_map([])))
    dataset = dataset.model_copy(update={"classes": classes})
    assert contact_sheet._captions(dataset, [3, 0], tmp_path) == ["3", "0"]
