"""What lies at ``data_uri``, in whatever layout: cut into items, read row by row.

``finding.find`` tells which layout it is.
"""

from plsc.preprocess.inputs.item import Input, Item, Row
from plsc.preprocess.inputs.judge import Judge
from plsc.preprocess.inputs.reading import read

__all__ = ["Input", "Item", "Judge", "Row", "read"]
