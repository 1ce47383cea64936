"""Inspection: healthy data sets, and every kind of damage."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from plsc import doorway, storage
from plsc.artifacts.index import Payload
from plsc.artifacts.shards import Quarantine
from plsc.errors import ShardError, StorageError
from plsc.preprocess import data_report, inspection, inspection_text
from plsc.preprocess.inspect_command import main
from plsc.preprocess.inspection import Inspection, inspect
from plsc.preprocess.stage import run
from tests.preprocess.data_sets import (
    NUM_SAMPLES,
    NUM_SHARDS,
    PER_SHARD,
    class_map,
    keys_of,
    payload,
    write_data_set,
    write_shards,
)
from tests.preprocess.rows import good_parts, settings, write_parts


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "datasets" / "abc")


def found(inspected: Inspection) -> list[str]:
    return [f"{Path(problem.uri).name}: {problem.found}" for problem in inspected.problems]


@pytest.mark.parametrize("is_deep", [False, True])
def test_a_healthy_data_set_has_no_problem(folder, tmp_path, is_deep):
    dataset = write_data_set(folder)
    copy = str(tmp_path / "runs" / "run" / "preprocess" / "index.json")
    dataset.write(copy)
    for uri in (folder, folder + "/", dataset.uri, copy):
        inspected = inspect(uri, is_deep=is_deep)
        assert inspected.problems == []
        assert inspected.dataset == dataset
        assert inspected.num_temporary == 0


def test_what_preprocess_makes_is_healthy(tmp_path):
    parts = good_parts()
    parts["part-0.tsv"] += [b"bad\n", *parts["part-1.tsv"][:2]]
    write_parts(tmp_path / "data", parts)
    dataset = run(settings(tmp_path, "preprocess.max_bad_fraction=0.1"))
    assert len(dataset.shards) > 1
    inspected = inspect(doorway.index_uri(settings(tmp_path), "preprocess"), is_deep=True)
    assert inspected.problems == []
    assert inspected.num_temporary == 0
    assert inspected.dataset.duplicates.num_repeated == 2


@pytest.mark.services
def test_a_data_set_in_a_bucket_is_inspected_like_one_on_disk(bucket_uri, tmp_path):
    dataset = write_data_set(f"{bucket_uri}/datasets/abc")
    assert inspect(f"{bucket_uri}/datasets/abc", is_deep=True).problems == []
    storage.delete(dataset.shards[1].uri)
    assert found(inspect(dataset.uri)) == ["shard-00001.arrow: is missing"]
    sheet = f"{bucket_uri}/sheet.png"
    assert main([dataset.uri, "--sheet", sheet]) == 3
    with Image.open(io.BytesIO(storage.read_bytes(sheet))) as picture:
        assert picture.format == "PNG"


def test_files_that_are_missing_or_have_another_size_are_told(folder):
    dataset = write_data_set(folder)
    Path(dataset.shards[0].uri).unlink()
    with Path(dataset.shards[2].uri).open("ab") as shard:
        shard.write(b"more")
    Path(folder, "classes.arrow").unlink()
    Path(folder, "quarantine.jsonl").unlink()
    Path(folder, inspection.REPORT).unlink()
    size = dataset.shards[2].size_bytes
    for is_deep in (False, True):
        assert found(inspect(folder, is_deep=is_deep)) == [
            "shard-00000.arrow: is missing",
            f"shard-00002.arrow: expected {size:,} bytes, found {size + 4:,}",
            "classes.arrow: is missing",
            "data_report.html: is missing",
            "quarantine.jsonl: is missing",
        ]


def test_the_report_is_called_what_preprocess_calls_it():
    assert inspection.REPORT == data_report.NAME


def test_an_altered_shard_is_found_only_by_looking_deep(folder):
    dataset = write_data_set(folder)
    path = Path(dataset.shards[1].uri)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert inspect(folder).problems == []
    (problem,) = inspect(folder, is_deep=True).problems
    assert problem.uri == dataset.shards[1].uri
    assert "it was altered" in problem.found
    assert problem.advice.startswith(f"delete {folder} and run preprocess again")


def test_labels_outside_the_classes_are_told(folder):
    write_data_set(folder, shards=write_shards(folder, labels=[5, *range(4), *[0] * 15]))
    assert found(inspect(folder, is_deep=True)) == [
        f"shard-0000{number}.arrow: expected labels in 0..4, found 0..5" for number in range(3)
    ]


@pytest.mark.parametrize(
    ("keys", "places"),
    [
        (lambda rows: keys_of(rows)[::-1], [0, 1, 2]),
        (lambda rows: keys_of(range(99 - rows.start, 119 - rows.start)), [1, 2]),
        (lambda rows: keys_of(range(7, 7 + len(rows))) * [0, 1], [1, 2]),
    ],
)
def test_keys_that_fall_within_or_between_shards_are_told(folder, keys, places):
    write_data_set(
        folder, shards=write_shards(folder, keys=lambda rows: keys(rows).astype(np.uint64))
    )
    message = "expected keys that never fall, over all shards, found one that does"
    assert found(inspect(folder, is_deep=True)) == [
        f"shard-0000{place}.arrow: {message}" for place in places
    ]


def test_equal_keys_are_no_problem(folder):
    shards = write_shards(folder, keys=lambda rows: np.zeros((len(rows), 2), np.uint64))
    write_data_set(folder, shards=shards)
    assert inspect(folder, is_deep=True).problems == []


def test_wrong_counts_are_told(folder):
    write_data_set(
        folder,
        num_samples=NUM_SAMPLES + 1,
        quarantine=Quarantine(uri=f"{folder}/quarantine.jsonl", num_rows=3, reasons={"base64": 3}),
        images_per_class={0: 1, 15: 4},
    )
    assert found(inspect(folder)) == [
        "index.json: expected 61 samples of all shards, found 60",
        "index.json: expected 61 samples of all classes, found 60",
        "index.json: expected 0 empty classes of the histogram, found 1",
    ]
    assert found(inspect(folder, is_deep=True))[3:] == [
        "index.json: images_per_class is not what the shards hold",
        "quarantine.jsonl: expected 3 bad rows, found 2",
    ]


def test_a_shard_with_fewer_rows_than_told_is_told(folder):
    shards = write_shards(folder)
    shards[0] = shards[0].model_copy(update={"num_samples": PER_SHARD + 2})
    write_data_set(folder, shards=shards)
    assert "shard-00000.arrow: expected 22 samples, found 20" in found(
        inspect(folder, is_deep=True)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (class_map([11, 13, 12, 12, 12]), "its classes or their images are not those of"),
        (class_map([15] * 4), "its classes or their images are not those of"),
        (b"ARROW1 no more", "expected an Arrow file of classes, but"),
    ],
)
def test_a_class_map_that_does_not_fit_is_told(folder, content, message):
    dataset = write_data_set(folder)
    classes = Payload(**payload(dataset.classes.uri, content))
    dataset = dataset.model_copy(update={"classes": classes})
    dataset.write(dataset.uri)
    assert inspect(folder).problems == []
    (problem,) = inspect(folder, is_deep=True).problems
    assert problem.uri == classes.uri
    assert message in problem.found


def test_a_runs_index_whose_data_set_is_gone_says_so(folder, tmp_path):
    dataset = write_data_set(folder)
    copy = str(tmp_path / "index.json")
    dataset.write(copy)
    storage.delete_prefix(folder)
    messages = found(inspect(copy, is_deep=True))
    assert messages[0].startswith("index.json: expected the data set's own index")
    assert sum("shard-" in message for message in messages) == NUM_SHARDS


def test_temporary_objects_are_mentioned_and_no_problem(folder):
    write_data_set(folder)
    storage.write_bytes(f"{folder}/work/run/map/00000-0000.run", b"12345")
    inspected = inspect(folder, is_deep=True)
    assert (inspected.num_temporary, inspected.temporary_bytes) == (1, 5)
    assert inspected.problems == []
    text = inspection_text.to_text(inspected, is_colored=False)
    assert "1 temporary objects (5 B)" in text


def test_what_is_no_index_is_refused(folder, tmp_path):
    with pytest.raises(StorageError, match=r"expected the index of a data set, found nothing"):
        inspect(str(tmp_path / "nothing"))
    for content in (b"hello", b'{"kind": "Checkpoint", "format": 1}'):
        storage.write_bytes(f"{folder}/index.json", content)
        with pytest.raises(ShardError, match=r"expected an index of kind ShardSet"):
            inspect(folder)


def test_bad_rows_that_are_lost_are_made_again_by_deleting_the_data_set(folder):
    write_data_set(folder)
    storage.write_bytes(f"{folder}/quarantine.jsonl", b'{"line": 1}\n')
    (problem,) = inspect(folder, is_deep=True).problems
    assert problem.found == "expected 2 bad rows, found 1"
    assert f"delete {folder} and run preprocess again" in problem.advice


def arrow_file(**columns: pa.Array) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


NAMES = pa.array(["a"] * 5, pa.large_string())


@pytest.mark.parametrize(
    "columns",
    [
        {"label": ["0"] * 5, "name": NAMES, "num_images": [12] * 5},
        {"label": range(5), "name": [1] * 5, "num_images": [12] * 5},
        {"label": [0, 1, 2, 3, None], "name": NAMES, "num_images": [12] * 5},
        {"label": [0, 1, 2, 3, 4], "name": NAMES, "num_images": [12, 12, 12, 12, None]},
    ],
)
def test_a_class_map_of_other_types_or_with_nulls_is_told(folder, tmp_path, columns):
    dataset = write_data_set(folder)
    content = arrow_file(**{name: pa.array(column) for name, column in columns.items()})
    classes = Payload(**payload(dataset.classes.uri, content))
    dataset = dataset.model_copy(update={"classes": classes})
    dataset.write(dataset.uri)
    (problem,) = inspect(folder, is_deep=True).problems
    assert "expected label, name and num_images" in problem.found
    assert main([folder, "--sheet", str(tmp_path / "sheet.png")]) == 0
