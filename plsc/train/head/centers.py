"""The initial class centers: normal, of expected length 1, the same for any number of ranks."""

import math

import torch

__all__ = ["draw_class_centers"]

_BLOCK = 4096


def draw_class_centers(weight_LD: torch.Tensor, classes: range, seed: int) -> None:
    """Fill ``weight_LD`` with the centers of ``classes``.

    They are drawn per block of 4096 class ids, on the CPU, so that they depend on the seed and the
    class id only, and no second matrix is ever there.
    """
    size = weight_LD.shape[1]
    for block in range(classes.start // _BLOCK, -(-classes.stop // _BLOCK)):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + block) % 2**63)
        drawn = torch.randn(_BLOCK, size, generator=generator) / math.sqrt(size)
        first = max(classes.start, block * _BLOCK)
        last = min(classes.stop, (block + 1) * _BLOCK)
        rows = drawn[first - block * _BLOCK : last - block * _BLOCK]
        weight_LD[first - classes.start : last - classes.start].copy_(rows)
