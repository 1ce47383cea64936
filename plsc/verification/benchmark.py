"""Verification sets: pairs of images and whether each shows one class, as ``<name>.bin`` files.

The format is that of InsightFace and PLSC: a pickle of ``(bins, issame_list)``. ``bins`` holds 2n
encoded images, pair ``i`` being images ``2 * i`` and ``2 * i + 1``; ``issame_list`` holds n truth
values. Files in the wild come from Python 2 and 3 and hold byte strings or uint8 arrays, and lists
of bool, of ``numpy.bool_``, or an array. A pickle can run code when it is read by Python's own
reader; ``plsc.verification.pickled`` reads these, and only these, without.
"""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plsc import storage
from plsc.errors import BenchmarkError
from plsc.verification.pickled import PickledArray, PickleRefusedError, load

__all__ = ["Benchmark", "benchmark_uri", "read_benchmark", "write_benchmark"]

_LIMIT_BYTES = 4 * 1024**3


@dataclass(frozen=True)
class Benchmark:
    """One verification set."""

    name: str
    images: list[bytes]
    """2n encoded images; pair ``i`` is images ``2 * i`` and ``2 * i + 1``."""
    is_same: npt.NDArray[np.bool_]
    """[n]: whether the two images of a pair show one class."""

    @property
    def num_pairs(self) -> int:
        """Number of pairs, n."""
        return len(self.is_same)


def benchmark_uri(data_uri: str, name: str) -> str:
    """Return where the benchmark ``name`` of the data at ``data_uri`` lies."""
    return storage.join(data_uri, f"{name}.bin")


def write_benchmark(data_uri: str, benchmark: Benchmark) -> None:
    """Write ``benchmark`` as ``<data_uri>/<name>.bin``, which InsightFace's tools read too.

    Raises:
        StorageError: If the store refuses.
    """
    content = pickle.dumps((benchmark.images, benchmark.is_same.tolist()), protocol=4)
    storage.write_bytes(benchmark_uri(data_uri, benchmark.name), content)


def read_benchmark(data_uri: str, name: str, *, limit_bytes: int = _LIMIT_BYTES) -> Benchmark:
    """Read ``<data_uri>/<name>.bin`` without running anything that it may hold.

    Args:
        data_uri: Folder of the data.
        name: Name of the benchmark.
        limit_bytes: Refuse a larger file.

    Raises:
        StorageError: If it is missing, refused or larger than ``limit_bytes``.
        BenchmarkError: If it is no pickle of images and truth values, is cut off, or asks for more.
    """
    uri = benchmark_uri(data_uri, name)
    content = storage.read_bytes(uri, limit_bytes=limit_bytes)
    try:
        images, is_same = _split(load(content))
    except PickleRefusedError as error:
        raise BenchmarkError(
            f"{uri}: expected a pickle of (2n encoded images, n truth values), but {error}:"
            " get the file again from a source that you trust"
        ) from error
    return Benchmark(name, images, is_same)


def _split(document: object) -> tuple[list[bytes], npt.NDArray[np.bool_]]:
    if not isinstance(document, tuple | list) or len(document) != 2:
        raise PickleRefusedError(f"it holds one {type(document).__name__}, not a pair")
    bins, truths = document
    if isinstance(truths, PickledArray):
        truths = list(truths.content)
    if not isinstance(bins, list | tuple) or not isinstance(truths, list | tuple):
        raise PickleRefusedError(
            f"its pair is ({type(bins).__name__}, {type(truths).__name__}), not two lists"
        )
    if len(bins) != 2 * len(truths) or not truths:
        raise PickleRefusedError(f"it holds {len(bins)} images for {len(truths)} pairs")
    return [_image(number, found) for number, found in enumerate(bins)], _truths(truths)


def _image(number: int, found: object) -> bytes:
    if isinstance(found, PickledArray):
        found = found.content
    if not isinstance(found, bytes | bytearray) or not found:
        raise PickleRefusedError(
            f"image {number} is {type(found).__name__} of no bytes, not an encoded image"
        )
    return bytes(found)


def _truths(found: Sequence[object]) -> npt.NDArray[np.bool_]:
    wrong = next((number for number, truth in enumerate(found) if truth not in (False, True)), None)
    if wrong is not None:
        raise PickleRefusedError(
            f"the truth value of pair {wrong} is {type(found[wrong]).__name__}, not true or false"
        )
    return np.array([bool(truth) for truth in found])
