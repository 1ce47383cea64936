"""Ranks that fail, hang or lose their parent; and what they are seen to need."""

import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.memory import OVER_BUDGET, PeakGrowth
from benchmarks.processes import RankFailedError, on_ranks
from plsc.train.process_group import Ranks

MIB = 2**20


def who(ranks: Ranks, offset: int) -> tuple[int, int, int]:
    total = ranks.gather(torch.tensor([ranks.rank + offset])).sum().item()
    return ranks.rank, int(total), torch.get_num_threads()


@pytest.mark.slow
def test_ranks_come_back_in_order_and_have_talked():
    assert on_ranks(2, 1, who, 10) == [(0, 21, 1), (1, 21, 1)]


def fail_on_rank_1(ranks: Ranks, how: str) -> None:
    if ranks.rank == 1 and how == "raise":
        raise ValueError("rank 1 had enough")
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message"), [("raise", "rank 1 had enough"), ("kill", "exit code -9")]
)
def test_a_rank_that_fails_ends_the_others_and_says_why(how, message):
    begin = time.monotonic()
    with pytest.raises(RankFailedError, match=message):
        on_ranks(2, 1, fail_on_rank_1, how)
    assert time.monotonic() - begin < 60
    assert not mp.active_children()


def sleep_long(ranks: Ranks, folder: str) -> None:
    Path(folder, "pid").write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.slow
def test_a_rank_dies_with_its_parent(tmp_path):
    code = (
        "from benchmarks.processes import on_ranks\n"
        "from tests.benchmarks.test_processes import sleep_long\n"
        f"on_ranks(1, 1, sleep_long, {str(tmp_path)!r})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        pid = Path(tmp_path, "pid")
        wait_until(lambda: pid.exists() and pid.read_text())
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not is_running(int(pid.read_text())))


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_peak_growth_sees_what_is_freed_again():
    peak = PeakGrowth(torch.device("cpu"))
    held = torch.ones(16 * MIB, dtype=torch.uint8)
    freed = torch.ones(64 * MIB, dtype=torch.uint8)
    del freed
    assert 79 * MIB <= peak.measure() <= 100 * MIB
    del held
    again = PeakGrowth(torch.device("cpu"))
    assert again.measure() <= 10 * MIB


def grow(ranks: Ranks, size: int, budget: int) -> int:
    PeakGrowth(ranks.device).limit(budget)
    held = torch.ones(size, dtype=torch.uint8)
    time.sleep(0.5)
    return len(held)


@pytest.mark.slow
def test_a_process_that_outgrows_its_budget_is_ended():
    assert on_ranks(1, 1, grow, 16 * MIB, 64 * MIB) == [16 * MIB]
    with pytest.raises(RankFailedError) as raised:
        on_ranks(1, 1, grow, 200 * MIB, 64 * MIB)
    assert raised.value.exitcode == OVER_BUDGET
