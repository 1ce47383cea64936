"""plsc: train, verify and serve classifiers with millions of classes.

The catalogue of what users import; nothing heavy is loaded before it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plsc.client import Client
    from plsc.entry import Entry

__version__ = "0.1.0"

__all__ = ["Client", "Entry", "__version__"]

_ROOMS = {"Client": "plsc.client", "Entry": "plsc.entry"}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'plsc' has no attribute {name!r}: it offers {', '.join(__all__)}")
