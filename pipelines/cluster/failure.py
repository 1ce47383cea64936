"""Why a run on the cluster failed: what the step left in the store, said, or how its pod ended."""

import re
from pathlib import Path

import plsc.errors
from pipelines import outcome
from pipelines.cluster.connection import Connection
from pipelines.cluster.progress import StepProgress
from pipelines.cluster.workflow import Workflow
from pipelines.outcome import Failure
from plsc.conf.schema import PipelineConfig
from plsc.errors import PlscError

__all__ = ["explain"]


def explain(
    connection: Connection,
    run_id: str,
    steps: list[StepProgress],
    workflow: Workflow | None,
    *,
    config: PipelineConfig | None,
    log_path: Path,
) -> Failure:
    """Return why the run failed.

    Args:
        connection: To KFP.
        run_id: The run.
        steps: How far it got.
        workflow: Its pods, if they are known.
        config: The run's configuration, if the store can be asked from here.
        log_path: Folder that gets the end of the failed step's log.
    """
    failed = next((step.step for step in steps if step.state == "FAILED"), "")
    if not failed:
        return Failure("pipeline", "KFP does not tell which step failed", 1)
    attempt = workflow.last(failed) if workflow else None
    log = workflow.log(connection, run_id, attempt.pod) if workflow and attempt else ""
    if log:
        log_path.mkdir(parents=True, exist_ok=True)
        (log_path / f"{failed}.log").write_text(log, encoding="utf-8")
    left = _left(config, failed) or _said(failed, log)
    if left:
        return left
    how = f" ({attempt.message})" if attempt and attempt.message else ""
    return Failure(failed, f"its pod ended without a reason of its own{how}", 1)


def _left(config: PipelineConfig | None, step: str) -> Failure | None:
    try:
        return outcome.read_failure(config, step) if config else None
    except PlscError:
        return None


def _said(step: str, log: str) -> Failure | None:
    """Return the error that the step's doorway has logged."""
    found = re.findall(rf"^\[{re.escape(step)}\] (\w+): (.*)$", log, flags=re.MULTILINE)
    for name, message in reversed(found):
        kind = getattr(plsc.errors, name, None) if name in plsc.errors.__all__ else None
        if kind is not None:
            return Failure(step, f"{name}: {message}", kind.exit_code)
    return None
