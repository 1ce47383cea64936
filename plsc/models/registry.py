"""Backbones by name: ``@register("iresnet50")`` puts a builder in, ``build`` finds it."""

import importlib
from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import nn

from plsc.conf.schema import ModelConfig
from plsc.errors import ConfigError

__all__ = ["Builder", "build", "names", "register"]


class Builder(Protocol):
    """What makes a backbone: a function, or a class of your own."""

    def __call__(self, *, embedding_size: int, image_size: int, dropout: float) -> nn.Module:
        """Return a module float32 [B, 3, S, S] in [-1, 1] -> [B, D], not normalized."""


_BUILDERS: dict[str, Builder] = {}
_B = TypeVar("_B", bound=Builder)


def register(name: str) -> Callable[[_B], _B]:
    """Return a decorator that registers a builder under ``name``."""

    def decorate(builder: _B) -> _B:
        assert name not in _BUILDERS, f"two backbones are called {name}"
        _BUILDERS[name] = builder
        return builder

    return decorate


def names() -> list[str]:
    """Return the registered names, sorted."""
    return sorted(_BUILDERS)


def build(config: ModelConfig, image_size: int) -> nn.Module:
    """Return a new backbone with random weights.

    Args:
        config: ``config.name`` is a registered name, or ``package.module:Class`` of your own, which
            is called with ``embedding_size``, ``image_size`` and ``dropout``.
        image_size: Height and width of the images, in pixels.

    Raises:
        ConfigError: If there is no such backbone, or it cannot be made with these settings.
    """
    builder = _BUILDERS.get(config.name) or _imported(config.name)
    try:
        return builder(
            embedding_size=config.embedding_size, image_size=image_size, dropout=config.dropout
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.name={config.name} cannot be built: {error}") from error


def _imported(name: str) -> Builder:
    module_name, separator, attribute = name.partition(":")
    if not separator:
        raise ConfigError(
            f"model.name={name} is unknown: expected package.module:Class, or one of"
            f" {', '.join(names())}"
        )
    try:
        builder: Builder = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"model.name={name} cannot be imported: {error}: check PYTHONPATH and the spelling"
        ) from error
    return builder
