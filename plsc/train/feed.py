"""Batches on their way to the device: nothing to do on a CPU, one ahead on a GPU."""

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import NamedTuple

import torch

from plsc.train.loader import Batch, Loader

__all__ = ["DeviceBatch", "feed"]


class DeviceBatch(NamedTuple):
    """One rank's part of the global batch of a step, on its device."""

    step: int
    images_BSS3: torch.Tensor
    """uint8 [B, S, S, 3], RGB; gone when the next batch is asked for."""
    labels_B: torch.Tensor
    """int64 [B], -1 for images that do not count; gone likewise."""
    num_replaced: int
    """Images that were damaged, in whose place others stand."""


def feed(loader: Loader, steps: range, device: torch.device) -> Generator[DeviceBatch, None, None]:
    """Yield the batch of each of ``steps`` on ``device``.

    Raises:
        StorageError, ShardError, TrainError: As ``Loader.batches``.
    """
    stop = threading.Event()
    with closing(loader.batches(steps, stop)) as batches:
        if device.type == "cuda":
            yield from _copied_ahead(batches, stop, steps, device)
            return
        for step, images, labels, num_replaced in batches:
            yield DeviceBatch(
                step, torch.from_numpy(images), torch.from_numpy(labels), num_replaced
            )


def _copied_ahead(
    batches: Iterator[Batch], stop: threading.Event, steps: range, device: torch.device
) -> Iterator[DeviceBatch]:
    """Copy the next batch through pinned memory, in a thread and on a stream of its own."""
    copier = _Copier(device)
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as thread, _set_behind(stop):
        following = thread.submit(copier.copy_next, batches) if steps else None
        for step in steps:
            assert following is not None
            batch, copied = following.result()
            following = thread.submit(copier.copy_next, batches) if step + 1 < steps.stop else None
            computing = torch.cuda.current_stream(device)
            computing.wait_event(copied)
            # The allocator must not give this memory away before the step has read it.
            batch.images_BSS3.record_stream(computing)
            batch.labels_B.record_stream(computing)
            yield batch


@contextmanager
def _set_behind(stop: threading.Event) -> Iterator[None]:
    """Set ``stop`` behind the block: a thread that waits for shards can be joined then."""
    try:
        yield
    finally:
        stop.set()


class _Copier:
    """Two pinned buffers, used in turn, and the stream that empties them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pinned: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._copied: list[torch.cuda.Event] = []
        self._count = 0

    def copy_next(self, batches: Iterator[Batch]) -> tuple[DeviceBatch, torch.cuda.Event]:
        """Start to copy the next batch and return it with the event of its arrival."""
        step, images, labels, num_replaced = next(batches)
        turn = self._count % 2
        self._count += 1
        torch.cuda.set_device(self._device)  # a thread begins on the first
        if turn == len(self._pinned):
            pinned = (torch.from_numpy(images), torch.from_numpy(labels))
            self._pinned.append((pinned[0].pin_memory(), pinned[1].pin_memory()))
            self._copied.append(torch.cuda.Event())
        else:
            self._copied[turn].synchronize()  # the copy before the last may still read the buffer
            self._pinned[turn][0].copy_(torch.from_numpy(images))
            self._pinned[turn][1].copy_(torch.from_numpy(labels))
        with torch.cuda.stream(self._stream):
            on_device = [
                tensor.to(self._device, non_blocking=True) for tensor in self._pinned[turn]
            ]
            self._copied[turn].record(self._stream)
        batch = DeviceBatch(step, on_device[0], on_device[1], num_replaced)
        return batch, self._copied[turn]
