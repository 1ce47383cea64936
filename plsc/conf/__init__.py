"""The configuration: ``compose`` gives doorways, steps, tests and notebooks one typed tree.

Hydra is loaded when a tree is composed: a worker process that only reads a setting's type starts
without it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plsc.conf.composition import compose, experiments, from_hydra, split_overrides, to_dict

__all__ = ["compose", "experiments", "from_hydra", "split_overrides", "to_dict"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from plsc.conf import composition  # noqa: PLC0415

        return getattr(composition, name)
    raise AttributeError(f"module 'plsc.conf' has no attribute {name!r}")
