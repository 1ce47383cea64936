"""Deploy as a component: ONNX graph in, live endpoint out."""

from kfp import dsl

from components import images

__all__ = ["deploy"]


@dsl.component(base_image=images.ref("deploy"), install_kfp_package=False)
def deploy(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    onnx: dsl.Input[dsl.Model],
) -> str:
    """Serve the graph as the next version of the model, and return the endpoint."""
    from plsc.deploy.step import run_step

    return run_step(
        experiment,
        overrides,
        data_uri,
        run_id,
        onnx_path=onnx.path,
        metadata=onnx.metadata,
    )
