"""A backbone as the ruler sees it: pixels in, embeddings out."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from plsc.transforms import to_model_input

__all__ = ["as_embedder"]


def as_embedder(backbone: nn.Module) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Return ``backbone`` as a function uint8 [n, size, size, 3] -> float32 [n, D].

    The embeddings are not normalized. Each call evaluates in fp32 with the module in eval mode, and
    puts its mode back afterwards.
    """
    device = next(backbone.parameters()).device

    def embed(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        was_training = backbone.training
        backbone.eval()
        try:
            with torch.inference_mode():
                inputs = torch.from_numpy(to_model_input(images)).to(device)
                embeddings: npt.NDArray[np.float32] = backbone(inputs).float().cpu().numpy()
        finally:
            backbone.train(was_training)
        return embeddings

    return embed
