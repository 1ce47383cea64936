"""The memory that the tasks of a process use one after the other, set aside once.

Fresh memory for every run and every shard would be cleared by the kernel page by page: with five
copies of each image on their way, that took a quarter of the time. And what a task may hold is
then plain: no more than this.
"""

import mmap

__all__ = ["arena", "release"]

_SPARE_BYTES = 1 << 20  # for the little that a shard has besides its samples
_memory: dict[str, mmap.mmap] = {}


def arena(size_bytes: int) -> memoryview:
    """Return ``size_bytes`` and a little more, the same memory for every task of this process.

    A page counts when it is first used.
    """
    size_bytes += _SPARE_BYTES
    if "it" not in _memory or len(_memory["it"]) != size_bytes:
        release()
        _memory["it"] = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            _memory["it"].madvise(mmap.MADV_HUGEPAGE)
    return memoryview(_memory["it"])


def release() -> None:
    """Give the memory back, as soon as nobody looks at it."""
    _memory.clear()
