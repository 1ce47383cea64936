"""Checkpoints of a run: written while training goes on, read back by any number of ranks.

Writing: ``checkpointer`` takes a ``snapshot`` into ``scratch`` files, ``upload`` brings them to the
store, ``retention`` decides which stay. Reading: ``resuming`` goes on, ``finetuning`` begins anew.
"""

from plsc.train.checkpoints.checkpointer import Checkpointer
from plsc.train.checkpoints.finetuning import finetune
from plsc.train.checkpoints.resuming import resume
from plsc.train.checkpoints.retention import best, latest

__all__ = ["Checkpointer", "best", "finetune", "latest", "resume"]
