"""Shards to batches: order, local copies, decoding and augmentation.

Nothing in here imports torch: worker processes start in a third of a second and stay small.
"""

from plsc.train.loader.feeding import Batch, Loader
from plsc.train.loader.sampler import Sampler

__all__ = ["Batch", "Loader", "Sampler"]
