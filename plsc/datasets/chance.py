"""Randomness that depends on names alone: the same on every machine, in any order of work."""

import hashlib

import numpy as np

__all__ = ["generator", "rank"]


def rank(*names: object) -> int:
    """Return 64 bits that are a fixed function of ``names``: sort by them to shuffle.

    (``hash()`` would not do: it changes from process to process.)
    """
    digest = hashlib.sha256("\0".join(str(name) for name in names).encode()).digest()
    return int.from_bytes(digest[:8], "big")


def generator(*names: object) -> np.random.Generator:
    """Return a random generator whose stream is a fixed function of ``names``."""
    return np.random.Generator(np.random.PCG64(rank(*names)))
