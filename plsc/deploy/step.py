"""Deploy as a step of the pipeline."""

from plsc import doorway
from plsc.deploy import stage

__all__ = ["run_step"]


def run_step(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    *,
    onnx_path: str,
    metadata: dict[str, object],
) -> str:
    """Serve the graph whose index is the file ``onnx_path`` and return the endpoint, host:port.

    Args:
        experiment: As ``doorway.step``.
        overrides: As ``doorway.step``.
        data_uri: As ``doorway.step``.
        run_id: As ``doorway.step``.
        onnx_path: The graph's index.
        metadata: Filled with what the pipeline's page shows about the endpoint.

    Raises:
        PlscError: As ``doorway.step`` and ``stage.run`` say.
    """
    with doorway.step(
        "deploy",
        experiment=experiment,
        overrides=overrides,
        data_uri=data_uri,
        run_id=run_id,
        inputs={"deploy.onnx_uri": onnx_path},
    ) as config:
        deployment = stage.run(config)
    metadata.update(
        endpoint=deployment.endpoint,
        model=deployment.model,
        version=deployment.version,
        canary_max_abs=deployment.canary_max_abs,
    )
    return deployment.endpoint
