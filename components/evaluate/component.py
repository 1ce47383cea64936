"""Evaluate as a component: checkpoint in, verification report out."""

from kfp import dsl

from components import images

__all__ = ["evaluate"]


@dsl.component(base_image=images.ref("evaluate"), install_kfp_package=False)
def evaluate(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    model: dsl.Input[dsl.Model],
    results: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    roc: dsl.Output[dsl.ClassificationMetrics],
    verification_report: dsl.Output[dsl.HTML],
) -> None:
    """Verify the model on every benchmark."""
    from plsc.evaluate.step import run_step

    run_step(
        experiment,
        overrides,
        data_uri,
        run_id,
        model_path=model.path,
        results_path=results.path,
        metrics=metrics.metadata,
        roc=roc.metadata,
        report_path=verification_report.path,
    )
