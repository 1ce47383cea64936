"""The search for the largest class count."""

import json

import pytest

from benchmarks.max_classes import find_largest, main
from benchmarks.measuring import Peak

MIB = 2**20


def needing(overhead: int, per_class: float, budget: int, seen: list[int]):
    """Return an attempt whose memory is a straight line; beyond the budget nothing is known."""

    def attempt(classes: int) -> Peak | None:
        seen.append(classes)
        growth = overhead + int(classes * per_class)
        return Peak(growth, classes, 0.5, []) if growth <= budget else None

    return attempt


@pytest.mark.parametrize("overhead", [0, 30 * MIB])
@pytest.mark.parametrize("per_class", [1552, 4096, 14400.5])
def test_the_largest_fitting_count_is_found_in_a_few_tries(overhead, per_class):
    seen: list[int] = []
    attempt = needing(overhead, per_class, 256 * MIB, seen)
    found = find_largest(attempt, 256 * MIB, first=2000, tolerance=0.01)
    answer = (256 * MIB - overhead) / per_class
    assert answer * 0.985 <= found.max_classes <= answer
    assert found.tries == len(seen) <= 8
    assert found.step_seconds == 0.5


def test_memory_that_bends_is_bisected():
    def attempt(classes: int) -> Peak | None:
        growth = classes * 1000 + (classes // 100) ** 3
        return Peak(growth, classes, 0.1, []) if growth <= 64 * MIB else None

    found = find_largest(attempt, 64 * MIB, first=1000, tolerance=0.01)
    assert attempt(found.max_classes) is not None
    assert attempt(int(found.max_classes * 1.02)) is None


def test_a_budget_too_small_for_the_first_try_is_an_error():
    with pytest.raises(ValueError, match="100 classes already need more than 10 bytes"):
        find_largest(lambda _: None, 10, first=100, tolerance=0.01)


def test_a_budget_that_the_machine_does_not_have_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--budget-gib", "1000000"])
    assert "are to be had" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_runs_into_the_budget_and_stays_below_it(capsys):
    given = "--budget-gib 0.06 --batch-size 8 --embedding-size 64 --chunk-size 512 --tolerance 0.2"
    assert main([*given.split(), "--variants", "floor_4gemm"]) == 0
    printed = capsys.readouterr()
    line = json.loads(printed.out)
    assert line["variant"] == "floor_4gemm"
    assert line["budget_bytes"] == int(0.06 * 2**30)
    assert line["max_classes"] * line["bytes_per_class"] <= line["budget_bytes"] * 1.01
    assert line["bytes_per_class"] >= 512
    assert "need too much" in printed.err
