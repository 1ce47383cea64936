"""Preprocess as a component: records in, shards out."""

from kfp import dsl

from components import images

__all__ = ["preprocess"]


@dsl.component(base_image=images.ref("preprocess"), install_kfp_package=False)
def preprocess(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    dataset: dsl.Output[dsl.Dataset],
    data_report: dsl.Output[dsl.HTML],
) -> None:
    """Shuffle the records and cut them into shards of equal size."""
    from plsc.preprocess.step import run_step

    run_step(
        experiment,
        overrides,
        data_uri,
        run_id,
        dataset_path=dataset.path,
        metadata=dataset.metadata,
        report_path=data_report.path,
    )
