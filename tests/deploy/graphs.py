"""Small real graphs: uint8 [n, size, size, 3] -> float32 [n, D] of length 1, as exported ones."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from plsc import storage
from plsc.artifacts.index import Payload, Provenance, now
from plsc.artifacts.onnx_model import INPUT_NAME, OUTPUT_NAME, OnnxModel

SIZE = 16
DIM = 8


def graph(seed: int, *, size: int = SIZE, dim: int = DIM) -> bytes:
    """Return a linear map of the scaled pixels, normalized; each seed gives another."""
    weight = np.random.default_rng(seed).standard_normal((size * size * 3, dim)).astype(np.float32)
    constants = {
        "middle": np.float32(127.5),
        "flat": np.array([0, size * size * 3], np.int64),
        "weight": weight,
        "bias": np.linspace(1, 2, dim, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Cast", [INPUT_NAME], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "middle"], ["centered"]),
        helper.make_node("Div", ["centered", "middle"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "flat"], ["vector"]),
        helper.make_node("Gemm", ["vector", "weight", "bias"], ["embedding"]),
        helper.make_node("LpNormalization", ["embedding"], [OUTPUT_NAME], axis=1, p=2),
    ]
    made = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["n", size, size, 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["n", dim])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def embed(content: bytes, images: np.ndarray) -> np.ndarray:
    """Return what onnxruntime computes in this process."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]


def export(folder_uri: str, content: bytes, *, size: int = SIZE, dim: int = DIM) -> str:
    """Write a graph and its index as the export stage does; return the index's uri."""
    graph_uri = storage.join(folder_uri, "model.onnx")
    storage.write_bytes(graph_uri, content)
    model = OnnxModel(
        provenance=Provenance(
            run_id="run-1", experiment="tiny", created_at=now(), seconds=0.0, config={}
        ),
        graph=Payload(
            uri=graph_uri, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
        ),
        opset=20,
        image_size=size,
        embedding_size=dim,
        parity_max_abs=0.0,
    )
    uri = storage.join(folder_uri, "index.json")
    model.write(uri)
    return uri


def random_images(count: int, *, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Return noise, uint8 [count, size, size, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def local(path: Path, content: bytes) -> Path:
    """Write a graph to a local file."""
    path.write_bytes(content)
    return path
