"""Which rank owns which classes."""

__all__ = ["partition_classes"]


def partition_classes(num_classes: int, world_size: int, rank: int) -> range:
    """Return the class ids whose centers live on ``rank``.

    Classes are dealt in contiguous blocks; the first ``num_classes % world_size`` ranks own one
    more, so block sizes differ by at most one, and every rank can compute every block without
    communication. With fewer classes than ranks the last ranks own none.

    Args:
        num_classes: Total classes, C >= 0.
        world_size: Number of ranks that share the head.
        rank: This rank, 0 <= rank < world_size.
    """
    size, larger = divmod(num_classes, world_size)
    start = rank * size + min(rank, larger)
    return range(start, start + size + (rank < larger))
