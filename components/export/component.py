"""Export as a component: checkpoint in, ONNX graph out."""

from kfp import dsl

from components import images

__all__ = ["export"]


@dsl.component(base_image=images.ref("export"), install_kfp_package=False)
def export(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    model: dsl.Input[dsl.Model],
    onnx: dsl.Output[dsl.Model],
) -> None:
    """Write the backbone as an ONNX graph that computes what the model computes."""
    from plsc.export.step import run_step

    run_step(
        experiment,
        overrides,
        data_uri,
        run_id,
        model_path=model.path,
        onnx_path=onnx.path,
        metadata=onnx.metadata,
    )
