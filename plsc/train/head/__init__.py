"""The distributed classifier: a margin softmax over classes that are cut over the ranks.

Read ``sharded`` first (who computes what when), then ``streaming`` (the arithmetic); ``margin``,
``sampling``, ``update`` and ``stored`` are what these two are made of.
"""

from plsc.train.head.margin import Margin
from plsc.train.head.sharded import ShardedHead
from plsc.train.head.step import HeadOutput, HeadStep
from plsc.train.head.stored import decode

__all__ = ["HeadOutput", "HeadStep", "Margin", "ShardedHead", "decode"]
