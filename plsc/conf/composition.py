"""Composition by Hydra: experiment and overrides become one typed, checked tree."""

import re
import shlex
from pathlib import Path
from typing import Any

from hydra import compose as _hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from plsc.conf.checks import check
from plsc.conf.schema import PipelineConfig
from plsc.errors import ConfigError

__all__ = ["compose", "experiments", "from_hydra", "split_overrides", "to_dict"]

ConfigStore.instance().store(name="schema", node=PipelineConfig)


def compose(experiment: str, *overrides: str) -> PipelineConfig:
    """Return the configuration of ``experiment`` with ``overrides`` on top, checked.

    Args:
        experiment: A name from ``conf/experiment``.
        overrides: Hydra overrides, ``"train.epochs=2"``; later ones win.

    Raises:
        ConfigError: With Hydra's own words, if a key or value is wrong, or if two settings do not
            go together.
    """
    try:
        with initialize_config_module("plsc.conf", version_base="1.3"):
            tree = _hydra_compose("config", [f"experiment={experiment}", *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_words(error)) from error
    return from_hydra(tree)


def from_hydra(tree: DictConfig) -> PipelineConfig:
    """Return the typed, resolved and checked form of what Hydra composed.

    Raises:
        ConfigError: If a value is missing or does not go together with another.
    """
    try:
        config = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise ConfigError(_words(error)) from error
    assert isinstance(config, PipelineConfig)
    check(config)
    return config


def split_overrides(overrides: str) -> list[str]:
    """Return the overrides written in one line, split at blanks as a shell would.

    Raises:
        ConfigError: If a quote is not closed.
    """
    try:
        return shlex.split(overrides)
    except ValueError as error:
        raise ConfigError(f"overrides {overrides!r}: {error}: close the quote") from error


def experiments() -> list[str]:
    """Return the names of all experiments that ship with plsc, sorted."""
    return sorted(path.stem for path in (Path(__file__).parent / "experiment").glob("*.yaml"))


def to_dict(config: PipelineConfig) -> dict[str, Any]:
    """Return the configuration as plain JSON-ready values, for an index."""
    plain = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _words(error: BaseException) -> str:
    """Return Hydra's message and that of its cause, without the lines about Hydra's insides."""
    parts = [str(error)] + ([str(error.__cause__)] if error.__cause__ else [])
    text = "\n".join(parts)
    kept = [
        line.strip()
        for line in text.splitlines()
        if not re.match(r"\s*(object_type|reference_type)=", line)
    ]
    return "\n".join(dict.fromkeys(line for line in kept if line))
