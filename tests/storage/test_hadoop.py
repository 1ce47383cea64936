"""Inputs on a Hadoop cluster are read as from anywhere else, and nothing is written there."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from plsc import storage
from plsc.errors import StorageError
from plsc.storage import hadoop, patience
from tests.faults import Fault, FaultProxy, busy, cut, error, reset, stall
from tests.webhdfs import WebHdfs

CONTENT = os.urandom(6_000_000)  # more than one block of the client


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebHdfs]:
    monkeypatch.setattr(patience, "PAUSE_S", 0.01)
    monkeypatch.setenv("S3_TIMEOUT_S", "0.4")
    (tmp_path / "hdfs").mkdir()
    with WebHdfs(tmp_path / "hdfs") as running:
        yield running
    hadoop._system.cache_clear()


@pytest.fixture
def root(cluster: WebHdfs) -> str:
    return cluster.name_endpoint.replace("http", "webhdfs")


def test_files_are_read_whole_in_ranges_and_here_and_there(
    cluster: WebHdfs, root: str, tmp_path: Path
) -> None:
    (cluster.folder / "a").write_bytes(CONTENT)
    assert storage.read_bytes(f"{root}/a") == CONTENT
    assert storage.read_range(f"{root}/a", 5_000_000, 5_000_100) == CONTENT[5_000_000:5_000_100]
    with storage.open_reader(f"{root}/a", start=5_999_990, stop=7_000_000) as reader:
        assert reader.read() == CONTENT[-10:]
    with storage.open_reader(f"{root}/a", start=7_000_000) as reader:
        assert reader.read() == b""
    with storage.open_seekable(f"{root}/a") as reader:
        assert reader.seek(-7, os.SEEK_END) == 5_999_993
        assert reader.read() == CONTENT[-7:]
        reader.seek(1234)
        assert reader.read(10) == CONTENT[1234:1244]
    storage.download(f"{root}/a", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == CONTENT


def test_lists_are_sorted_and_complete_and_tell_sizes_and_tags(cluster: WebHdfs, root: str) -> None:
    names = ["a b", "d/e/a%20b", "d/e/a?b#c", "d/ä", "d0"]
    for size, name in enumerate(names):
        (cluster.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (cluster.folder / name).write_bytes(bytes(size))
    found = list(storage.list_objects(root))
    assert [info.uri for info in found] == [f"{root}/{name}" for name in names]
    assert [info.size_bytes for info in found] == [0, 1, 2, 3, 4]
    assert found == [storage.stat(info.uri) for info in found]
    assert [len(storage.read_bytes(info.uri)) for info in found] == [0, 1, 2, 3, 4]
    assert list(storage.list_objects(f"{root}/d/")) == found[1:4]
    assert list(storage.list_objects(f"{root}/d0")) == found[4:]
    assert list(storage.list_objects(f"{root}/nothing")) == []
    assert storage.exists(f"{root}/d0")
    assert not storage.exists(f"{root}/d")
    assert not storage.exists(f"{root}/nothing")


PASSING = [
    busy(times=3),
    error(times=3),
    reset(times=3),
    cut(after_bytes=100, times=3),
    stall(times=2),
    stall(after_bytes=100, times=2),
]


@pytest.mark.parametrize("node", ["name_endpoint", "data_endpoint"])
@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.kind}-{fault.after_bytes}")
def test_what_passes_costs_no_byte(cluster: WebHdfs, node: str, fault: Fault) -> None:
    (cluster.folder / "a").write_bytes(CONTENT)
    with FaultProxy(getattr(cluster, node), [fault]) as proxy:
        setattr(cluster, node, proxy.endpoint)
        root = cluster.name_endpoint.replace("http", "webhdfs")
        assert [info.uri for info in storage.list_objects(root)] == [f"{root}/a"]
        assert storage.read_bytes(f"{root}/a") == CONTENT
    assert proxy.injected.total() == fault.times


@pytest.mark.parametrize("fault", [busy(), reset(), cut(after_bytes=100), stall()])
def test_what_does_not_pass_is_told(
    cluster: WebHdfs, root: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_TIMEOUT_S", "0.15")
    (cluster.folder / "a").write_bytes(CONTENT)
    with FaultProxy(cluster.data_endpoint, [fault]) as proxy:
        cluster.data_endpoint = proxy.endpoint
        with pytest.raises(StorageError, match=r"/a: the connection broke 6 times in a row"):
            storage.read_bytes(f"{root}/a")


def test_the_text_of_an_error_is_not_taken_for_content(cluster: WebHdfs, root: str) -> None:
    (cluster.folder / "a").write_bytes(b"x" * 500)
    cluster.is_forgetful = True
    with pytest.raises(StorageError, match="no such block"):
        storage.read_bytes(f"{root}/a")


def test_a_file_replaced_in_the_middle_is_an_error_and_no_mix(cluster: WebHdfs, root: str) -> None:
    (cluster.folder / "a").write_bytes(CONTENT)
    with storage.open_reader(f"{root}/a") as reader:
        assert reader.read(10) == CONTENT[:10]
        (cluster.folder / "a").write_bytes(bytes(6_000_001))
        with FaultProxy(cluster.data_endpoint, [reset(times=1)]) as proxy:
            cluster.data_endpoint = proxy.endpoint
            with pytest.raises(StorageError, match="replaced by another object"):
                reader.read()


def test_a_cluster_that_is_not_there_is_no_empty_folder(cluster: WebHdfs) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = f"webhdfs://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(StorageError, match=r"did not answer as it should, 6 times.*name node"):
        list(storage.list_objects(f"{place}/data"))


def test_missing_files_and_missing_rights_are_told(cluster: WebHdfs, root: str) -> None:
    with pytest.raises(StorageError, match=r"nothing: there is no such file"):
        storage.read_bytes(f"{root}/nothing")
    with pytest.raises(StorageError, match=r"is a folder: expected a file"):
        storage.stat(f"{root}/")
    cluster.refuses = True
    with pytest.raises(StorageError, match=r"Permission denied.*HADOOP_USER_NAME"):
        storage.read_bytes(f"{root}/a")


def test_a_name_that_hadoop_does_not_take_is_told_at_once(cluster: WebHdfs, root: str) -> None:
    cluster.is_strict = True
    for use in (storage.read_bytes, storage.stat, lambda uri: list(storage.list_objects(uri))):
        with pytest.raises(StorageError, match=r"/a:b: .* cannot make sense.*Invalid.*no ':'"):
            use(f"{root}/a:b")
    assert len(cluster.users) == 3


def test_who_asks_stands_in_the_uri_or_the_environment(
    cluster: WebHdfs, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cluster.folder / "a").write_bytes(b"x")
    monkeypatch.setenv("HADOOP_USER_NAME", "ada")
    assert storage.exists(f"{root}/a")
    assert storage.exists(f"{root.replace('//', '//bob@')}/a")
    assert cluster.users == ["ada", "bob"]


@pytest.mark.parametrize(
    "use",
    [
        lambda uri: storage.write_bytes(uri, b"x"),
        lambda uri: storage.upload(Path(__file__), uri),
        storage.delete,
        storage.delete_prefix,
        storage.ensure_bucket,
    ],
    ids=["write", "upload", "delete", "delete_prefix", "ensure_bucket"],
)
def test_nothing_is_written_there(
    cluster: WebHdfs, root: str, use: Callable[[str], object]
) -> None:
    (cluster.folder / "a").write_bytes(b"old")
    with pytest.raises(StorageError, match=r"nothing is written there: give an s3:// uri"):
        use(f"{root}/a")
    assert (cluster.folder / "a").read_bytes() == b"old"


def test_a_missing_package_is_named(cluster: WebHdfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(StorageError, match=r'pip install "plsc\[hdfs\]"'):
        storage.read_bytes("webhdfs://somewhere/a")


def test_hadoops_own_protocol_tells_what_it_needs(
    cluster: WebHdfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HADOOP_HOME", "ARROW_LIBHDFS_DIR", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageError, match=r"hdfs:// needs Hadoop's libhdfs.*webhdfs:// needs"):
        storage.read_bytes("hdfs://somewhere:8020/a")
