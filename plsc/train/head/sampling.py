"""Which classes take part in a step: those of the batch, and a random sample of the others.

Partial FC (An et al., "Partial FC: Training 10 Million Identities on a Single Machine", arXiv
2010.05222) keeps every positive class and fills up with random negatives. Here the negatives are a
stratified sample: the class axis is cut into strata of 1 / rate classes, and one class of each is
drawn from a hash of (seed, step, stratum). That takes no memory and no time beyond the sample
itself, and which classes are drawn does not depend on the number of ranks.
"""

from dataclasses import dataclass

import torch

__all__ = ["SampledRows", "sample_rows"]

_FRACTION_BITS = 20


@dataclass(frozen=True)
class SampledRows:
    """The rows of a rank that take part in a step.

    Their number depends on no data, so that nobody has to wait for a GPU to count them.
    """

    rows_N: torch.Tensor
    """int64 [N], rows of this rank, each at most once; places without a class hold L, the number of
    the rank's rows."""
    ordered_N: torch.Tensor
    """int64 [N], the same in rising order before doubles were taken out: for looking up."""

    def places(self, rows_G: torch.Tensor) -> torch.Tensor:
        """Return where among ``rows_N`` each of ``rows_G`` (all of them in it) stands, int64."""
        return torch.searchsorted(self.ordered_N, rows_G)


def sample_rows(
    classes: range, rate: float, labels_G: torch.Tensor, *, seed: int, step: int
) -> SampledRows:
    """Return the rows of a rank that take part in ``step``.

    Args:
        classes: The class ids of the rank, L of them, at least one.
        rate: Fraction of the classes to draw, 0 < rate <= 1.
        labels_G: int64 [G], class ids of the batch on all ranks; -1 is none.
        seed: Of the run.
        step: Of the run.
    """
    size = len(classes)
    width = max(1 << _FRACTION_BITS, round((1 << _FRACTION_BITS) / rate))
    first = (classes.start << _FRACTION_BITS) // width
    last = ((classes.stop << _FRACTION_BITS) - 1) // width
    strata = torch.arange(first, last + 1, device=labels_G.device)
    lower = (strata * width) >> _FRACTION_BITS
    upper = ((strata + 1) * width) >> _FRACTION_BITS
    drawn = lower + (_hash(strata, seed, step) % (upper - lower)) - classes.start
    own = labels_G - classes.start
    candidates = torch.cat([drawn, own])
    is_own = (candidates >= 0) & (candidates < size)
    is_own &= torch.cat([torch.ones_like(drawn, dtype=torch.bool), labels_G >= 0])
    ordered = torch.where(is_own, candidates, size).sort().values
    is_double = torch.zeros_like(ordered, dtype=torch.bool)
    is_double[1:] = ordered[1:] == ordered[:-1]
    return SampledRows(torch.where(is_double, size, ordered), ordered)


def _hash(values: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """Return 62 random-looking bits of each value: splitmix64 (Steele, Lea and Flood, 2014)."""
    mixed = values + ((seed * 0x9E3779B9 + step) * 0x85EBCA6B) % 2**61
    for _ in range(2):
        mixed = (mixed ^ ((mixed >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
        mixed = (mixed ^ ((mixed >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
        mixed ^= (mixed >> 31) & 0x1FFFFFFFF
    return mixed & 0x3FFFFFFFFFFFFFFF
