"""What the pipeline's preprocess task calls."""

from pathlib import Path

from plsc import doorway, storage
from plsc.preprocess import data_report
from plsc.preprocess.stage import run

__all__ = ["run_step"]


def run_step(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    *,
    dataset_path: str,
    metadata: dict[str, object],
    report_path: str,
) -> None:
    """Run the stage with the pipeline's parameters and hand its index and report to KFP.

    Args:
        experiment: The pipeline's parameter of that name; likewise ``overrides`` and ``data_uri``.
        overrides: Hydra overrides in one line.
        data_uri: Folder of the input; empty means the experiment's own.
        run_id: The pipeline run.
        dataset_path: Where the index of the data set is written for KFP.
        metadata: Filled with what KFP shows beside the data set.
        report_path: Where the HTML report is written for KFP.

    Raises:
        PlscError: As ``stage.run`` does.
    """
    with doorway.step(
        "preprocess", experiment=experiment, overrides=overrides, data_uri=data_uri, run_id=run_id
    ) as config:
        dataset = run(config)
        storage.write_bytes(dataset_path, dataset.to_json())
        storage.download(data_report.uri_of(dataset), Path(report_path))
        metadata.update(
            samples=dataset.num_samples,
            classes=dataset.num_classes,
            shards=len(dataset.shards),
            quarantined=dataset.quarantine.num_rows,
        )
