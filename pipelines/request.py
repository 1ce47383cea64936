"""What a person asks for: the pipeline's parameters, and where everything local is kept."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from plsc import conf, doorway
from plsc.conf.schema import PipelineConfig

__all__ = ["Request"]

_STATE_PATH = Path(".plsc")
_EXPERIMENT = "glyphs"


@dataclass(frozen=True)
class Request:
    """One run of the pipeline, asked for."""

    experiment: str
    overrides: str
    data_uri: str
    resume_run: str
    state_path: Path

    def parameters(self) -> dict[str, str]:
        """Return the pipeline's parameters."""
        return {
            "experiment": self.experiment,
            "overrides": self.overrides,
            "data_uri": self.data_uri,
            "resume_run": self.resume_run,
        }

    def command(self, target: str, **settings: str) -> str:
        """Return how to make ``target`` in this request's state folder, with more settings."""
        state = {"STATE_DIR": str(self.state_path)} if self.state_path != _STATE_PATH else {}
        given = (
            f"{name}={shlex.quote(value)}" for name, value in (state | settings).items() if value
        )
        return " ".join(["make", target, *given])

    def run_command(self, *, resume_run: str = "") -> str:
        """Return how to ask for the same again, or to go on with the training of ``resume_run``."""
        return self.command(
            "pipeline-run",
            EXPERIMENT=self.experiment if self.experiment != _EXPERIMENT else "",
            OVERRIDES=self.overrides,
            DATA_URI=self.data_uri,
            RESUME=resume_run,
        )

    def compose(self, run_id: str) -> PipelineConfig:
        """Return the configuration that every step of the run ``run_id`` will compose.

        Raises:
            ConfigError: If it is wrong.
        """
        given = doorway.step_overrides(
            overrides=self.overrides, data_uri=self.data_uri, run_id=run_id
        )
        return conf.compose(self.experiment, *given)
