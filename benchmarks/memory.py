"""Peak memory of what a process does from now on, as the operating system (or CUDA) counts it."""

import ctypes
import gc
import os
import re
import threading
import time
from pathlib import Path

import torch

__all__ = ["OVER_BUDGET", "PeakGrowth", "available_bytes"]

OVER_BUDGET = 77
"""Exit code of a process that grew beyond its budget."""
_WATCH_EVERY_S = 0.01


class PeakGrowth:
    """How far memory has grown, at its highest, over the moment this was made.

    CPU: the resident set's high-water mark, which writing 5 to /proc/self/clear_refs resets
    (proc_pid_clear_refs(5)), once what is free has been given back. CUDA: the most bytes that
    tensors held at once.
    """

    def __init__(self, device: torch.device) -> None:
        gc.collect()
        self._device = device
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        else:
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _status_bytes("VmRSS")

    def measure(self) -> int:
        """Return the growth in bytes."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return _status_bytes("VmHWM") - self._before

    def limit(self, budget_bytes: int) -> None:
        """From now on, end this process with ``OVER_BUDGET`` as soon as it has grown beyond."""

        def watch() -> None:
            while self.measure() <= budget_bytes:
                time.sleep(_WATCH_EVERY_S)
            os._exit(OVER_BUDGET)

        threading.Thread(target=watch, daemon=True).start()


def available_bytes(device: torch.device) -> int:
    """Return the bytes that can still be had on ``device``."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert found
    return int(found[1]) * 1024


def _status_bytes(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, key
    return int(found[1]) * 1024
