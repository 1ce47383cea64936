"""OnnxModel: the exported graph, between export and deploy.

The graph takes ``images``: uint8 [n, size, size, 3] (RGB, height first), n free, and gives
``embeddings``: float32 [n, embedding_size] of length 1. Normalization of pixels and of embeddings
happens inside, so no client can do it differently. Its ``metadata_props`` hold ``run_id``,
``experiment``, ``config_sha256``, ``plsc_version``, ``checkpoint_step``, ``image_size``,
``embedding_size``, and as JSON ``thresholds`` (the gate's) and ``figures`` (the checkpoint's).
"""

from plsc.artifacts.index import Artifact, Payload, Positive

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "OnnxModel"]

INPUT_NAME = "images"
OUTPUT_NAME = "embeddings"


class OnnxModel(Artifact):
    """Index of an exported graph."""

    graph: Payload
    """The ``.onnx`` file."""
    opset: Positive
    image_size: Positive
    embedding_size: Positive
    parity_max_abs: float
    """Largest absolute difference to the torch model on the parity images."""
