"""Any piece of an object can be read, and any buffer written, without the rest."""

import io
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from botocore.exceptions import ClientError

from plsc import storage
from plsc.errors import StorageError
from plsc.storage import s3, streams

CONTENT = random.Random(5).randbytes(3_000_000)
SIZE = len(CONTENT)


@pytest.fixture
def uri(root: str) -> str:
    storage.write_bytes(f"{root}/object", CONTENT)
    return f"{root}/object"


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 0), (0, 1), (7, 7), (17, 1_500_000), (SIZE - 1, SIZE), (0, SIZE), (SIZE, SIZE)],
)
def test_a_range_is_exact(uri: str, start: int, stop: int) -> None:
    assert storage.read_range(uri, start, stop) == CONTENT[start:stop]
    with storage.open_reader(uri, start=start, stop=stop) as reader:
        assert reader.read() == CONTENT[start:stop]
    with storage.open_reader(uri, start=start) as reader:
        assert reader.read() == CONTENT[start:]


def test_a_range_over_the_end_is_an_error_unless_it_is_a_stream(uri: str) -> None:
    for start in (0, SIZE - 1, SIZE, SIZE + 9):
        with pytest.raises(StorageError, match=rf"expected the bytes from {start} to {SIZE + 10}"):
            storage.read_range(uri, start, SIZE + 10)
        with storage.open_reader(uri, start=start, stop=SIZE + 10) as reader:
            assert reader.read() == CONTENT[start:]
        with storage.open_reader(uri, start=start) as reader:
            assert reader.read() == CONTENT[start:]


@pytest.mark.parametrize("make", [bytearray, lambda size: np.zeros(size // 4, np.int32)])
def test_a_range_fills_a_buffer_and_no_more(uri: str, make: Callable[[int], bytearray]) -> None:
    for start, size in [(0, 0), (0, 8), (7, 2_000_000), (SIZE - 4, 4), (SIZE, 0)]:
        target = make(size)
        storage.read_range_into(uri, start, memoryview(target))
        assert bytes(target) == CONTENT[start : start + size]
    with storage.open_reader(uri) as reader:
        assert reader.read(8) == CONTENT[:8]


def test_a_buffer_that_reaches_over_the_end_is_an_error(uri: str) -> None:
    for start in (0, SIZE - 1, SIZE, SIZE + 9):
        target = memoryview(bytearray(SIZE + 10 - start))
        with pytest.raises(StorageError, match=rf"expected the bytes from {start} to {SIZE + 10}"):
            storage.read_range_into(uri, start, target)
    with pytest.raises(StorageError, match=r"nothing: there is no such (object|file)"):
        storage.read_range_into(f"{uri}-nothing", 0, memoryview(bytearray(1)))


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 4), (-3, None)])
def test_what_is_no_range_is_refused(uri: str, start: int, stop: int | None) -> None:
    with (
        pytest.raises(StorageError, match=r"expected 0 <= start <= stop"),
        storage.open_reader(uri, start=start, stop=stop),
    ):
        pass


def test_a_range_gives_lines(root: str) -> None:
    storage.write_bytes(f"{root}/lines", b"one\ntwo\nthree\nfour")
    with storage.open_reader(f"{root}/lines", start=2, stop=12) as reader:
        assert list(reader) == [b"e\n", b"two\n", b"thre"]


def test_an_empty_object_is_empty_in_every_way(root: str, tmp_path: Path) -> None:
    storage.write_bytes(f"{root}/empty", b"")
    assert storage.read_bytes(f"{root}/empty") == b""
    assert storage.read_range(f"{root}/empty", 0, 0) == b""
    with storage.open_reader(f"{root}/empty", stop=10) as reader:
        assert reader.read() == b""
    with storage.open_seekable(f"{root}/empty") as reader:
        assert reader.read() == b""
    storage.download(f"{root}/empty", tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""


@pytest.mark.parametrize("seed", range(4))
def test_seeking_reads_what_a_file_in_memory_reads(
    uri: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of 1 KiB and buffers of 4 KiB let their borders be met often."""
    monkeypatch.setattr(streams, "_FIRST_WINDOW_BYTES", 1 << 10)
    monkeypatch.setattr(s3, "_BUFFER_BYTES", 1 << 12)
    chance, expected = random.Random(seed), io.BytesIO(CONTENT)
    with storage.open_seekable(uri) as reader:
        for _ in range(120):
            whence = chance.choice([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
            origin = {0: 0, 1: expected.tell(), 2: SIZE}[whence]
            if chance.random() < 0.6:
                to = chance.choice([chance.randrange(SIZE + 100), expected.tell() + 100, SIZE - 5])
                assert reader.seek(to - origin, whence) == expected.seek(to - origin, whence)
            size = chance.choice([0, 1, 100, 5000, 300_000, 1_000_000])
            assert reader.read(size) == expected.read(size)
            assert reader.tell() == expected.tell()
        reader.seek(SIZE - 9)
        assert reader.read() == CONTENT[-9:]


def test_a_parquet_file_is_read_where_it_lies(root: str) -> None:
    table = pa.table({"image": [os.urandom(2000) for _ in range(3000)], "label": range(3000)})
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, row_group_size=500)
    storage.write_bytes(f"{root}/table", memoryview(sink.getvalue()))
    with storage.open_seekable(f"{root}/table") as reader:
        file = pyarrow.parquet.ParquetFile(reader)
        assert file.read_row_group(3, ["label"])["label"].to_pylist() == [*range(1500, 2000)]
        assert file.read().equals(table)


@pytest.mark.services
def test_reading_in_order_makes_few_requests_and_jumping_small_ones(
    bucket_uri: str, through: Callable[..., object]
) -> None:
    storage.write_bytes(f"{bucket_uri}/large", bytes(20 << 20))
    with through() as proxy:
        with storage.open_seekable(f"{bucket_uri}/large") as reader:
            while reader.read(100_000):
                pass
        assert proxy.requests["GET"] <= 5  # 1 + 2 + 4 + 8 + 5 MiB
        with storage.open_seekable(f"{bucket_uri}/large") as reader:
            for place in range(5):
                reader.seek(place * 4_000_000)
                reader.read(10)
        assert proxy.requests["GET"] <= 10


def test_the_size_and_the_tag_are_those_of_the_list(root: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    storage.write_bytes(f"{root}/a", CONTENT)
    storage.upload(tmp_path / "file", f"{root}/b")
    assert [storage.stat(f"{root}/{name}") for name in "ab"] == list(
        storage.list_objects(f"{root}/")
    )
    with pytest.raises(StorageError, match=r"nothing: there is no such (object|file)"):
        storage.stat(f"{root}/nothing")


@pytest.mark.services
def test_the_tag_of_an_upload_in_parts_is_that_of_the_list(
    bucket_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 5 << 20)
    monkeypatch.setattr(s3, "PART_BYTES", 1 << 20)
    (tmp_path / "file").write_bytes(CONTENT * 4)
    storage.upload(tmp_path / "file", f"{bucket_uri}/a")
    assert [storage.stat(f"{bucket_uri}/a")] == list(storage.list_objects(f"{bucket_uri}/"))
    storage.download(f"{bucket_uri}/a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT * 4


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize(
    "buffer",
    [bytes, bytearray, memoryview, lambda content: memoryview(pa.py_buffer(content))],
    ids=["bytes", "bytearray", "memoryview", "arrow"],
)
def test_any_buffer_is_written(root: str, buffer: Callable[[bytes], bytes], durable: bool) -> None:
    for content in (b"", b"x", CONTENT):
        storage.write_bytes(f"{root}/a", buffer(content), durable=durable)
        assert storage.read_bytes(f"{root}/a") == content


def test_a_view_of_wider_items_is_written_as_its_bytes(root: str) -> None:
    wide = memoryview(CONTENT).cast("I")
    storage.write_bytes(f"{root}/a", wide)
    assert storage.read_bytes(f"{root}/a") == CONTENT


_WRITE_FOR_EVER = """
import sys
from plsc import storage
print("begun", flush=True)
while True:
    storage.write_bytes(sys.argv[1], bytes(50_000_000), durable=False)
    storage.delete(sys.argv[1])
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.013, 0.031, 0.05])
def test_a_killed_writer_leaves_all_or_nothing_under_the_name(
    tmp_path: Path, delay_s: float
) -> None:
    uri = str(tmp_path / "store" / "a")
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITE_FOR_EVER, uri], stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(delay_s)
        writer.kill()
    assert [info.size_bytes for info in storage.list_objects(uri)] in ([], [50_000_000])
    found = [info.uri for info in storage.list_objects(str(tmp_path / "store"))]
    assert found in ([], [uri])


@pytest.mark.services
def test_a_folder_goes_a_thousand_objects_at_a_time_or_one_by_one(
    bucket_uri: str, through: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill() -> None:
        for number in range(12):
            storage.write_bytes(f"{bucket_uri}/folder/ä {number}&<", b"")

    monkeypatch.setattr(s3, "_KEYS_PER_DELETION", 5)
    with through() as proxy:
        fill()
        assert storage.delete_prefix(f"{bucket_uri}/folder") == 12
        assert proxy.requests["POST"] == 3
        assert proxy.requests["DELETE"] == 0
        assert list(storage.list_objects(f"{bucket_uri}/")) == []

        def refuse(**_: object) -> object:
            raise ClientError({"Error": {"Code": "NotImplemented"}}, "DeleteObjects")

        fill()
        monkeypatch.setattr(s3.client(), "delete_objects", refuse)
        assert storage.delete_prefix(f"{bucket_uri}/folder") == 12
        assert proxy.requests["DELETE"] == 12
        assert list(storage.list_objects(f"{bucket_uri}/")) == []
