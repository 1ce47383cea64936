"""Which image a component runs in: the one place where image names are made."""

from plsc.stages import STAGES

__all__ = ["NAMES", "VERSION", "placed", "ref"]

VERSION = "0.1.0"
"""The tag of all images: the version of plsc. Never ``latest``, unseen by KFP's cache."""

NAMES: tuple[str, ...] = (*STAGES, "train-launch", "triton", "object-store")
"""One image per stage; the step that starts training on a cluster, without torch; and the two
servers."""

_PREFIX = "plsc-"


def ref(name: str) -> str:
    """Return the image ``name`` without a registry: ``plsc-train:0.1.0``.

    ``python -m pipelines compile --registry HOST/PATH`` puts a registry in front of all of them.

    Raises:
        ValueError: If there is no such image.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r} is no image: expected one of {', '.join(NAMES)}")
    return f"{_PREFIX}{name}:{VERSION}"


def placed(image: str, *, registry: str = "", tag: str = "") -> str:
    """Return ``image``, a result of ``ref``, in a registry and with another tag.

    Args:
        image: Such as ``plsc-train:0.1.0``.
        registry: Host and path; empty: none.
        tag: The tag that all images were built with; empty: as it is.
    """
    name, _, own_tag = image.rpartition(":")
    found = f"{name}:{tag or own_tag}"
    return f"{registry.rstrip('/')}/{found}" if registry else found
