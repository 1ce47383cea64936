"""The door to bytes keeps the same promises on disk and on a real S3 server."""

import itertools
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from plsc import storage
from plsc.errors import StorageError
from plsc.storage import disk, patience, s3


@pytest.fixture
def environment(
    object_store: object, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.MonkeyPatch]:
    """Environment to change for one test, with a fresh S3 client before and after."""
    monkeypatch.setattr(patience, "PAUSE_S", 0.01)
    s3.client.cache_clear()
    yield monkeypatch
    s3.client.cache_clear()


def test_bytes_come_back_as_they_went(root: str) -> None:
    for content in [b"", b"x", os.urandom(300_000)]:
        storage.write_bytes(f"{root}/a/b.bin", content)
        assert storage.read_bytes(f"{root}/a/b.bin") == content


def test_names_with_odd_characters_are_kept_apart(root: str) -> None:
    names = ["a b", "ä", "a+b", "a%20b", "a?b", "a#b", "a&b=c", "a", "a?", "a#", "a\tb", "a\r\nb"]
    for name in names:
        storage.write_bytes(f"{root}/{name}", name.encode())
    assert [storage.read_bytes(f"{root}/{name}").decode() for name in names] == names
    found = [info.uri for info in storage.list_objects(f"{root}/")]
    assert found == sorted(f"{root}/{name}" for name in names)
    storage.delete(f"{root}/a?")
    assert storage.exists(f"{root}/a")
    assert not storage.exists(f"{root}/a?")
    assert storage.delete_prefix(root) == len(names) - 1
    assert list(storage.list_objects(f"{root}/")) == []


def test_files_go_up_and_down(root: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(os.urandom(100_000))
    storage.upload(tmp_path / "in", f"{root}/file")
    storage.download(f"{root}/file", tmp_path / "deep" / "out")
    assert (tmp_path / "in").read_bytes() == (tmp_path / "deep" / "out").read_bytes()
    assert storage.sha256_of_file(tmp_path / "in") == storage.sha256_of_file(tmp_path / "deep/out")


def test_large_files_go_up_in_parts(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 5 * 1024 * 1024)
    content = os.urandom(12 * 1024 * 1024 + 7)
    (tmp_path / "in").write_bytes(content)
    storage.upload(tmp_path / "in", f"{root}/large")
    assert storage.read_bytes(f"{root}/large") == content
    (info,) = storage.list_objects(f"{root}/large")
    assert info.size_bytes == len(content)


def test_lists_are_sorted_and_complete(root: str) -> None:
    names = ["b/2", "a", "b/10", "c/d/e", "b0", "b-1", "b.c/d"]
    for name in names:
        storage.write_bytes(f"{root}/{name}", name.encode())
    found = list(storage.list_objects(f"{root}/"))
    assert [info.uri for info in found] == sorted(f"{root}/{name}" for name in names)
    assert [info.size_bytes for info in found] == [len(n) for n in sorted(names)]


@pytest.mark.services
def test_lists_longer_than_a_page_are_complete(bucket_uri: str) -> None:
    names = [f"{bucket_uri}/{number:04d}" for number in range(1005)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(storage.write_bytes, names, itertools.repeat(b"")))
    found = [info.uri[-4:] for info in storage.list_objects(f"{bucket_uri}/")]
    assert found == [f"{number:04d}" for number in range(1005)]
    assert storage.delete_prefix(bucket_uri) == 1005


def test_lists_do_not_show_what_is_still_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        seen.append([info.uri for info in storage.list_objects(str(tmp_path / "store"))])

    monkeypatch.setattr(disk.shutil, "copyfile", look)
    storage.upload(tmp_path / "in", str(tmp_path / "store" / "a"))
    assert seen == [[]]


def test_the_tag_changes_with_the_content(root: str) -> None:
    storage.write_bytes(f"{root}/a", b"one")
    (before,) = storage.list_objects(f"{root}/a")
    storage.write_bytes(f"{root}/a", b"two, longer")
    (after,) = storage.list_objects(f"{root}/a")
    assert before.etag != after.etag


def test_only_the_exact_name_exists(root: str) -> None:
    storage.write_bytes(f"{root}/folder/file", b"")
    assert storage.exists(f"{root}/folder/file")
    assert not storage.exists(f"{root}/folder/fil")
    assert not storage.exists(f"{root}/folder")


def test_deleting_a_folder_spares_its_namesakes(root: str) -> None:
    for name in ["v1/a", "v1/b/c", "v10/a"]:
        storage.write_bytes(f"{root}/{name}", b"x")
    assert storage.delete_prefix(f"{root}/v1") == 2
    assert [info.uri for info in storage.list_objects(f"{root}/")] == [f"{root}/v10/a"]
    storage.delete(f"{root}/v1/a")


def test_a_reader_gives_lines(root: str) -> None:
    storage.write_bytes(f"{root}/lines", b"one\ntwo\nthree")
    with storage.open_reader(f"{root}/lines") as reader:
        assert list(reader) == [b"one\n", b"two\n", b"three"]


def test_more_than_the_limit_is_refused(root: str) -> None:
    storage.write_bytes(f"{root}/a", b"12345")
    assert storage.read_bytes(f"{root}/a", limit_bytes=5) == b"12345"
    with pytest.raises(StorageError, match="larger than the 4 bytes"):
        storage.read_bytes(f"{root}/a", limit_bytes=4)


def test_readers_see_one_write_or_the_other(root: str) -> None:
    contents = [bytes([value]) * 3_000_000 for value in (1, 2)]
    storage.write_bytes(f"{root}/a", contents[0])
    done = threading.Event()

    def rewrite() -> None:
        for number in range(20):
            storage.write_bytes(f"{root}/a", contents[number % 2])
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    reads = 0
    while not done.is_set() or reads == 0:
        assert storage.read_bytes(f"{root}/a") in contents
        reads += 1
    writer.join()


def test_a_failed_upload_leaves_the_old_content(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 5 * 1024 * 1024)
    storage.write_bytes(f"{root}/a", b"old")
    (tmp_path / "in").write_bytes(os.urandom(11 * 1024 * 1024))
    if storage.is_remote(root):
        client = s3.client()
        send = client.upload_part

        def fail_on_the_second(**part: object) -> object:
            if part["PartNumber"] == 2:
                raise ClientError({"Error": {"Code": "QuotaExceeded"}}, "UploadPart")
            return send(**part)

        monkeypatch.setattr(client, "upload_part", fail_on_the_second)
    else:

        def copy_half(source: Path, target: Path) -> None:
            target.write_bytes(source.read_bytes()[:5_000_000])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(disk.shutil, "copyfile", copy_half)
    with pytest.raises(StorageError, match=r"QuotaExceeded|No space left"):
        storage.upload(tmp_path / "in", f"{root}/a")
    assert storage.read_bytes(f"{root}/a") == b"old"
    assert [info.uri for info in storage.list_objects(f"{root}/")] == [f"{root}/a"]


def test_a_failed_download_leaves_no_file(root: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        storage.download(f"{root}/nothing", tmp_path / "here" / "out")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_missing_object_is_told_with_its_uri(root: str) -> None:
    storage.ensure_bucket(root)
    with pytest.raises(StorageError, match=r"nothing: there is no such (object|file): check"):
        storage.read_bytes(f"{root}/nothing")


def test_the_bucket_may_be_made_twice(root: str) -> None:
    storage.ensure_bucket(root)
    storage.ensure_bucket(root)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(StorageError, match="unknown scheme 'gs'"):
        storage.read_bytes("gs://bucket/key")


@pytest.mark.services
@pytest.mark.parametrize(
    "use",
    [
        storage.read_bytes,
        lambda uri: storage.write_bytes(uri, b"x"),
        lambda uri: list(storage.list_objects(uri)),
        storage.exists,
    ],
    ids=["read", "write", "list", "exists"],
)
class TestTroubleWithTheStore:
    def test_a_missing_bucket_is_told(self, object_store: object, use: object) -> None:
        with pytest.raises(StorageError, match="bucket does not exist: create it"):
            use("s3://no-such-bucket/key")

    def test_a_wrong_secret_is_told(
        self, environment: pytest.MonkeyPatch, bucket_uri: str, use: object
    ) -> None:
        environment.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(StorageError, match=r"check AWS_"):
            use(f"{bucket_uri}/key")

    def test_an_unknown_key_is_told(
        self, environment: pytest.MonkeyPatch, bucket_uri: str, use: object
    ) -> None:
        environment.setenv("AWS_ACCESS_KEY_ID", "nobody")
        with pytest.raises(StorageError, match="check AWS_ACCESS_KEY_ID"):
            use(f"{bucket_uri}/key")

    def test_a_store_that_is_not_there_is_told_soon(
        self, environment: pytest.MonkeyPatch, use: object
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            environment.setenv("S3_ENDPOINT", f"http://127.0.0.1:{probe.getsockname()[1]}")
        begin = time.monotonic()
        with pytest.raises(StorageError, match=r"no object store answers at http.*services-up"):
            use("s3://plsc/key")
        assert time.monotonic() - begin < 15

    def test_missing_credentials_are_told(
        self, environment: pytest.MonkeyPatch, use: object, tmp_path: Path
    ) -> None:
        environment.delenv("AWS_ACCESS_KEY_ID")
        environment.delenv("AWS_SECRET_ACCESS_KEY")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        environment.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        with pytest.raises(StorageError, match="no credentials: set AWS_ACCESS_KEY_ID"):
            use("s3://plsc/key")


_FILL_THE_DISK = """
import resource, sys
from pathlib import Path
from plsc import storage
from plsc.errors import StorageError
uri, source = sys.argv[1:]
storage.write_bytes(uri, b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
for use in (
    lambda: storage.write_bytes(uri, bytes(2_000_000)),
    lambda: storage.upload(Path(source), uri),
    lambda: storage.download(source, Path(uri)),
):
    try:
        use()
    except StorageError as error:
        assert "check that the disk has room" in str(error), error
    else:
        sys.exit("no error")
assert storage.read_bytes(uri) == b"old"
"""


def test_a_full_disk_leaves_no_half_file(tmp_path: Path) -> None:
    """The limit on the size of files gives the same error at the same place as a full disk."""
    assert resource.RLIMIT_FSIZE
    source = tmp_path / "source"
    source.write_bytes(bytes(2_000_000))
    command = [sys.executable, "-c", _FILL_THE_DISK, str(tmp_path / "store" / "a"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a"]
