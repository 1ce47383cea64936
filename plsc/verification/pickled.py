"""Reads pickles of byte strings, numbers, lists and uint8 arrays; none makes it run anything else.

numpy's own classes are never given to the pickle: stand-ins take what it says about an array and
check it, so that neither an object array nor a forged size reaches numpy's C code.
"""

import io
import pickle
import pickletools
from typing import Any, cast

__all__ = ["PickleRefusedError", "PickledArray", "load"]


_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}


class PickleRefusedError(ValueError):
    """The bytes are no pickle, a damaged one, or one that asks for something not allowed."""


def load(content: bytes) -> object:
    """Return the tuples, lists, bytes, numbers and ``PickledArray`` that a pickle describes.

    Strings of Python 2 come as bytes.

    Raises:
        PickleRefusedError: If it is cut off or damaged, or asks for anything else.
    """
    try:
        _check_opcodes(content)
        return _Unpickler(content).load()
    except PickleRefusedError:
        raise
    except Exception as error:
        raise PickleRefusedError(
            f"it is cut off or damaged ({type(error).__name__}: {error})"
        ) from error


class PickledArray:
    """Stands in for ``numpy.ndarray`` of one dimension and one byte per element (uint8 or bool)."""

    content: bytes = b""

    def __setstate__(self, state: object) -> None:
        """Take ``(version, shape, dtype, is_fortran, content)``, the state of a numpy array."""
        _, shape, dtype, _, content = cast("tuple[Any, ...]", state)
        self._fill(content, dtype, shape)

    @classmethod
    def from_buffer(
        cls, content: object, dtype: object, shape: object, _order: object
    ) -> "PickledArray":
        """Do what ``numpy._core.numeric._frombuffer`` does for pickles of protocol 5."""
        array = cls()
        array._fill(content, dtype, shape)
        return array

    def _fill(self, content: object, dtype: object, shape: object) -> None:
        if (
            not isinstance(dtype, _DType)
            or not isinstance(content, bytes | bytearray)
            or shape != (len(content),)
        ):
            raise PickleRefusedError("it holds an array that is not a row of bytes")
        self.content = bytes(content)


class _DType:
    """Stands in for ``numpy.dtype``."""

    def __init__(self, name: object, *_: object) -> None:
        if name not in ("u1", "b1", "|u1", "|b1", b"u1", b"b1", b"|u1", b"|b1"):
            raise PickleRefusedError(
                f"it holds an array of dtype {name!r}, not of bytes or truth values"
            )

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment: one byte has none."""


class _Unpickler(pickle.Unpickler):
    """Gives a pickle only what byte strings and arrays of bytes are made with."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._bytes_left = len(content)

    def find_class(self, module: str, name: str) -> object:
        package = module.replace("numpy._core", "numpy.core")
        allowed = {
            ("_codecs", "encode"): self._encode,
            ("numpy", "ndarray"): PickledArray,
            ("numpy", "dtype"): _DType,
            ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
            ("numpy.core.multiarray", "scalar"): _scalar,
            ("numpy.core.numeric", "_frombuffer"): PickledArray.from_buffer,
        }
        if (package, name) not in allowed:
            raise PickleRefusedError(f"it asks for {module}.{name}, which is not allowed")
        return allowed[package, name]

    def _encode(self, text: str | bytes, encoding: str | bytes) -> bytes:
        """Do what ``_codecs.encode`` does for byte strings in protocols 0 to 2.

        In sum it returns no more bytes than the file has.
        """
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise PickleRefusedError(f"it asks for a conversion by {encoding!r}, not 'latin1'")
        self._bytes_left -= len(text)
        if self._bytes_left < 0:
            raise PickleRefusedError("it unpacks to more bytes than it has")
        return text.encode("latin1")


def _reconstruct(_subtype: object, _shape: object, _dtype: object) -> PickledArray:
    """Return an empty array, whatever size the pickle asks for; its state follows."""
    return PickledArray()


def _scalar(dtype: object, content: object) -> bool:
    if not isinstance(dtype, _DType) or not isinstance(content, bytes) or len(content) != 1:
        raise PickleRefusedError("it holds a number that is not one truth value")
    return content != b"\0"


def _check_opcodes(content: bytes) -> None:
    """Refuse memo places beyond the file's length: C code would allocate a table up to them."""
    stream = io.BytesIO(content)
    name = ""
    while name != "STOP":
        opcode = _OPCODES[stream.read(1).decode("latin1")]
        name = opcode.name
        if name == "STRING":  # pickletools takes those of Python 2 for ASCII
            stream.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(stream)
            if name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > len(content):
                raise PickleRefusedError(f"it is damaged (memo place {argument})")
