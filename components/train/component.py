"""Train as a component: shards in, checkpoint out."""

from kfp import dsl

from components import images

__all__ = ["train"]


@dsl.component(base_image=images.ref("train"), install_kfp_package=False)
def train(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    resume_run: str,
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Train the backbone and its class-sharded head."""
    from plsc.train.step import run_step

    run_step(
        experiment,
        overrides,
        data_uri,
        run_id,
        resume_run=resume_run,
        dataset_path=dataset.path,
        model_path=model.path,
        metadata=model.metadata,
        metrics=metrics.metadata,
    )
