"""The initial class centers: normal, of expected length 1, the same for any number of ranks."""

import math

import torch

__all__ = ["draw_class_centers"]

_BLOCK = 4096
_PART = 512


def draw_class_centers(weight_LD: torch.Tensor, classes: range, seed: int) -> None:
    """Fill ``weight_LD`` with the centers of ``classes``.

    They are drawn per block of 4096 class ids, on the CPU, so that they depend on the seed and the
    class id only; in small parts, so that drawing takes no memory to speak of.
    """
    size = weight_LD.shape[1]
    drawn = torch.empty(_PART, size)
    for block in range(classes.start // _BLOCK, -(-classes.stop // _BLOCK)):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + block) % 2**63)
        for part in range(block * _BLOCK, (block + 1) * _BLOCK, _PART):
            drawn.normal_(0, 1 / math.sqrt(size), generator=generator)
            first, last = max(classes.start, part), min(classes.stop, part + _PART)
            if first < last:
                rows = weight_LD[first - classes.start : last - classes.start]
                rows.copy_(drawn[first - part : last - part])
