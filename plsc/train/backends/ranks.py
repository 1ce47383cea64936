"""What ranks are given, and what they say, whatever starts them."""

import logging

from plsc.doorway import LAUNCHED

__all__ = ["ENVIRONMENT", "show"]

log = logging.getLogger(__name__)

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR", LAUNCHED: "1"}
"""Of every rank: torch's threads are ``train.threads_per_rank``, and the step speaks for them."""


def show(line: str) -> None:
    """Pass on what a rank says; keep what torchrun says about itself to the debug level."""
    if line.startswith("[train]"):
        log.info("%s", line.removeprefix("[train]").strip())
    else:
        log.debug("%s", line)
