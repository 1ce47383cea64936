"""Train as a component: shards in, checkpoint out."""

from kfp import dsl

from components import images

__all__ = ["train"]


@dsl.component(
    base_image=images.ref("train-launch"),
    install_kfp_package=False,
    # What the task asks of a node is meant for the pods of the PyTorchJob, and reaches them.
    task_config_passthroughs=[
        dsl.TaskConfigField.RESOURCES,
        dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
        dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
        dsl.TaskConfigField.KUBERNETES_AFFINITY,
        dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True),
        dsl.TaskConfigField.KUBERNETES_VOLUMES,
    ],
)
def train(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    resume_run: str,
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    task_config: dsl.TaskConfig,
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
        task=vars(task_config),
    )
