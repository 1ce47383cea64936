"""Equal parts: a number of samples cut into shards that differ in size by at most one."""

from itertools import pairwise

__all__ = ["equal_ranges"]


def equal_ranges(num_samples: int, *, largest: int) -> list[range]:
    """Return as few ranges as cover 0..num_samples - 1 with at most ``largest`` rows each.

    The first ones have one row more than the last ones, if they cannot all have as many.
    """
    count = -(-num_samples // largest)
    cuts = [-(-num_samples * n // count) for n in range(count + 1)]
    return [range(start, stop) for start, stop in pairwise(cuts)]
