import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from plsc.artifacts.shards import Shard, ShardReader, fetch_shard, shard_content
from plsc.errors import ShardError, StorageError
from plsc.storage import sha256_of_file

IMAGES = [b"\xff\xd8first", b"second" * 1000, b"", b"fourth"]
LABELS = np.array([3, 0, 2**40, 3])
KEYS = np.array([[0, 1], [0, 2**63], [2**63, 0], [2**64 - 1, 5]], np.uint64)


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "store" / "shard-00000.arrow"
    path.parent.mkdir()
    path.write_bytes(shard_content(IMAGES, LABELS, KEYS))
    return Shard(
        uri=str(path),
        size_bytes=path.stat().st_size,
        sha256=sha256_of_file(path),
        num_samples=len(IMAGES),
    )


def test_a_reader_gives_what_was_written(shard):
    reader = ShardReader(shard.uri)
    assert len(reader) == 4
    assert [bytes(reader.image(row)) for row in range(4)] == IMAGES
    assert [reader.label(row) for row in range(4)] == LABELS.tolist()
    assert reader.labels.tolist() == LABELS.tolist()
    assert reader.keys.tolist() == KEYS.tolist()


def test_an_image_compares_like_bytes_and_is_a_view_that_outlives_the_reader(shard):
    view = ShardReader(shard.uri).image(0)
    assert view[:2] == b"\xff\xd8"
    assert view.readonly
    assert bytes(view) == IMAGES[0]


@pytest.mark.parametrize("row", [-1, 4])
def test_a_row_that_is_not_there_is_an_index_error(shard, row):
    reader = ShardReader(shard.uri)
    with pytest.raises(IndexError, match="of a shard of 4"):
        reader.image(row)
    with pytest.raises(IndexError, match="of a shard of 4"):
        reader.label(row)


def test_the_same_samples_give_the_same_bytes(shard):
    views = [memoryview(image) for image in IMAGES]
    assert bytes(shard_content(views, LABELS, KEYS)) == Path(shard.uri).read_bytes()


def test_any_arrow_reader_can_read_a_shard(shard):
    table = pa.ipc.open_file(shard.uri).read_all()
    assert table.schema.names == ["image", "label", "key"]
    assert table["image"].to_pylist() == IMAGES
    keys = table["key"].to_pylist()
    assert keys == sorted(keys), "the bytes of keys sort as their halves do"
    assert keys[1] == bytes(8) + b"\x80" + bytes(7)


@pytest.mark.parametrize("keep", [0, 7, 100, -1, -300])
def test_a_cut_off_shard_is_a_shard_error(shard, tmp_path, keep):
    content = Path(shard.uri).read_bytes()
    damaged = tmp_path / "damaged.arrow"
    damaged.write_bytes(content[:keep])
    with pytest.raises(ShardError, match=r"damaged\.arrow"):
        ShardReader(damaged)


def test_offsets_that_point_outside_are_a_shard_error(shard, tmp_path):
    content = bytearray(Path(shard.uri).read_bytes())
    at = content.find(np.array([0, 7, 6007], np.int64).tobytes())
    content[at + 8 : at + 16] = np.int64(2**40).tobytes()
    damaged = tmp_path / "damaged.arrow"
    damaged.write_bytes(content)
    with pytest.raises(ShardError, match=r"damaged\.arrow"):
        ShardReader(damaged)


def test_a_missing_shard_and_another_arrow_file_are_shard_errors(tmp_path):
    with pytest.raises(ShardError, match="nowhere"):
        ShardReader(tmp_path / "nowhere.arrow")
    table = pa.table({"image": ["text"], "label": [1]})
    with (
        pa.OSFile(str(tmp_path / "other.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as w,
    ):
        w.write_table(table)
    with pytest.raises(
        ShardError, match=r"other\.arrow: expected one batch of image, label and key"
    ):
        ShardReader(tmp_path / "other.arrow")


def test_fetching_copies_once_and_uses_the_copy_again(shard, tmp_path):
    path = fetch_shard(shard, tmp_path / "cache")
    assert sha256_of_file(path) == shard.sha256
    Path(shard.uri).unlink()
    assert fetch_shard(shard, tmp_path / "cache") == path


def test_a_damaged_copy_is_fetched_again(shard, tmp_path):
    path = fetch_shard(shard, tmp_path / "cache")
    path.write_bytes(b"damaged")
    assert sha256_of_file(fetch_shard(shard, tmp_path / "cache")) == shard.sha256


def test_an_altered_shard_is_named_with_both_digests_and_not_kept(shard, tmp_path):
    with Path(shard.uri).open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"x")
    with pytest.raises(ShardError) as caught:
        fetch_shard(shard, tmp_path / "cache")
    message = str(caught.value)
    assert shard.uri in message
    assert shard.sha256 in message
    assert sha256_of_file(tmp_path / "store" / "shard-00000.arrow") in message
    assert "run preprocess again" in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_storage_refusing_a_shard_is_told_as_such(shard, tmp_path):
    Path(shard.uri).unlink()
    with pytest.raises(StorageError, match="there is no such file"):
        fetch_shard(shard, tmp_path / "cache")
