"""A store that is overloaded, cuts connections or falls silent costs time, never bytes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipelines.services import Services
from plsc import storage
from plsc.errors import ConfigError, StorageError
from plsc.storage import patience, s3, streams
from tests.faults import Fault, FaultProxy, busy, call, cut, error, lose, reset, stall

pytestmark = pytest.mark.services

Through = Callable[..., AbstractContextManager[FaultProxy]]

CONTENT = os.urandom(3_000_000)


@pytest.fixture
def uri(bucket_uri: str) -> str:
    """An object of ``CONTENT``."""
    storage.write_bytes(f"{bucket_uri}/object", CONTENT)
    return f"{bucket_uri}/object"


def read_by_reader(uri: str, _: Path) -> bytes:
    with storage.open_reader(uri) as reader:
        return reader.read()


def read_by_seekable(uri: str, _: Path) -> bytes:
    with storage.open_seekable(uri) as reader:
        reader.seek(1_500_000)
        end = reader.read()
        reader.seek(0)
        return reader.read(1_500_000) + end


def read_by_range(uri: str, _: Path) -> bytes:
    return storage.read_range(uri, 0, 5000) + storage.read_range(uri, 5000, len(CONTENT))


def read_by_download(uri: str, folder: Path) -> bytes:
    storage.download(uri, folder / "copy")
    return (folder / "copy").read_bytes()


def read_by_range_into(uri: str, _: Path) -> bytes:
    content = bytearray(len(CONTENT))
    storage.read_range_into(uri, 0, memoryview(content)[:5000])
    storage.read_range_into(uri, 5000, memoryview(content)[5000:])
    return bytes(content)


READS = [read_by_reader, read_by_seekable, read_by_range, read_by_range_into, read_by_download]
PASSING = [
    busy(times=3),
    error(times=3),
    reset(times=3),
    lose(times=3),
    cut(method="GET", after_bytes=1, times=3),
    cut(method="GET", after_bytes=1_000_000, every=2, times=3),
    stall(method="GET", after_bytes=1_000_000, times=1),
    stall(method="GET", times=1),
]


def name_of(fault: Fault) -> str:
    return f"{fault.kind}-{fault.after_bytes}"


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("fault", PASSING, ids=name_of)
def test_what_passes_costs_no_byte(
    through: Through, uri: str, tmp_path: Path, read: Callable[[str, Path], bytes], fault: Fault
) -> None:
    with through(fault) as proxy:
        assert read(uri, tmp_path) == CONTENT
    assert proxy.injected[fault.kind] >= 1


@pytest.mark.parametrize("fault", [cut(after_bytes=200), *PASSING[:4]], ids=name_of)
def test_calls_without_a_stream_are_made_again(
    through: Through, bucket_uri: str, tmp_path: Path, fault: Fault
) -> None:
    names = [f"{bucket_uri}/{number}" for number in range(3)]
    (tmp_path / "file").write_bytes(CONTENT)
    begun = Fault(fault.kind, after_bytes=fault.after_bytes, every=2)  # every second request
    with through(begun) as proxy:
        storage.write_bytes(names[0], CONTENT)
        storage.write_bytes(names[1], memoryview(CONTENT))
        storage.upload(tmp_path / "file", names[2])
        assert [storage.read_bytes(name) == CONTENT for name in names] == [True] * 3
        assert [info.uri for info in storage.list_objects(f"{bucket_uri}/")] == names
        assert storage.stat(names[0]).size_bytes == len(CONTENT)
        assert storage.exists(names[0])
        storage.delete(names[0])
        assert storage.delete_prefix(bucket_uri) == 2
    assert proxy.injected[fault.kind] >= 4
    assert list(storage.list_objects(f"{bucket_uri}/")) == []


@pytest.mark.parametrize(
    "faults",
    [
        [reset(path="partNumber=2", times=2), busy(path="uploads", times=1)],
        [lose(path="partNumber=2", times=1), lose(path="uploads", times=1)],
        [lose(method="POST", path="uploadId", times=1)],
    ],
    ids=["not taken", "taken without an answer", "completed without an answer"],
)
def test_a_large_upload_is_completed_over_faults(
    through: Through,
    bucket_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: list[Fault],
) -> None:
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 5 << 20)
    content = os.urandom(12 << 20)
    (tmp_path / "in").write_bytes(content)
    with through(*faults) as proxy:
        storage.upload(tmp_path / "in", f"{bucket_uri}/large")
    assert proxy.injected.total() == sum(fault.times or 0 for fault in faults)
    assert storage.read_bytes(f"{bucket_uri}/large") == content


def test_a_large_download_goes_on_in_each_part(
    through: Through, bucket_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 1 << 20)
    content = os.urandom((7 << 20) + 13)
    storage.write_bytes(f"{bucket_uri}/large", content)
    with through(cut(method="GET", after_bytes=700_000, every=2, times=8)) as proxy:
        storage.download(f"{bucket_uri}/large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert proxy.injected["cut"] >= 4


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (busy(), r"SlowDown 6 times.*too much to do|answered 503 6 times"),
        (error(), r"InternalError 6 times|answered 500 6 times"),
        (reset(), r"Connection.*\(6 times\): check the network"),
        (cut(method="GET", after_bytes=100), r"broke 6 times in a row at byte \d+ of 3000000"),
        (stall(method="GET", after_bytes=100), r"broke 6 times in a row at byte \d+ of 3000000"),
    ],
    ids=["busy", "error", "reset", "cut", "stall"],
)
def test_what_does_not_pass_is_told_with_the_number_of_tries(
    through: Through,
    uri: str,
    tmp_path: Path,
    read: Callable[[str, Path], bytes],
    fault: Fault,
    message: str,
) -> None:
    with through(fault), pytest.raises(StorageError, match=message) as caught:
        read(uri, tmp_path / "folder")
    assert str(caught.value).startswith(uri)
    if read is read_by_download:
        assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize(
    "use",
    [
        lambda uri: storage.write_bytes(uri, b"new"),
        lambda uri: list(storage.list_objects(uri)),
        storage.exists,
        storage.stat,
        storage.delete,
        storage.delete_prefix,
    ],
    ids=["write", "list", "exists", "stat", "delete", "delete_prefix"],
)
@pytest.mark.parametrize(("fault", "words"), [(busy(), "6 times"), (reset(), "6 times")])
def test_calls_end_in_the_same_way(
    through: Through, uri: str, use: Callable[[str], object], fault: Fault, words: str
) -> None:
    with through(fault) as proxy, pytest.raises(StorageError, match=words):
        use(uri)
    assert proxy.injected.total() == patience.TRIES
    assert storage.read_bytes(uri) == CONTENT


def test_silence_is_told_with_the_limit(through: Through, uri: str) -> None:
    begin = time.monotonic()
    with through(stall()), pytest.raises(StorageError, match=r"more than the 0.15 s of S3_TIMEOUT"):
        storage.write_bytes(uri, b"new")
    assert time.monotonic() - begin < 8


def replaced(uri: str, store: Services) -> Callable[[], object]:
    """Return what replaces the object behind the proxy's back, once."""
    import boto3

    def put() -> None:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        boto3.client(
            "s3", endpoint_url=store.s3_endpoint, config=s3.client().meta.config
        ).put_object(Bucket=bucket, Key=key, Body=bytes(len(CONTENT)))

    return put


@pytest.mark.parametrize("read", READS)
def test_an_object_replaced_in_the_middle_is_an_error_and_no_mix(
    through: Through,
    object_store: Services,
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[str, Path], bytes],
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 1 << 20)
    is_by_range = read in (read_by_range, read_by_range_into)
    number = 2 if is_by_range else 1  # one of its requests alone has no middle
    replacing = cut(
        method="GET", first=number, times=1, after_bytes=600_000, action=replaced(uri, object_store)
    )
    with through(replacing), pytest.raises(StorageError, match="replaced by another object"):
        read(uri, tmp_path)


def test_an_object_that_is_deleted_in_the_middle_is_told(through: Through, uri: str) -> None:
    gone = cut(method="GET", after_bytes=600_000, times=1, action=lambda: s3.delete(uri))
    with through(gone), pytest.raises(StorageError, match="no such object"):
        storage.read_bytes(uri)


def test_progress_between_breaks_starts_the_count_anew(
    through: Through, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_PIECE_BYTES", 1 << 14)
    with through(cut(method="GET", after_bytes=100_000)) as proxy:  # every request is cut
        assert storage.read_bytes(uri) == CONTENT
    assert proxy.injected["cut"] > 4 * patience.TRIES


def test_a_reader_that_leaves_early_leaves_no_trouble(through: Through, uri: str) -> None:
    with through(call(action=lambda: None)) as proxy:
        for _ in range(40):
            with storage.open_reader(uri) as reader:
                assert reader.read(10) == CONTENT[:10]
    assert proxy.requests["GET"] == 40


def test_a_list_that_falls_silent_in_the_middle_is_asked_for_again(
    through: Through, uri: str
) -> None:
    with through(stall(path="list-type", after_bytes=100, times=1)) as proxy:
        assert [info.uri for info in storage.list_objects(uri)] == [uri]
    assert proxy.injected["stall"] == 1


def test_children_go_through_the_same_faults(through: Through, uri: str) -> None:
    code = "import sys; from plsc import storage; print(len(storage.read_bytes(sys.argv[1])))"
    with through(cut(method="GET", after_bytes=1_000_000, times=1)) as proxy:
        child = [sys.executable, "-c", code, uri]
        done = subprocess.run(child, capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(CONTENT)
    assert proxy.requests["GET"] == 2


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_no_time_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_TIMEOUT_S", value)
    with pytest.raises(ConfigError, match=r"S3_TIMEOUT_S.*number of seconds above 0"):
        patience.timeout_s()
