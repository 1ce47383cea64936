"""What every training backend does."""

from collections.abc import Sequence
from typing import Protocol

from plsc.conf.schema import PipelineConfig
from plsc.errors import TrainError

__all__ = ["Backend", "RankKilledError"]


class RankKilledError(TrainError):
    """Ranks were ended, or could not begin, from outside: that is the reason, whatever they say."""


class Backend(Protocol):
    """Starts the ranks of a training, passes on what rank 0 says, and returns at their end."""

    def train(self, config: PipelineConfig, arguments: Sequence[str]) -> None:
        """Train to the end; blocks for as long as that takes. In the main thread.

        Args:
            config: The run's configuration.
            arguments: Hydra overrides from which ``python -m plsc.train`` composes the same one.

        Raises:
            RankKilledError: If a signal, or the cluster, ended a rank; names it and how.
            TrainError: If a rank failed otherwise: it may have left the reason in the store.
            ConfigError, ClusterError: If the ranks could not be started.
            SystemExit: If a signal asked this process to end.
        """
