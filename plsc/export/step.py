"""Export as a step of the pipeline."""

from plsc import doorway
from plsc.export import stage

__all__ = ["run_step"]


def run_step(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    *,
    model_path: str,
    onnx_path: str,
    metadata: dict[str, object],
) -> None:
    """Export the checkpoint whose index is the file ``model_path``.

    Args:
        experiment: As ``doorway.step``.
        overrides: As ``doorway.step``.
        data_uri: As ``doorway.step``.
        run_id: As ``doorway.step``.
        model_path: The checkpoint's index.
        onnx_path: Where the graph's index goes, for the steps behind this one.
        metadata: Filled with what the pipeline's page shows about the graph.

    Raises:
        PlscError: As ``doorway.step`` and ``stage.run`` say.
    """
    with doorway.step(
        "export",
        experiment=experiment,
        overrides=overrides,
        data_uri=data_uri,
        run_id=run_id,
        inputs={"export.checkpoint_uri": model_path},
    ) as config:
        model = stage.run(config)
        model.write(onnx_path)
        metadata.update(
            uri=model.graph.uri,
            sha256=model.graph.sha256,
            size_mb=round(model.graph.size_bytes / 1e6, 3),
            opset=model.opset,
            image_size=model.image_size,
            embedding_size=model.embedding_size,
            parity_max_abs=model.parity_max_abs,
        )
