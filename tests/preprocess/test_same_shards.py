"""The same images give the same shards, in whatever layout they come."""

import gzip

import pyarrow as pa
import pytest

from plsc.artifacts.records import Record, to_line
from plsc.preprocess.stage import run
from tests.preprocess.layouts import (
    samples,
    table_of,
    tar_files,
    tar_of,
    write_label_txt,
    write_rec,
    write_table,
)
from tests.preprocess.rows import digests_of, samples_of, settings, swapped, write_parts

SAMPLES = samples(100, 7)


def base64_parts(folder):
    rows = [to_line(Record(image, label)) for image, label in SAMPLES]
    return write_parts(folder, {"a": rows[:30], "b": rows[30:]})


def compressed_parts(folder):
    rows = [swapped(to_line(Record(image, label))) for image, label in SAMPLES]
    folder = write_parts(folder, {"b.gz": [gzip.compress(b"".join(rows[::-1]))]})
    with pa.CompressedOutputStream(str(folder / "a.zst"), "zstd") as part:
        part.write(b"".join(rows[:50]))
    (folder / "b.gz").write_bytes(gzip.compress(b"".join(rows[:49:-1])))
    (folder / "file_list.txt").write_text("b.gz\na.zst\n")
    return folder


def tars(folder):
    folder.mkdir(parents=True)
    for number in range(2):
        (folder / f"{number}.tar").write_bytes(tar_of(tar_files(SAMPLES[number::2])))
    return folder


LAYOUTS = {
    "label.txt": lambda folder: write_label_txt(folder, SAMPLES),
    "rec": lambda folder: write_rec(folder, SAMPLES, identities=3),
    "rec without an index": lambda folder: write_rec(folder, SAMPLES, has_index=False),
    "parquet": lambda folder: write_table(folder / "x.parquet", table_of(SAMPLES)),
    "arrow": lambda folder: write_table(folder / "x.arrow", table_of(SAMPLES, is_struct=True)),
    "tar": tars,
    "gzip and zstd": compressed_parts,
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base64")
    base64_parts(folder / "data")
    dataset = run(settings(folder))
    assert sorted(samples_of(dataset.shards)) == sorted(SAMPLES)
    return dataset


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_shards_of_base64_parts(tmp_path, expected, layout):
    LAYOUTS[layout](tmp_path / "data")
    dataset = run(settings(tmp_path))
    assert digests_of(dataset) == digests_of(expected)
    assert dataset.classes.sha256 == expected.classes.sha256
    assert dataset.quarantine.num_rows == 0
