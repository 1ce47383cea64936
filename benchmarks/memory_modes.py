"""What the memory-lean modes of the head cost in accuracy: an experiment in each mode and seed.

    python -m benchmarks.memory_modes [--experiment glyphs] [--seeds 0,1,2] [--modes fp32,...]

JSON lines: one per run, kept in ``FOLDER/results.jsonl`` and not run again where they are found
there (a run that was interrupted goes on from its newest checkpoint; to measure other code, take
another folder). Then a table: each mode's mean accuracy over the seeds, its difference to ``fp32``
in points over the seeds that both have, and the spread (smallest and largest of the seeds' own
differences).
"""

import argparse
import json
import signal
import sys
import time
import zlib
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.trained import Place, add_place_arguments, say
from plsc.conf import split_overrides
from plsc.progress import duration

MODES = {
    "fp32": (),
    "bf16_momentum": ("train.head.momentum_dtype=bf16",),
    "bf16_state": ("train.head.weight_dtype=bf16", "train.head.momentum_dtype=bf16"),
    "int8_momentum": ("train.head.weight_dtype=bf16", "train.head.momentum_dtype=int8"),
    "bf16_gemm": ("train.head.precision=bf16",),
}
"""Mode -> what it changes."""


def run(place: Place, mode: str, seed: int) -> dict[str, Any]:
    """Train and verify one run and return its line."""
    digest = zlib.crc32(" ".join(place.overrides).encode())  # other settings, another run
    run_id = f"memory-{place.experiment}-{mode}-seed{seed}-{digest:08x}"
    settings = (f"seed={seed}", "train.ranks=2", "train.verify_every_epochs=0", *MODES[mode])
    with place.train(run_id, *settings) as training:
        training.finish()
    checkpoint, accuracies = place.checkpoint(run_id), place.accuracies(run_id)
    return {
        "benchmark": "memory_modes",
        **_key(place, mode, seed),
        "steps": checkpoint.step,
        "accuracies": accuracies,
        "mean_accuracy": fmean(accuracies.values()),
        "samples_per_s": round(checkpoint.figures["samples_per_s"], 1),
    }


def _key(place: Place, mode: str, seed: int) -> dict[str, Any]:
    overrides = " ".join(place.overrides)
    return {"experiment": place.experiment, "overrides": overrides, "mode": mode, "seed": seed}


def run_all(place: Place, modes: list[str], seeds: list[int]) -> list[dict[str, Any]]:
    """Return the lines of all runs; those that are not in the results yet are run."""
    path = place.folder / "results.jsonl"
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    wanted = [_key(place, mode, seed) for seed in seeds for mode in modes]
    found = [next((line for line in known if key.items() <= line.items()), None) for key in wanted]
    todo, begin = (
        [key for key, line in zip(wanted, found, strict=True) if line is None],
        time.monotonic(),
    )
    lines = [line for line in found if line]
    for done, key in enumerate(todo):
        seconds = (time.monotonic() - begin) / max(1, done) * (len(todo) - done)
        left = f", {duration(seconds)} left" if done else ""
        say(f"run {done + 1} of {len(todo)}: {key['mode']}, seed {key['seed']}{left}")
        line = run(place, key["mode"], key["seed"])
        with path.open("a") as results:
            results.write(json.dumps(line) + "\n")
        lines.append(line)
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """Return the modes below each other."""
    accuracies: dict[str, dict[int, float]] = defaultdict(dict)
    for line in lines:
        accuracies[line["mode"]][line["seed"]] = 100 * line["mean_accuracy"]
    rows = [
        f"{'mode':14} {'seeds':>5} {'mean %':>7} {'to fp32':>8} {'spread':>16} {'samples/s':>9}"
    ]
    for mode, found in accuracies.items():
        pairs = [(found[seed], accuracies["fp32"].get(seed)) for seed in found]
        differences = [mine - other for mine, other in pairs if other is not None]
        change = f"{fmean(differences):+.2f}" if differences else "?"
        spread = f"{min(differences):+.2f} .. {max(differences):+.2f}" if differences else "?"
        rate = fmean(line["samples_per_s"] for line in lines if line["mode"] == mode)
        mean = fmean(found.values())
        rows.append(f"{mode:14} {len(found):5} {mean:7.2f} {change:>8} {spread:>16} {rate:9.0f}")
    if "fp32" in accuracies:
        own = accuracies["fp32"].values()
        rows.append(f"fp32's own seeds: {min(own):.2f} .. {max(own):.2f} %")
    return "\n".join(rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_place_arguments(parser)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--modes", default=",".join(MODES), help=f"of {', '.join(MODES)}")
    given = parser.parse_args()
    given.modes = given.modes.split(",")
    if unknown := set(given.modes) - MODES.keys():
        parser.error(f"--modes: expected some of {', '.join(MODES)}, found {', '.join(unknown)}")
    return given


def main() -> int:
    """Run what is missing, print everything."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave no rank behind
    place = Place(given.experiment, Path(given.folder), tuple(split_overrides(given.overrides)))
    place.prepare()
    lines = run_all(place, given.modes, [int(text) for text in given.seeds.split(",")])
    for line in lines:
        print(json.dumps(line))
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
