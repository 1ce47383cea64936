"""Files of a tar stream, one after the other, so that a cut or damaged tar cannot end early."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Self, cast

from plsc.errors import RecordError
from plsc.preprocess.inputs.compression import Stream

__all__ = ["TarFiles"]

_HEADER_LIMIT_BYTES = 1 << 20
"""For all headers before a file that are not the file's own, and for all global ones of a tar:
``tarfile`` keeps these to its end."""
_EXTENDED = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
"""Members whose content ``tarfile`` reads at once, because it is a header."""


class TarFiles:
    """The files of a tar.

    ``tarfile`` takes a damaged header, or the end of the file, for the end of the archive; here
    only the block of zeros is the end, and anything else an error.
    """

    def __init__(self, uri: str, stream: Stream) -> None:
        """Take an open tar; ``uri`` names it in errors."""
        self._uri = uri
        self._stream = stream

    def __iter__(self) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
        """Yield every file with its content, for ``read`` before the next is asked for.

        Raises:
            RecordError: If the tar is cut off or damaged.
            StorageError: If reading fails on the way.
        """
        with self._explained():
            source = cast("IO[bytes]", self._stream)
            tar = _Tar.open(fileobj=source, mode="r|", tarinfo=_Header)
        while (member := self._next(tar)) is not None:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member, content
        while self._stream.read():  # so that what follows the last file is checked as well
            pass

    def read(self, content: IO[bytes], size: int = -1) -> bytes:
        """Return at most ``size`` bytes of the content of the file yielded last.

        Raises:
            RecordError: If the tar is cut off.
            StorageError: If reading fails on the way.
        """
        with self._explained():
            return content.read(size)

    def _next(self, tar: "_Tar") -> tarfile.TarInfo | None:
        with self._explained():
            tar.before_file_bytes = 0
            tar.members.clear()  # type: ignore[attr-defined]  # they would all be kept
            return tar.next()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (tarfile.TarError, ValueError, LookupError, RecursionError) as error:
            raise RecordError(
                f"{self._uri}: expected the headers and files of a tar to its end, found after"
                f" {self._stream.num_read} bytes: {error}: upload it again"
            ) from error


class _Tar(tarfile.TarFile):
    """A tar that counts what its headers hold."""

    before_file_bytes = 0
    """Headers since the last file."""
    global_bytes = 0
    """Headers for all files that follow."""


class _Header(tarfile.TarInfo):
    """A header that is good, or raises an error that ``tarfile`` does not hide."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile, /) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the block of zeros
            raise
        except tarfile.HeaderError as error:
            raise ValueError(str(error)) from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _EXTENDED and member.size > _HEADER_LIMIT_BYTES):
            raise ValueError(f"a header of {member.size} bytes")
        return member

    def _proc_member(self, tar: _Tar) -> tarfile.TarInfo:  # tarfile's hook for subclasses
        if self.type in _EXTENDED:
            tar.before_file_bytes += self.size
        if self.type == tarfile.XGLTYPE:
            tar.global_bytes += self.size
        if max(tar.before_file_bytes, tar.global_bytes) > _HEADER_LIMIT_BYTES:
            raise ValueError(f"headers of more than {_HEADER_LIMIT_BYTES} bytes together")
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member
