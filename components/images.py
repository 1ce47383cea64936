"""Which image a component runs in: the one place where image names are made."""

from plsc.stages import STAGES

__all__ = ["VERSION", "ref"]

VERSION = "0.1.0"
"""The tag of all images: the version of plsc. Never ``latest``, unseen by KFP's cache."""


def ref(stage: str) -> str:
    """Return the image of ``stage``, without a registry: ``plsc-train:0.1.0``.

    ``python -m pipelines compile --registry HOST/PATH`` puts a registry in front of all of them.

    Raises:
        ValueError: If there is no such stage.
    """
    if stage not in STAGES:
        raise ValueError(f"{stage!r} is no stage: expected one of {', '.join(STAGES)}")
    return f"plsc-{stage}:{VERSION}"
