"""Streams over objects far away, which go on by themselves after a break.

A connection that is reset, cut or silent for too long costs one more ranged request from the
place reached, never a byte: the length of the whole is known from the first answer, so a short
body is not taken for the end, and the object's tag is asked for again, so what was replaced on
the way is an error and never a mix of two contents.
"""

import io
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from plsc.errors import StorageError
from plsc.storage import patience
from plsc.storage.advice import explained

__all__ = ["Body", "Fetch", "Part", "SeekableStream", "Stream"]

_PIECE_BYTES = 1 << 18  # what a break can cost: a piece that was not complete is asked for again
_PIECE_AFTER_A_BREAK_BYTES = 1 << 14
_FIRST_WINDOW_BYTES = 1 << 20
_LARGEST_WINDOW_BYTES = 1 << 26


class Body(Protocol):
    """The bytes of one answer."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill ``buffer`` or less of it; 0 at the end."""

    def close(self) -> None:
        """Give the connection back, or drop it."""


class Part:
    """One answer of a store: bytes ``start`` to ``stop`` of an object of ``size_bytes``."""

    def __init__(self, body: Body, *, start: int, stop: int, size_bytes: int, tag: str) -> None:
        self.body = body
        self.start = start
        self.stop = stop
        self.size_bytes = size_bytes
        self.tag = tag


Fetch = Callable[[int, int | None, str | None], Part]
"""Ask for bytes from start to stop (None: the end) of the object with this tag (None: any)."""


class Stream(io.RawIOBase):
    """Bytes ``start`` to ``stop`` of an object; give it to ``io.BufferedReader`` for lines.

    Args:
        uri: The object's name, for errors.
        fetch: Makes one ranged request.
        breaks: The exceptions that mean a broken connection.
        start: The first byte.
        stop: One past the last byte; None is the end of the object.
        tag: The tag that the object must have; None takes that of the first answer.

    Raises:
        Exception: Whatever ``fetch`` raises, when the first request fails.
    """

    def __init__(
        self,
        uri: str,
        fetch: Fetch,
        breaks: tuple[type[Exception], ...],
        *,
        start: int = 0,
        stop: int | None = None,
        tag: str | None = None,
    ) -> None:
        self._uri = uri
        self._fetch = fetch
        self._breaks = breaks
        first = fetch(start, stop, tag)
        self._body: Body | None = first.body
        self._position, self._stop = first.start, first.stop
        self.tag, self.size_bytes = first.tag, first.size_bytes

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer``, except at the end.

        Raises:
            StorageError: If the stream broke too often, or the object is another one by now.
        """
        view = memoryview(buffer).cast("B")[: self._stop - self._position]
        filled = 0
        with explained(self._uri):
            while filled < len(view):
                filled += self._read(view[filled : filled + _PIECE_BYTES])
        return filled

    def readall(self) -> bytes:
        """Return everything to the end."""
        reader = io.BufferedReader(self, _PIECE_BYTES)  # it fills bytes in place: no copy
        content = reader.read(self._stop - self._position)
        reader.detach()
        return content

    def close(self) -> None:
        """Give the connection back, or drop it."""
        self._drop()
        super().close()

    def _read(self, view: memoryview) -> int:
        """Read at least one byte, over however many connections it takes."""
        failures = 0
        while True:
            if self._body is None:
                self._body = self._fetch(self._position, self._stop, self.tag).body
            try:
                count = self._body.readinto(view) or 0
                cause: Exception = EOFError("the body ended too soon")
            except self._breaks as error:
                count, cause = 0, error
            if count:
                self._position += count
                return count
            self._drop()
            failures += 1
            if failures >= patience.TRIES:
                raise StorageError(
                    f"{self._uri}: the connection broke {failures} times in a row at byte"
                    f" {self._position} of {self.size_bytes} (last: {cause}): check the network and"
                    " the store, then run this again"
                ) from cause
            time.sleep(patience.pause_s(failures))
            view = view[:_PIECE_AFTER_A_BREAK_BYTES]

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            with suppress(*self._breaks):
                body.close()


class SeekableStream(io.RawIOBase):
    """An object that is read here and there, each time by a ranged request.

    Reading on from where the last read ended makes the requests longer, each twice the one before
    (1 to 64 MiB), so whoever reads in order soon has a stream, and whoever jumps wastes little.

    Args:
        size_bytes: Size of the object.
        span: Opens bytes start to stop of it.
    """

    def __init__(self, size_bytes: int, span: Callable[[int, int], io.RawIOBase]) -> None:
        self._size_bytes = size_bytes
        self._span = span
        self._position = 0
        self._stream: io.RawIOBase | None = None
        self._begin = self._end = 0  # the stream stands at begin; its last byte is before end
        self._window_bytes = _FIRST_WINDOW_BYTES

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to ``offset`` bytes from the beginning, the position or the end.

        Raises:
            ValueError: If that is before the beginning.
        """
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size_bytes}
        position = origin[whence] + offset
        if position < 0:
            raise ValueError(f"byte {position} is before the beginning")
        self._position = position
        return position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer``, or less of it (more of it with the next call); 0 at the end.

        Raises:
            StorageError: If the store fails, or the object is another one by now.
        """
        view = memoryview(buffer).cast("B")[: max(0, self._size_bytes - self._position)]
        if not view:
            return 0
        if self._stream is None or self._position != self._begin or self._begin == self._end:
            self._stream = self._open(len(view))
        count = self._stream.readinto(view[: self._end - self._begin]) or 0
        self._position += count
        self._begin += count
        return count

    def close(self) -> None:
        """Give the connection back, or drop it."""
        if self._stream is not None:
            self._stream.close()
        super().close()

    def _open(self, wanted_bytes: int) -> io.RawIOBase:
        goes_on = self._stream is not None and self._position == self._begin
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        doubled = min(2 * self._window_bytes, _LARGEST_WINDOW_BYTES)
        self._window_bytes = doubled if goes_on else _FIRST_WINDOW_BYTES
        self._begin = self._position
        self._end = min(self._begin + max(wanted_bytes, self._window_bytes), self._size_bytes)
        return self._span(self._begin, self._end)
