"""The evaluate stage: checkpoint -> every benchmark measured -> report, for machines and people."""

import hashlib
import logging

from plsc import doorway, storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.index import Payload
from plsc.artifacts.report import Report
from plsc.conf.schema import PipelineConfig
from plsc.evaluate import embedding, gate, page
from plsc.evaluate.section import make_section
from plsc.verification import read_benchmark

__all__ = ["run"]

log = logging.getLogger(__name__)


def run(config: PipelineConfig) -> Report:
    """Verify ``config.evaluate.checkpoint_uri`` on every benchmark; write the page, then the index.

    Raises:
        CheckpointError: If the checkpoint was altered or does not fit its model.
        BenchmarkError: If a benchmark cannot be read.
        StorageError: If something cannot be fetched or written.
        ConfigError: If ``evaluate.pods`` are asked for where there is no cluster.
        ClusterError: If those pods cannot be had, or fail.
    """
    watch = doorway.Stopwatch()
    checkpoint = Checkpoint.read(config.evaluate.checkpoint_uri)
    image_size = int(checkpoint.provenance.config["image_size"])
    sections = []
    with embedding.begun(config, checkpoint) as model:
        for name in config.evaluate.benchmarks:
            benchmark = read_benchmark(config.data_uri, name)
            embeddings = model.embed(benchmark)
            section = make_section(benchmark, embeddings, config.evaluate, image_size=image_size)
            sections.append(section)
            _log_result(section)
    provenance = watch.provenance(config)
    results = [section.result for section in sections]
    heading = page.Heading(
        experiment=config.name,
        run_id=config.run_id,
        step=checkpoint.step,
        created_at=provenance.created_at,
        images_per_s=model.images_per_s,
    )
    html = page.render(heading, sections, gate.judge(results, config.evaluate.thresholds)).encode()
    report = Report(
        provenance=provenance,
        step=checkpoint.step,
        images_per_s=heading.images_per_s,
        benchmarks=results,
        page=_write_page(config, html),
    )
    report.write(doorway.index_uri(config, "evaluate"))
    return report


def _log_result(section: page.Section) -> None:
    result = section.result
    log.info(
        "%s: accuracy %.4f +- %.4f on %d pairs (raw pixels %.4f), %s",
        result.name,
        result.accuracy,
        result.accuracy_std,
        result.num_pairs,
        result.pixel_baseline_accuracy,
        ", ".join(
            f"TAR {point.tar:.4f} at FAR {point.far_target:.0e}" for point in result.tar_at_far
        ),
    )


def _write_page(config: PipelineConfig, html: bytes) -> Payload:
    uri = storage.join(
        config.store_uri, "runs", config.run_id, "evaluate", "verification_report.html"
    )
    storage.write_bytes(uri, html)
    log.info("page: %s (%.1f MB)", uri, len(html) / 1e6)
    return Payload(uri=uri, size_bytes=len(html), sha256=hashlib.sha256(html).hexdigest())
