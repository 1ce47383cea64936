"""Configurations that deploy a small graph, and what must be there afterwards."""

import numpy as np

from plsc import storage
from plsc.client import Client
from plsc.conf import compose
from plsc.conf.schema import PipelineConfig
from tests.deploy import graphs


def config_for(name: str, bucket_uri: str, seed: int, *overrides: str) -> PipelineConfig:
    """Export the graph of ``seed`` and return the configuration that deploys it."""
    onnx_uri = graphs.export(f"{bucket_uri}/export-{seed}", graphs.graph(seed))
    return compose(
        "tiny",
        f"run_id=run-{seed}",
        f"store_uri={bucket_uri}",
        "deploy.repository_uri=s3://plsc/models",
        f"deploy.model_name={name}",
        f"deploy.onnx_uri={onnx_uri}",
        "deploy.timeout_s=60",
        *overrides,
    )


def objects(name: str) -> list[str]:
    """Return what the repository holds of a model."""
    uri = f"s3://plsc/models/{name}/"
    return [info.uri.removeprefix(uri) for info in storage.list_objects(uri)]


def assert_serves(address: str, name: str, seed: int) -> None:
    """Ask a server as a client does."""
    images = graphs.random_images(3, seed=seed)
    with Client.connect(address, model=name) as client:
        found = client.encode(images)
    np.testing.assert_allclose(found, graphs.embed(graphs.graph(seed), images), atol=1e-5)
