"""Runs and their tables: the same samples, sorted, from memory that is set aside once."""

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from plsc.errors import RecordError, ShardError
from plsc.preprocess.shuffle.runs import HEAD, SAMPLE_BYTES, Run, RunBuffer, key_function, samples
from plsc.preprocess.shuffle.tables import Tables

KEY_OF = key_function(7)

some_samples = st.lists(
    st.tuples(st.binary(min_size=1, max_size=40), st.integers(-(2**63), 2**63 - 1)), max_size=40
)


def filled(given_samples, capacity_bytes=1 << 20):
    buffer = RunBuffer(memoryview(bytearray(2 * capacity_bytes)))
    for image, label in given_samples:
        buffer.append(KEY_OF(image), label, image)
    return buffer


def expected_order(given_samples):
    return sorted((KEY_OF(image), label, image) for image, label in given_samples)


def test_a_key_is_the_beginning_of_a_digest_of_seed_and_image():
    digest = hashlib.sha256(b"plsc sample key, seed 7\0" + b"image").digest()
    assert KEY_OF(b"image") == digest[:16]
    assert key_function(8)(b"image") != digest[:16]


@given(some_samples)
def test_a_run_holds_its_samples_sorted_and_once_more_as_a_table(given_samples):
    content, num_samples, table_start, _ = filled(given_samples).take()
    assert num_samples == len(given_samples)
    found = [(key, label, bytes(image)) for key, label, image in samples(content[:table_start], "")]
    assert found == expected_order(given_samples)
    table = np.frombuffer(content[table_start:], HEAD)
    assert table["label"].tolist() == [label for _, label, _ in found]
    assert table["size_bytes"].tolist() == [len(image) for _, _, image in found]
    halves = zip(table["high"].tolist(), table["low"].tolist(), strict=True)
    keys = [high.to_bytes(8, "big") + low.to_bytes(8, "big") for high, low in halves]
    assert keys == [key for key, _, _ in found]


def test_a_buffer_is_empty_again_when_its_run_was_taken():
    buffer = filled([(b"first", 1)])
    assert buffer.take().num_samples == 1
    assert len(buffer) == 0
    buffer.append(KEY_OF(b"second"), 2, b"second")
    ((_, label, image),) = samples(buffer.take().content[: HEAD.itemsize + 6], "")
    assert (label, bytes(image)) == (2, b"second")


def test_a_buffer_says_when_it_is_full_and_refuses_what_can_never_fit():
    buffer = RunBuffer(memoryview(bytearray(2 * 4096)))
    assert buffer.has_room(bytes(4096 - SAMPLE_BYTES))
    assert not buffer.has_room(bytes(4097 - SAMPLE_BYTES))
    with pytest.raises(RecordError, match=r"4096 bytes does not fit.*raise preprocess.memory_mib"):
        buffer.append(KEY_OF(b""), 0, bytes(4096))
    buffer.append(KEY_OF(b"x"), 0, b"x")
    assert not buffer.has_room(bytes(3700)), "a sample costs memory besides its image"


@given(some_samples)
def test_equal_samples_are_in_a_run_once_if_they_are_to_be(given_samples):
    doubled = [*given_samples, *given_samples[::2]]
    run = filled(doubled).take(deduplicate=True)
    kept = samples(run.content[: run.table_start], "")
    found = [(key, label, bytes(image)) for key, label, image in kept]
    assert found == sorted(set(expected_order(given_samples)))
    assert run.num_samples + run.num_repeated == len(doubled)


def test_a_part_of_a_run_that_is_cut_off_is_named():
    content, _, table_start, _ = filled([(b"image", 1), (b"other", 2)]).take()
    with pytest.raises(ShardError, match="s3://b/run: expected whole samples"):
        list(samples(content[: table_start - 1], "s3://b/run"))


@hypothesis_settings(deadline=None, max_examples=40)
@given(st.lists(some_samples, min_size=1, max_size=5), st.integers(1, 30))
def test_tables_of_many_runs_give_all_rows_in_order_slice_by_slice(
    tmp_path_factory, given_runs, slice_rows
):
    folder = tmp_path_factory.mktemp("tables")
    runs = []
    for number, given_samples in enumerate(given_runs):
        content, _, table_start, _ = filled(given_samples).take()
        (folder / f"{number}.run").write_bytes(content)
        runs.append(
            Run(
                uri=str(folder / f"{number}.run"),
                num_samples=len(given_samples),
                table_start=table_start,
            )
        )
    with Tables(runs, folder, slice_rows=slice_rows) as tables:
        slices = list(tables.slices())
    found = [
        (high.to_bytes(8, "big") + low.to_bytes(8, "big"), label, size)
        for rows in slices
        for high, low, label, size in zip(
            *(column.tolist() for column in (rows.high, rows.low, rows.labels, rows.sizes)),
            strict=True,
        )
    ]
    everything = expected_order([sample for one in given_runs for sample in one])
    assert found == [(key, label, len(image)) for key, label, image in everything]
    for number, given_samples in enumerate(given_runs):
        assert sum((rows.runs == number).sum() for rows in slices) == len(given_samples)
    assert not (folder / "tables").exists()


def test_slices_hold_no_more_than_they_should(tmp_path):
    generator = random.Random(0)
    given_samples = [(generator.randbytes(8), 0) for _ in range(4000)]
    content, _, table_start, _ = filled(given_samples, capacity_bytes=4 << 20).take()
    (tmp_path / "one.run").write_bytes(content)
    run = Run(uri=str(tmp_path / "one.run"), num_samples=4000, table_start=table_start)
    with Tables([run], tmp_path, slice_rows=500) as tables:
        sizes = [len(rows.runs) for rows in tables.slices()]
    assert sum(sizes) == 4000
    assert max(sizes) < 600
