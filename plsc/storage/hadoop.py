"""Files of a Hadoop cluster, to be read only, by fsspec; each function has its twin in ``disk``.

``hdfs://host:port/path`` speaks Hadoop's own protocol through pyarrow, which needs libhdfs and a
Java machine beside it; ``webhdfs://user@host:port/path`` speaks HTTP and needs neither. Without a
user in the uri, ``HADOOP_USER_NAME`` says who asks. Three of fsspec's habits are undone here: its
HTTP requests wait forever, its walk takes a cluster that does not answer for an empty folder, and
the text of a data node's error passes for the content of the file.
"""

import functools
import importlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar, cast
from urllib.parse import urlsplit

from plsc.errors import StorageError
from plsc.storage import patience
from plsc.storage.advice import REPLACED
from plsc.storage.info import ObjectInfo
from plsc.storage.names import authority_and_path, scheme_of
from plsc.storage.streams import Part, SeekableStream, Stream

__all__ = ["SCHEMES", "delete", "delete_all", "ensure", "exists", "list_infos", "open_seekable"]
__all__ += ["open_stream", "read_into", "stat", "upload", "write"]

SCHEMES = ("hdfs", "webhdfs")

_BUFFER_BYTES = 1 << 20
_BLOCK_BYTES = 4 << 20
_BREAKS = (OSError, RuntimeError)  # requests' exceptions are OSErrors; fsspec adds RuntimeErrors

Answer = TypeVar("Answer")


def open_stream(uri: str, start: int = 0, stop: int | None = None) -> BinaryIO:
    """Open bytes ``start`` to ``stop`` of a file for reading."""
    stream = Stream(uri, functools.partial(_fetch, uri), _BREAKS, start=start, stop=stop)
    return cast("BinaryIO", io.BufferedReader(stream, _BUFFER_BYTES))


def open_seekable(uri: str) -> BinaryIO:
    """Open a file for reading here and there."""
    info, fetch = stat(uri), functools.partial(_fetch, uri)

    def span(start: int, stop: int) -> Stream:
        return Stream(uri, fetch, _BREAKS, start=start, stop=stop, tag=info.etag)

    raw = SeekableStream(info.size_bytes, span)
    return cast("BinaryIO", io.BufferedReader(raw, _BUFFER_BYTES))


def stat(uri: str) -> ObjectInfo:
    """Return the size and the tag of a file."""
    place, path = _place_and_path(uri)
    info = _patiently(uri, lambda: _system(place).info(path))
    if info["type"] != "file":
        raise StorageError(f"{uri} is a folder: expected a file")
    return _object_info(place, info | {"name": path})


def read_into(uri: str, path: Path) -> None:
    """Copy a file into the local file ``path``."""
    with open_stream(uri) as stream, path.open("wb") as file:
        while piece := stream.read(_BUFFER_BYTES):
            file.write(piece)


def exists(uri: str) -> bool:
    """Return whether there is a file exactly here."""
    place, path = _place_and_path(uri)
    try:
        return bool(_patiently(uri, lambda: _system(place).info(path))["type"] == "file")
    except FileNotFoundError:
        return False


def list_infos(prefix: str) -> Iterator[ObjectInfo]:
    """Yield the file, or every file below the folder, ``prefix``."""
    place, path = _place_and_path(prefix.rstrip("/"))
    try:
        top = _patiently(prefix, lambda: _system(place).info(path or "/"))
    except FileNotFoundError:
        return
    waiting = [top | {"name": path}]
    while waiting:
        info = waiting.pop()
        if info["type"] == "file":
            yield _object_info(place, info)
        elif info["type"] == "directory":
            waiting += _patiently(prefix, functools.partial(_list, place, info["name"]))


def write(uri: str, content: bytes | bytearray | memoryview, *, durable: bool) -> None:  # noqa: ARG001
    """Refuse."""
    _refuse(uri)


def upload(path: Path, uri: str) -> None:  # noqa: ARG001
    """Refuse."""
    _refuse(uri)


def delete(uri: str) -> None:
    """Refuse."""
    _refuse(uri)


def delete_all(uris: list[str]) -> None:
    """Refuse."""
    _refuse(uris[0] if uris else "hdfs://")


def ensure(uri: str) -> None:
    """Refuse."""
    _refuse(uri)


def _refuse(uri: str) -> NoReturn:
    raise StorageError(
        f"{uri}: inputs may lie on HDFS, but nothing is written there: give an s3:// uri or a path"
    )


def _fetch(uri: str, start: int, stop: int | None, tag: str | None) -> Part:
    """Open a file at a place; a range that begins at or after the end is empty."""
    place, path = _place_and_path(uri)
    info = stat(uri)
    if tag is not None and tag != info.etag:
        raise StorageError(f"{uri}: {REPLACED}")
    begin = min(start, info.size_bytes)
    end = info.size_bytes if stop is None else min(stop, info.size_bytes)
    file = _patiently(uri, lambda: _system(place).open(path, "rb", block_size=_BLOCK_BYTES))
    file.seek(begin)
    return Part(file, start=begin, stop=max(begin, end), size_bytes=info.size_bytes, tag=info.etag)


def _list(place: str, folder: str) -> list[dict[str, Any]]:
    found = _system(place).ls(folder or "/", detail=True)
    return [info | {"name": f"{folder}/{info['name'].rpartition('/')[2]}"} for info in found]


def _object_info(place: str, info: dict[str, Any]) -> ObjectInfo:
    changed = info.get("modificationTime", info.get("mtime"))
    return ObjectInfo(f"{place}{info['name']}", info["size"], f"{info['size']:x}-{changed}")


def _patiently(uri: str, ask: Callable[[], Answer]) -> Answer:
    """Ask until there is an answer, or the tries are used up."""
    for failures in range(1, patience.TRIES + 1):
        try:
            return ask()
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise StorageError(
                f"{uri}: the cluster refuses ({error}): check the file's permissions, and the user"
                " in the uri or HADOOP_USER_NAME"
            ) from error
        except _BREAKS as error:
            cause = error
        except ValueError as error:  # Hadoop's IllegalArgumentException, by way of fsspec
            raise StorageError(
                f"{uri}: the cluster cannot make sense of that ({error}): correct the uri (Hadoop"
                " allows no ':' in names)"
            ) from error
        if failures < patience.TRIES:
            time.sleep(patience.pause_s(failures))
    raise StorageError(
        f"{uri}: the cluster did not answer as it should, {patience.TRIES} times (last: {cause}):"
        " check host and port, and that the name node is up and active"
    ) from cause


def _place_and_path(uri: str) -> tuple[str, str]:
    """Split a uri into the cluster's part and the path, which is kept to the letter."""
    host, path = authority_and_path(uri)
    return f"{scheme_of(uri)}://{host}", path


@functools.cache
def _system(place: str) -> Any:
    """Connect to a cluster; once in a process."""
    parts = urlsplit(place)
    options: dict[str, str] = {}
    if parts.scheme == "webhdfs" and not parts.username and "HADOOP_USER_NAME" in os.environ:
        options["user"] = os.environ["HADOOP_USER_NAME"]
    try:
        # By name, because a stage that reads no HDFS does without the package.
        system, _ = importlib.import_module("fsspec").core.url_to_fs(f"{place}/", **options)
    except ImportError as error:
        raise StorageError(
            f"{place}: reading there needs packages that are missing ({error}):"
            ' pip install "plsc[hdfs]"'
        ) from error
    except OSError as error:
        raise StorageError(
            f"{place}: cannot connect ({error}): hdfs:// needs Hadoop's libhdfs and Java (set"
            " JAVA_HOME, HADOOP_HOME and CLASSPATH); webhdfs:// needs neither"
        ) from error
    if parts.scheme == "webhdfs":
        session = system.session
        session.request = functools.partial(session.request, timeout=patience.timeout_s())
        session.hooks["response"].append(_refuse_errors_as_content)
    return system


os.register_at_fork(after_in_child=_system.cache_clear)


def _refuse_errors_as_content(answer: Any, **_: object) -> None:
    if answer.status_code >= 400 and "op=OPEN" in answer.url:
        raise OSError(f"{answer.url} answered {answer.status_code}: {answer.text[:200]}")
