"""The gate as a component: a task that fails when the model is not good enough.

It reads one small file, so it runs in deploy's image, which is light.
"""

from kfp import dsl

from components import images

__all__ = ["gate"]


@dsl.component(base_image=images.ref("deploy"), install_kfp_package=False)
def gate(
    experiment: str,
    overrides: str,
    data_uri: str,
    run_id: str,
    results: dsl.Input[dsl.Artifact],
    gate_report: dsl.Output[dsl.Markdown],
) -> None:
    """Compare every benchmark with its threshold; fail if one falls short."""
    from plsc.evaluate.gate_step import run_step

    run_step(
        experiment,
        overrides,
        data_uri,
        run_id,
        results_path=results.path,
        gate_report_path=gate_report.path,
    )
