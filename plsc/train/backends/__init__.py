"""What starts the ranks and waits for them: torchrun on this machine, or a PyTorchJob."""

from plsc.train.backends.choice import chosen
from plsc.train.backends.protocol import Backend, RankKilledError

__all__ = ["Backend", "RankKilledError", "chosen"]
