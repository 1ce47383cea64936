"""The graph: a backbone with everything around it that a client could get wrong, as one ONNX file.

Inside are the pixels' scaling, the change of layout and the length of the embedding, so every
client that sends RGB pixels gets the embeddings that were verified.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import onnx
import torch
from torch import nn
from torch.nn import functional

from plsc.artifacts.onnx_model import INPUT_NAME, OUTPUT_NAME
from plsc.errors import ExportError

__all__ = ["MAX_BYTES", "Endpoint", "export"]

MAX_BYTES = 2**31 - 1
"""What a protobuf message, and so an ONNX file with its weights inside, can hold."""

_NOISY = "torch.onnx._internal.exporter._registration"
"""Warns at every export that torchvision's operators are not there; no backbone uses them."""


class Endpoint(nn.Module):
    """What clients call: uint8 [n, size, size, 3] (RGB) -> float32 [n, D] of length 1."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the normalized embeddings of ``images``."""
        scaled = (images.to(torch.float32) - 127.5) / 127.5
        return functional.normalize(self.backbone(scaled.permute(0, 3, 1, 2)))


def export(
    backbone: nn.Module, *, image_size: int, opset: int, metadata: Mapping[str, str]
) -> bytes:
    """Return ``Endpoint(backbone)`` as a checked ONNX file, batch size free, weights inside.

    Args:
        backbone: In eval mode; float32 [n, 3, image_size, image_size] -> [n, embedding_size].
        image_size: Height and width of the images, in pixels.
        opset: ONNX operator set.
        metadata: Goes into the file's ``metadata_props``.

    Raises:
        ExportError: If the weights are too large for one file, or the backbone is no graph.
    """
    _check_size(backbone)
    example = torch.zeros((2, image_size, image_size, 3), dtype=torch.uint8)
    try:
        with _quiet():
            program = torch.onnx.export(
                Endpoint(backbone).eval(),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
                opset_version=opset,
            )
    except (torch.onnx.OnnxExporterError, ValueError) as error:
        raise ExportError(
            f"{type(backbone).__name__} cannot be written as ONNX opset {opset}: {error}"
        ) from error
    assert program is not None, "dynamo=True returns a program"
    model = program.model_proto
    _strip(model)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _check_size(backbone: nn.Module) -> None:
    size_bytes = sum(tensor.nbytes for tensor in backbone.state_dict().values())
    if size_bytes > MAX_BYTES:
        raise ExportError(
            f"{type(backbone).__name__} has {size_bytes / 1e9:.1f} GB of weights, but one ONNX file"
            f" holds at most {MAX_BYTES / 1e9:.1f} GB: use a smaller embedding or backbone"
        )


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about each node: stack traces, paths of this machine."""
    graph = model.graph
    for noted in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del noted.metadata_props[:]
        noted.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger(_NOISY)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
