"""A small data set written by hand, healthy but for what a test changes."""

import hashlib

import numpy as np
import pyarrow as pa

from plsc import storage
from plsc.artifacts.index import Payload, Provenance
from plsc.artifacts.shards import Duplicates, LeftOut, Quarantine, Shard, ShardSet, shard_content
from tests.preprocess.rows import image

NAMES = ["ada", "bob", "character U", "中", "a name that is far too long for its picture"]
NUM_SHARDS, PER_SHARD = 3, 20
NUM_SAMPLES = NUM_SHARDS * PER_SHARD


def payload(uri: str, content: bytes, **more) -> dict:
    storage.write_bytes(uri, content)
    digest = hashlib.sha256(content).hexdigest()
    return {"uri": uri, "size_bytes": len(content), "sha256": digest, **more}


def class_map(counts: list[int]) -> bytes:
    columns = {
        "label": pa.array(range(len(counts)), pa.int64()),
        "name": pa.array(NAMES[: len(counts)], pa.large_string()),
        "num_images": pa.array(counts, pa.int64()),
    }
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def keys_of(numbers: range) -> np.ndarray:
    return np.array([[number // 7, number] for number in numbers], np.uint64)


def write_shards(folder: str, *, labels=None, keys=keys_of) -> list[Shard]:
    shards = []
    for number in range(NUM_SHARDS):
        rows = range(number * PER_SHARD, (number + 1) * PER_SHARD)
        given = np.array([row % len(NAMES) for row in rows] if labels is None else labels)
        content = bytes(shard_content([image(row) for row in rows], given, keys(rows)))
        uri = f"{folder}/shard-{number:05d}.arrow"
        shards.append(Shard(**payload(uri, content, num_samples=PER_SHARD)))
    return shards


def write_data_set(folder: str, **changes) -> ShardSet:
    """Write a healthy data set of five classes with two bad rows, but for ``changes``."""
    shards = changes.pop("shards", None) or write_shards(folder)
    share = NUM_SAMPLES // len(NAMES)
    classes = Payload(**payload(f"{folder}/classes.arrow", class_map([share] * len(NAMES))))
    storage.write_bytes(f"{folder}/quarantine.jsonl", b'{"line": 1}\n{"line": 2}\n')
    storage.write_bytes(f"{folder}/data_report.html", b"<html>")
    fields = {
        "provenance": Provenance(
            run_id="run",
            experiment="tiny",
            created_at="2026-01-01T00:00:00+00:00",
            seconds=3.5,
            config={"data_uri": "s3://somewhere/data"},
        ),
        "uri": f"{folder}/index.json",
        "layout": "records",
        "column_order": "image_label",
        "seed": 0,
        "num_samples": NUM_SAMPLES,
        "num_blank_rows": 1,
        "num_classes": len(NAMES),
        "num_empty_classes": 0,
        "images_per_class": {share: len(NAMES)},
        "classes": classes,
        "image_size": 16,
        "shards": shards,
        "quarantine": Quarantine(
            uri=f"{folder}/quarantine.jsonl", num_rows=2, reasons={"base64": 2}
        ),
        "duplicates": Duplicates(num_repeated=3, num_removed=3, num_conflicting=1),
        "left_out": LeftOut(num_classes=1, num_rows=4),
    }
    dataset = ShardSet(**fields | changes)
    dataset.write(dataset.uri)
    return dataset
