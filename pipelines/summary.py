"""The summary of a run: tables for the person who waited for it."""

from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.outcome import Indexes, Outcome
from pipelines.request import Request
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.report import Report
from plsc.artifacts.shards import ShardSet
from plsc.progress import duration

__all__ = ["print_lines", "print_results", "print_summary"]


def print_summary(
    console: Console,
    outcome: Outcome,
    *,
    request: Request,
    thresholds: dict[str, float],
    samples: list[Path],
) -> None:
    """Print what a successful run has made, how good it is, and what to do next.

    Args:
        console: Where to.
        outcome: What there is to tell.
        request: What was asked for.
        thresholds: Benchmark -> accuracy that the gate asked for.
        samples: Pictures to try, all in one folder.
    """
    print_results(console, outcome, thresholds=thresholds)
    print_lines(console, _next(outcome.indexes, request=request, samples=samples))


def print_results(console: Console, outcome: Outcome, *, thresholds: dict[str, float]) -> None:
    """Print what each step of a successful run took and made, and how good the model is."""
    console.print()
    title = Text.assemble(
        (outcome.run_id, "bold"), " succeeded in ", (duration(outcome.seconds), "bold green")
    )
    console.print(title, soft_wrap=True)
    console.print(_steps(outcome))
    if outcome.indexes.report:
        console.print(_benchmarks(outcome.indexes.report, thresholds))


def print_lines(console: Console, lines: dict[str, str]) -> None:
    """Print addresses and commands, each led by its name."""
    for name, text in lines.items():
        console.print(Text.assemble((f"  {name:<18}", "dim"), text), soft_wrap=True)


def _steps(outcome: Outcome) -> Table:
    told = dict(_told(outcome.indexes))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("step", style="cyan")
    table.add_column("time", justify="right")
    table.add_column("what came out", overflow="fold")
    for step, seconds in outcome.step_seconds.items():
        table.add_row(step, duration(seconds), told.get(step, ""))
    return table


def _told(found: Indexes) -> Iterator[tuple[str, str]]:
    """Yield (step, what came out of it)."""
    if found.dataset:
        yield "preprocess", _told_of_dataset(found.dataset)
    if found.checkpoint:
        yield "train", _told_of_checkpoint(found.checkpoint)
    if found.report:
        pairs = sum(result.num_pairs for result in found.report.benchmarks)
        yield "evaluate", f"{_count(pairs)} pairs, {_count(found.report.images_per_s)} images/s"
        yield "gate", "passed"
    if found.onnx:
        size, off_by = found.onnx.graph.size_bytes / 1e6, found.onnx.parity_max_abs
        yield "export", f"ONNX of {size:.1f} MB, off by {off_by:.1e} from torch"
    if served := found.deployment:
        before = f" (was {served.previous_version})" if served.previous_version is not None else ""
        yield "deploy", f"{served.model}, version {served.version}{before}, at {served.endpoint}"


def _told_of_dataset(dataset: ShardSet) -> str:
    images, classes = _count(dataset.num_samples), _count(dataset.num_classes)
    bad = dataset.quarantine.num_rows
    told = f"{images} images of {classes} classes in {len(dataset.shards)} shards"
    return f"{told}, {_count(bad)} bad rows" if bad else told


def _told_of_checkpoint(checkpoint: Checkpoint) -> str:
    told = f"{_count(checkpoint.step)} steps, {checkpoint.ranks} ranks"
    if "samples_per_s" in checkpoint.figures:
        told += f", {_count(checkpoint.figures['samples_per_s'])} samples/s"
    if "loss" in checkpoint.figures:
        told += f", loss {checkpoint.figures['loss']:.3f}"
    return told


def _benchmarks(report: Report, thresholds: dict[str, float]) -> Table:
    fars = (
        [point.far_target for point in report.benchmarks[0].tar_at_far] if report.benchmarks else []
    )
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("in %", style="cyan", no_wrap=True)
    table.add_column("accuracy", justify="right", style="bold", no_wrap=True)
    for far in fars:
        table.add_column(f"TAR@{far:g}", justify="right")
    table.add_column("pixels", justify="right", style="dim")
    table.add_column("asked", justify="right", style="dim")
    for result in report.benchmarks:
        tars = {point.far_target: point.tar for point in result.tar_at_far}
        asked = thresholds.get(result.name)
        table.add_row(
            result.name,
            f"{_percent(result.accuracy)} ± {_percent(result.accuracy_std)}",
            *(_percent(tars[far]) if far in tars else "" for far in fars),
            _percent(result.pixel_baseline_accuracy),
            _percent(asked) if asked is not None else "",
        )
    if len(report.benchmarks) > 1:
        mean = sum(result.accuracy for result in report.benchmarks) / len(report.benchmarks)
        table.add_section()
        table.add_row("mean", _percent(mean))
    return table


def _next(found: Indexes, *, request: Request, samples: list[Path]) -> dict[str, str]:
    lines: dict[str, str] = {}
    if found.deployment:
        lines["endpoint"] = f"{found.deployment.endpoint} (gRPC, model {found.deployment.model})"
    if samples:
        lines["images to try"] = f"{samples[0].parent}/"
        images = " ".join(str(path) for path in samples[:3])
        lines["ask it"] = request.command("query", IMAGES=images)
    lines["run again"] = request.run_command()
    lines["stop the servers"] = request.command("services-down")
    return lines


def _count(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
