"""The index of an exported graph."""

import pytest

from plsc.artifacts.index import Payload, Provenance
from plsc.artifacts.onnx_model import INPUT_NAME, OUTPUT_NAME, OnnxModel
from plsc.errors import ArtifactError


def model() -> OnnxModel:
    return OnnxModel(
        provenance=Provenance(
            run_id="r1", experiment="tiny", created_at="2026-11-22", seconds=1.5, config={}
        ),
        graph=Payload(uri="s3://b/model.onnx", size_bytes=10, sha256="0" * 64),
        opset=20,
        image_size=112,
        embedding_size=512,
        parity_max_abs=1e-7,
    )


def test_an_index_is_read_as_it_was_written(tmp_path):
    uri = str(tmp_path / "index.json")
    model().write(uri)
    assert OnnxModel.read(uri) == model()


def test_the_names_that_clients_use_stay():
    assert (INPUT_NAME, OUTPUT_NAME) == ("images", "embeddings")


def test_a_parity_that_is_no_number_is_refused():
    content = model().to_json().replace(b'"parity_max_abs": 1e-7', b'"parity_max_abs": NaN')
    assert b"NaN" in content
    with pytest.raises(ArtifactError, match="OnnxModel"):
        OnnxModel.from_json(content, "index.json")
