"""``python -m plsc.train.loader.worker``: decodes batches for a rank until its input ends.

JSON lines on standard input: the descriptor of a ring and a plan, then "make", step and slot, or
"forget" and the first window still to be read. The answers to the former are JSON lines on standard
output. The batches themselves go into the ring.
"""

import json
import os
import signal
import sys
from typing import BinaryIO

from plsc.train.loader.assembly import Assembler, Plan
from plsc.train.loader.ring import Ring

__all__ = ["main"]


def main() -> int:
    """Serve until standard input is closed: then whoever asked is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the rank's to handle; it closes ours
    answers: BinaryIO = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is no answer
    jobs = sys.stdin.buffer
    descriptor = int(jobs.readline())
    plan = Plan.model_validate_json(jobs.readline())
    ring = Ring(
        descriptor, slots=plan.slots, batch_size=plan.batch_size, image_size=plan.image_size
    )
    assembler = Assembler(plan)
    for line in jobs:
        job, *numbers = json.loads(line)
        if job == "forget":
            assembler.forget_before(*numbers)
            continue
        step, slot = numbers
        made = assembler.assemble(step, ring.images[slot], ring.labels[slot])
        answers.write(made.model_dump_json().encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
