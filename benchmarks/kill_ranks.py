"""Kill -9 a rank of a training, again and again, and see that the model does not suffer from it.

    python -m benchmarks.kill_ranks [--experiment glyphs] [--kills 10] [--ranks 1,2,3] [--seed 0]

The experiment is trained twice: once uninterrupted on two ranks, and once in a run in which, at a
random moment in each of ``kills`` equal parts of its steps, a random rank is killed. Each time the
same run is resumed on the next number of ranks. JSON lines: one per kill (``seconds_to_notice``:
from the kill until torchrun and every rank were gone by themselves), then the comparison. Exit code
1 if the two did not see the same number of samples, or if the mean of their accuracies differs by
more than ``--noise-points``.

The noise: an accuracy of 97 % on the 3000 pairs of a glyphs benchmark has a standard error of
sqrt(0.97 * 0.03 / 3000) = 0.31 points, a difference of two such accuracies one of 0.44, and so has
that of two means over benchmarks as long as these fail together; the default, 1 point, is a little
over two of them. Smaller benchmarks (``tiny``: 240 pairs) need more.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean

import psutil

from benchmarks.trained import Place, Training, add_place_arguments, say
from plsc.conf import split_overrides

_SECONDS_TO_START = 180
_SECONDS_TO_END = 300
_LOG_EVERY_STEPS = 10


@dataclass(frozen=True)
class Kill:
    """One kill, as its line shows it."""

    kill: int
    """1, 2, ..."""
    ranks: int
    """Ranks that trained."""
    rank: int
    """The one that was killed."""
    resumed_from: int
    """Step at which this stretch began; 0 for the first."""
    step: int
    """Last step that was told before the kill."""
    seconds_to_notice: float
    """From the kill until no process of the training was left."""
    is_named: bool
    """Whether the step's error said which rank was killed."""


def ranks_of(training: Training) -> dict[int, psutil.Process]:
    """Return the ranks that descend from the training's own process."""
    found = {}
    for process in psutil.Process(training.process.pid).children(recursive=True):
        try:
            arguments, environment = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        if "plsc.train" in arguments and "RANK" in environment:
            found[int(environment["RANK"])] = process
    return found


def wait_for_step(training: Training, step: int) -> None:
    """Return when the training has told of ``step``, and of at least one that it did itself.

    Raises:
        RuntimeError: If it ended before, or told nothing for too long.
    """
    seen, moment = training.step, time.monotonic()
    while training.step < max(step, training.resumed_from + 1):
        if not training.is_running:
            training.finish()
            raise RuntimeError(f"training was complete before step {step} could be interrupted")
        if training.step != seen:
            seen, moment = training.step, time.monotonic()
        if time.monotonic() - moment > _SECONDS_TO_START:
            raise RuntimeError(
                f"no step in {_SECONDS_TO_START} s after {seen}:\n{training.last_words}"
            )
        time.sleep(0.02)


def kill_one(training: Training, number: int, num_ranks: int, chance: random.Random) -> Kill:
    """Kill a random rank now and wait until nothing of the training is left.

    Raises:
        RuntimeError: If it ended before, or if something of it outlives the kill for too long.
    """
    ranks = ranks_of(training)
    if len(ranks) != num_ranks:
        raise RuntimeError(
            f"expected {num_ranks} ranks at step {training.step}, found {len(ranks)}:"
            f"\n{training.last_words}"
        )
    rank = chance.choice(sorted(ranks))
    everything = [
        psutil.Process(training.process.pid),
        *psutil.Process(training.process.pid).children(recursive=True),
    ]
    step, moment = training.step, time.monotonic()
    os.kill(ranks[rank].pid, signal.SIGKILL)
    left = psutil.wait_procs(everything, timeout=_SECONDS_TO_END)[1]
    if left:
        raise RuntimeError(
            f"{_SECONDS_TO_END} s after rank {rank} was killed these still ran:"
            f" {', '.join(str(process) for process in left)}"
        )
    return Kill(
        kill=number,
        ranks=num_ranks,
        rank=rank,
        resumed_from=training.resumed_from,
        step=step,
        seconds_to_notice=round(time.monotonic() - moment, 2),
        is_named=f"rank {rank} of {num_ranks} was killed by SIGKILL" in training.last_words,
    )


def kills(
    place: Place, run_id: str, total_steps: int, ranks: list[int], chance: random.Random
) -> Iterator[Kill]:
    """Train ``run_id`` on each number of ``ranks`` in turn, killed each time but the last.

    The steps are cut into as many equal parts as there are kills; each falls on a random step of
    its part, and there on a random moment between two lines of the log.
    """
    part = (total_steps - 2 * _LOG_EVERY_STEPS) / max(1, len(ranks) - 1)
    checkpoint_every = max(1, min(50, int(part) // 3))
    settings = (
        f"train.checkpoint_every_steps={checkpoint_every}",
        f"train.log_every_steps={_LOG_EVERY_STEPS}",
        "train.verify_every_epochs=0",
    )
    for number, num_ranks in enumerate(ranks[:-1]):
        step = int(part * (number + chance.uniform(0.1, 1)))
        say(f"{run_id}: {num_ranks} ranks, to be killed at about step {step} of {total_steps}")
        with place.train(run_id, f"train.ranks={num_ranks}", *settings) as training:
            wait_for_step(training, max(1, step - step % _LOG_EVERY_STEPS))
            time.sleep(chance.uniform(0, _LOG_EVERY_STEPS) * training.seconds_per_step)
            kill = kill_one(training, number + 1, num_ranks, chance)
        say(f"{run_id}: {training.last_words.splitlines()[-1]}")
        yield kill
    say(f"{run_id}: {ranks[-1]} ranks, to the end")
    with place.train(run_id, f"train.ranks={ranks[-1]}", *settings) as training:
        training.finish()


def compare(place: Place, straight: str, killed: str, noise_points: float) -> dict[str, object]:
    """Return the last line: what both runs saw, and how well their models verify."""
    samples = {run_id: place.checkpoint(run_id).samples_seen for run_id in (straight, killed)}
    accuracies = {run_id: place.accuracies(run_id) for run_id in (straight, killed)}
    means = {run_id: fmean(found.values()) for run_id, found in accuracies.items()}
    points = 100 * (means[killed] - means[straight])
    return {
        "samples_seen_uninterrupted": samples[straight],
        "samples_seen_killed": samples[killed],
        "accuracies_uninterrupted": accuracies[straight],
        "accuracies_killed": accuracies[killed],
        "mean_difference_points": round(points, 3),
        "noise_points": noise_points,
        "ok": samples[straight] == samples[killed] and abs(points) <= noise_points,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_place_arguments(parser)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--ranks", default="1,2,3", help="numbers of ranks, taken in turn")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of who is killed")
    parser.add_argument("--noise-points", type=float, default=1.0)
    return parser.parse_args()


def main() -> int:
    """Train twice, compare."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no rank behind
    place = Place(given.experiment, Path(given.folder), tuple(split_overrides(given.overrides)))
    place.prepare()
    now = time.strftime("%Y%m%d-%H%M%S")  # these runs begin with nothing, whatever lies there
    straight, killed = f"uninterrupted-{now}", f"killed-{now}"
    say(f"{straight}: 2 ranks")
    with place.train(straight, "train.ranks=2", "train.verify_every_epochs=0") as training:
        training.finish()
    total_steps = place.checkpoint(straight).step
    ranks = list(islice(cycle(int(text) for text in given.ranks.split(",")), given.kills + 1))
    done = 0
    for kill in kills(place, killed, total_steps, ranks, random.Random(given.seed)):
        done += 1
        print(json.dumps({"benchmark": "kill_ranks", **asdict(kill)}), flush=True)
    found = compare(place, straight, killed, given.noise_points)
    line = {"benchmark": "kill_ranks", "experiment": given.experiment, "kills": done, **found}
    print(json.dumps(line), flush=True)
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
