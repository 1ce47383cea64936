"""Folders on disk: links, pipes, names of any length, and others who delete meanwhile."""

import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from plsc import storage
from plsc.errors import StorageError
from plsc.storage import disk


def names_in(folder: Path | str) -> list[str]:
    return [info.uri for info in storage.list_objects(str(folder))]


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with links to a file, to a folder elsewhere, to itself, and to nothing."""
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "a").write_bytes(b"a")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b").write_bytes(b"b")
    (folder / "c").symlink_to("b")
    for name in ("x", "y"):
        (folder / name).symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to("loop")
    (folder / "lost").symlink_to("nowhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (tmp_path / "elsewhere" / "deep" / "up").symlink_to("..")
    return folder


def test_links_are_followed_but_not_in_circles(linked: Path) -> None:
    expected = [str(linked / name) for name in ("b", "c", "x/deep/a", "y/deep/a")]
    assert names_in(linked) == names_in(f"file://{linked}/") == expected
    assert list(storage.list_objects(str(linked))) == [storage.stat(name) for name in expected]


def test_the_folder_where_one_stands_gives_names_as_before(
    linked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(linked)
    assert names_in(".") == names_in("./") == ["b", "c", "x/deep/a", "y/deep/a"]


def test_what_a_link_leads_to_is_not_deleted(linked: Path, tmp_path: Path) -> None:
    assert storage.delete_prefix(str(linked)) == 2  # b and c
    assert not linked.exists()
    assert (tmp_path / "elsewhere" / "deep" / "a").read_bytes() == b"a"


def test_pipes_are_no_content_and_never_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert names_in(tmp_path) == []
    assert not storage.exists(str(pipe))
    for use in (
        storage.read_bytes,
        storage.stat,
        lambda uri: storage.read_range(uri, 0, 1),
        lambda uri: storage.open_seekable(uri).__enter__(),
        lambda uri: storage.download(uri, tmp_path / "copy"),
    ):
        with pytest.raises(StorageError, match="pipe: expected a file, found a pipe, socket or"):
            use(str(pipe))
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_list_goes_on_while_others_delete(tmp_path: Path) -> None:
    (tmp_path / "stays").write_bytes(b"")
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            for number in range(20):
                (tmp_path / "work" / str(number)).mkdir(parents=True)
                (tmp_path / "work" / str(number) / "file").write_bytes(b"")
            shutil.rmtree(tmp_path / "work")

    writer = threading.Thread(target=churn)
    writer.start()
    try:
        for _ in range(200):
            assert str(tmp_path / "stays") in names_in(tmp_path)
    finally:
        ended.set()
        writer.join()


def test_a_folder_that_may_not_be_read_is_told_and_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(disk.os, "scandir", refuse)  # root may read everything
    with pytest.raises(StorageError, match=r"Permission denied \(.*closed\): check this user's"):
        names_in(tmp_path)


def test_names_may_be_as_long_as_the_disk_allows(tmp_path: Path) -> None:
    name = "x" * 255
    storage.write_bytes(f"{tmp_path}/store/{name}", b"1")
    storage.upload(tmp_path / "store" / name, f"{tmp_path}/store/{name[:-1]}y")
    storage.download(f"{tmp_path}/store/{name}", tmp_path / "store" / f"{name[:-1]}z")
    assert [uri[-1] for uri in names_in(tmp_path / "store")] == ["x", "y", "z"]


@pytest.mark.parametrize("uri", ["file://host/a", "file://a", "file:"])
def test_a_file_of_another_machine_is_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="names no file of this machine: expected file:///path"):
        storage.exists(uri)


def test_a_file_uri_is_its_path_to_the_letter(tmp_path: Path) -> None:
    for name in ("a", "a?", "a?b", "a#b", "a%20b", "a\tb\n"):
        storage.write_bytes(f"file://{tmp_path}/{name}", name.encode())
        assert (tmp_path / name).read_bytes() == name.encode()
    storage.delete(f"file://{tmp_path}/a?")
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "a?").exists()
