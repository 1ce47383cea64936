"""Permutations and random numbers that are functions of a key: nothing to store, nothing to share.

All of it is 64-bit integer arithmetic, the same on every machine and with every version of NumPy.
"""

import functools
import math

import numpy as np
import numpy.typing as npt

__all__ = ["permute", "uniforms"]

_ROUNDS = 6
_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_U64 = np.uint64
_Words = npt.NDArray[np.uint64]


def permute(
    positions: npt.NDArray[np.int64], size: int, key: tuple[int, ...]
) -> npt.NDArray[np.int64]:
    """Return what stands at ``positions`` of a random order of 0 .. size - 1.

    A Feistel network over pairs of numbers, made for any size, with cycle walking for the few
    pairs beyond it (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002): O(1) memory
    whatever the size.

    Args:
        positions: int64 [n], each in 0 .. size - 1.
        size: How many there are, 1 .. 2^62.
        key: Any integers; each key gives another order.

    Returns:
        int64 [n], each in 0 .. size - 1.
    """
    height = math.isqrt(size - 1) + 1
    width = -(-size // height)  # height x width pairs, fewer than size + height
    keys = _round_keys(key)
    values = _encipher(positions.astype(np.uint64), height, width, keys)
    outside = values >= _U64(size)
    while outside.any():
        values[outside] = _encipher(values[outside], height, width, keys)
        outside = values >= _U64(size)
    return values.astype(np.int64)


def uniforms(
    places: npt.NDArray[np.int64], count: int, key: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Return ``count`` random numbers in [0, 1) for each of ``places``.

    Args:
        places: int64 [n], not negative.
        count: Numbers for each; one more does not change the others.
        key: Any integers.

    Returns:
        float64 [n, count]; row i depends on places[i] and the key alone.
    """
    rows = _mix(places.astype(np.uint64) + _U64(_fold(key)))
    return (_mix(rows[:, None] + _columns(count)) >> _U64(11)).astype(np.float64) * 2.0**-53


@functools.lru_cache(maxsize=16)
def _round_keys(key: tuple[int, ...]) -> tuple[np.uint64, ...]:
    return tuple(_U64(_fold((*key, number))) for number in range(_ROUNDS))


@functools.lru_cache(maxsize=16)
def _columns(count: int) -> _Words:
    return np.array([_fold((number,)) for number in range(count)], np.uint64)


def _encipher(values: _Words, height: int, width: int, keys: tuple[np.uint64, ...]) -> _Words:
    rows, columns = _U64(height), _U64(width)
    row, column = np.divmod(values, columns)
    for odd, even in zip(keys[::2], keys[1::2], strict=True):
        row = (row + (_mix(column + odd) >> _U64(2))) % rows  # 62 bits: the sum cannot overflow
        column = (column + (_mix(row + even) >> _U64(2))) % columns
    return row * columns + column


def _mix(values: _Words) -> _Words:
    """Return splitmix64's output function of each value (Steele, Lea and Flood, 2014)."""
    mixed = (values ^ (values >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> _U64(27))) * _U64(0x94D049BB133111EB)
    return mixed ^ (mixed >> _U64(31))


def _fold(key: tuple[int, ...]) -> int:
    """Return 64 bits that depend on all of ``key`` and on its order."""
    folded = 0
    for part in key:
        folded = (folded ^ (part & _MASK)) + _GOLDEN & _MASK
        folded = (folded ^ (folded >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        folded = (folded ^ (folded >> 27)) * 0x94D049BB133111EB & _MASK
        folded ^= folded >> 31
    return folded
