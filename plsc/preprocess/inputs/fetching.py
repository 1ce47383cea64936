"""Image files, fetched side by side: one that is missing is a bad row, a failing store an error."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from plsc import storage
from plsc.artifacts.records import LINE_LIMIT_BYTES, BadRowError, Reason
from plsc.errors import StorageError

__all__ = ["IMAGE_SUFFIXES", "fetch", "is_hidden", "is_image", "side_by_side"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""How names of image files end, in lower or upper case."""

_THREADS = 8
_AHEAD = 32
"""Files that may wait in memory."""
_AHEAD_FILE_BYTES = 2 << 20
"""The longest of them (usually they have some KB); one that is longer is read at its turn."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class _LargeFileError(Exception):
    """A file that must not wait in memory beside others."""


def is_image(name: str) -> bool:
    """Return whether ``name`` ends as the name of an image file."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(name: str) -> bool:
    """Return whether a file or one of its folders is hidden, or is a folder's own entry."""
    return any(part.startswith(".") or not part for part in name.split("/"))


def fetch(uri: str, limit_bytes: int) -> bytes:
    """Return the content of an image file.

    Args:
        uri: Where it lies.
        limit_bytes: What ``side_by_side`` gave.

    Raises:
        _LargeFileError: If it is longer than ``limit_bytes``: for ``side_by_side``.
        BadRowError: If there is no such file, or if it is longer than ``LINE_LIMIT_BYTES``.
        StorageError: If the store fails: that says nothing about the row.
    """
    try:
        with storage.open_reader(uri) as reader:
            content = reader.read(min(limit_bytes, LINE_LIMIT_BYTES) + 1)
    except StorageError as error:
        if storage.exists(uri):
            raise
        raise BadRowError(Reason.NO_FILE, f"there is no such file: {uri}") from error
    if len(content) > LINE_LIMIT_BYTES:
        raise BadRowError(Reason.TOO_LONG, f"more than the {LINE_LIMIT_BYTES} bytes allowed")
    if len(content) > limit_bytes:
        raise _LargeFileError
    return content


def side_by_side(work: Callable[[_T, int], _R], inputs: Iterable[_T]) -> Iterator[_R]:
    """Yield ``work`` of every input, in order, a few of them at work or waiting at any time.

    Args:
        work: Given an input and the ``limit_bytes`` for ``fetch``. If the file is longer, it is
            called again for this input alone, when all before are done with.
        inputs: What to work on.
    """
    waiting: deque[tuple[_T, Future[_R]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for one in inputs:
                waiting.append((one, pool.submit(work, one, _AHEAD_FILE_BYTES)))
                if len(waiting) >= _AHEAD:
                    yield _result(work, *waiting.popleft())
            while waiting:
                yield _result(work, *waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()


def _result(work: Callable[[_T, int], _R], one: _T, future: "Future[_R]") -> _R:
    with suppress(_LargeFileError):
        return future.result()
    return work(one, LINE_LIMIT_BYTES)
