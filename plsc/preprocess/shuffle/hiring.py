"""Who does the tasks of a job: processes of this machine, or the pods of Indexed Jobs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from plsc.cluster.requirement import check_pods
from plsc.conf.schema import PipelineConfig
from plsc.preprocess.shuffle.job import Job
from plsc.preprocess.shuffle.workforce import Workforce

__all__ = ["Hands", "check", "hired"]


class Hands(Protocol):
    """Does tasks."""

    def run(self, task: str, numbers: Mapping[int, int], advance: Callable[[int], None]) -> None:
        """Do the tasks ``numbers`` of one kind.

        Args:
            task: ``map`` or ``reduce``.
            numbers: Which, and how many bytes each is, about.
            advance: Told now and then how many bytes are done.

        Raises:
            PlscError: What the first task that failed raised; the others are given up.
        """


def check(config: PipelineConfig) -> None:
    """Check that what ``preprocess.pods`` asks for can be had here.

    Raises:
        ConfigError: If there is no cluster for them.
    """
    if config.preprocess.pods.count:
        check_pods("preprocess", config.preprocess.pods)


@contextmanager
def hired(config: PipelineConfig, job: Job, scratch: Path) -> Iterator[Hands]:
    """Within the block there is someone to do the tasks of ``job``, which is written already.

    Args:
        config: Tells whether they are pods.
        job: The job.
        scratch: Local folder for what tasks write on their way; whoever made it removes it.
    """
    if config.preprocess.pods.count:
        from plsc.preprocess.shuffle.pod_workforce import PodWorkforce  # noqa: PLC0415  it needs kubernetes

        yield PodWorkforce(config, job)
        return
    with Workforce(job, scratch).hired() as workforce:
        yield workforce
