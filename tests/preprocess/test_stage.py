import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from plsc import doorway, storage
from plsc.artifacts.records import Record, to_line
from plsc.artifacts.shards import ShardReader, ShardSet
from plsc.errors import RecordError, StorageError
from plsc.preprocess import inputs
from plsc.preprocess.intake import take_in
from plsc.preprocess.partition import write_shards
from plsc.preprocess.quarantine import QuarantineWriter
from plsc.preprocess.shuffle import Spool
from plsc.preprocess.stage import run
from tests.preprocess.rows import (
    digests_of,
    good_parts,
    image,
    line,
    samples_of,
    settings,
    swapped,
    write_parts,
)

CONFIG = settings(Path())
BAD_ROWS = [
    b"one column\n",
    b"/9j/@@@@\t3\n",
    b"AAAA\t3\n",
    line(1000, 1).replace(b"\t1", b"\t-1"),
    line(1001, 1).replace(b"\t1", b"\tcat"),
]


def test_every_sample_comes_out_once_in_equal_shards_of_ascending_keys(tmp_path):
    write_parts(tmp_path / "data", good_parts())
    dataset = run(settings(tmp_path))
    expected = [(image(number), number % 5) for number in range(60)]
    assert sorted(samples_of(dataset.shards)) == sorted(expected)
    assert samples_of(dataset.shards) != expected
    assert [shard.num_samples for shard in dataset.shards] == [15, 15, 15, 15]
    keys = [key for shard in dataset.shards for key in ShardReader(Path(shard.uri)).keys.tolist()]
    assert keys == sorted(set(keys))
    assert (dataset.num_samples, dataset.num_classes, dataset.num_empty_classes) == (60, 5, 0)
    assert dataset.images_per_class == {12: 5}
    assert dataset.column_order == "image_label"
    assert (dataset.quarantine.num_rows, dataset.quarantine.uri) == (0, "")


def test_the_run_and_the_data_set_each_have_an_index(tmp_path):
    write_parts(tmp_path / "data", good_parts())
    config = settings(tmp_path)
    dataset = run(config)
    assert ShardSet.read(doorway.index_uri(config, "preprocess")) == dataset
    original = ShardSet.read(dataset.uri)
    assert original.shards == dataset.shards
    assert dataset.uri.startswith(f"{config.store_uri}/datasets/")


def test_the_input_is_not_touched(tmp_path):
    data = write_parts(tmp_path / "data", good_parts())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in data.iterdir()}
    run(settings(tmp_path))
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in data.iterdir()} == before


def test_another_order_of_the_list_gives_the_same_bytes(tmp_path):
    parts = good_parts()
    write_parts(tmp_path / "data", parts)
    write_parts(tmp_path / "other", dict(reversed(parts.items())))
    first = run(settings(tmp_path))
    second = run(settings(tmp_path, data="other"))
    assert first.uri != second.uri  # local tags are times
    assert digests_of(first) == digests_of(second)


def test_another_seed_gives_another_order_of_the_same_samples(tmp_path):
    write_parts(tmp_path / "data", good_parts())
    first, second = run(settings(tmp_path)), run(settings(tmp_path, "seed=1"))
    assert samples_of(first.shards) != samples_of(second.shards)
    assert sorted(samples_of(first.shards)) == sorted(samples_of(second.shards))


def test_both_column_orders_give_the_same_samples(tmp_path):
    parts = good_parts(num_parts=2)
    parts["part-1.tsv"] = [swapped(row) for row in parts["part-1.tsv"]]
    write_parts(tmp_path / "data", parts)
    dataset = run(settings(tmp_path))
    assert dataset.column_order == "mixed"
    assert sorted(samples_of(dataset.shards)) == sorted((image(n), n % 5) for n in range(40))


def test_preprocessing_our_own_output_again_works(tmp_path):
    write_parts(tmp_path / "data", good_parts())
    first = samples_of(run(settings(tmp_path)).shards)
    write_parts(tmp_path / "again", {"part": [to_line(Record(*sample)) for sample in first]})
    again = samples_of(run(settings(tmp_path, data="again")).shards)
    assert sorted(again) == sorted(first)


def test_the_same_work_is_found_and_not_done_again(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_parts(tmp_path / "data", good_parts())
    first = run(settings(tmp_path, run_id="first"))
    times = {shard.uri: Path(shard.uri).stat().st_mtime_ns for shard in first.shards}
    second = run(settings(tmp_path, run_id="second"))
    assert "nothing to do" in caplog.text
    assert times == {uri: Path(uri).stat().st_mtime_ns for uri in times}
    assert second == first.model_copy(update={"provenance": second.provenance})
    assert second.provenance.run_id == "second"
    assert ShardSet.read(first.uri).provenance.run_id == "first"


@pytest.mark.parametrize("lacking", ["shard-00001.arrow", "data_report.html"])
def test_a_data_set_that_lacks_a_file_is_made_again(tmp_path, caplog, lacking):
    write_parts(tmp_path / "data", good_parts())
    first = run(settings(tmp_path))
    (Path(first.uri).parent / lacking).unlink()
    second = run(settings(tmp_path))
    assert "is made again" in caplog.text
    assert lacking in caplog.text
    assert (Path(first.uri).parent / lacking).is_file()
    assert digests_of(first) == digests_of(second)


def test_a_damaged_index_is_made_again(tmp_path, caplog):
    write_parts(tmp_path / "data", good_parts())
    first = run(settings(tmp_path))
    Path(first.uri).write_bytes(b"{")
    assert digests_of(run(settings(tmp_path))) == digests_of(first)
    assert "is made again" in caplog.text


def test_bad_rows_are_quarantined_with_place_and_reason_and_the_rest_is_kept(tmp_path):
    parts = good_parts()
    parts["part-1.tsv"][2:2] = BAD_ROWS
    parts["part-1.tsv"][5:5] = [b"\n", b"  \t \n"]
    write_parts(tmp_path / "data", parts)
    dataset = run(settings(tmp_path, "preprocess.max_bad_fraction=0.1"))
    assert sorted(samples_of(dataset.shards)) == sorted((image(n), n % 5) for n in range(60))
    assert dataset.num_blank_rows == 2
    assert dataset.quarantine.reasons == {
        "base64": 1,
        "columns": 1,
        "label_negative": 1,
        "label_not_an_integer": 1,
        "not_an_image": 1,
    }
    lines = storage.read_bytes(dataset.quarantine.uri).decode().splitlines()
    entries = [json.loads(one) for one in lines]
    assert [entry["line"] for entry in entries] == [3, 4, 5, 8, 9]
    assert entries[0]["uri"] == str(tmp_path / "data" / "part-1.tsv")
    assert entries[1]["row"] == "/9j/@@@@\t3"
    assert all(len(entry["row"]) <= 120 for entry in entries)


def test_too_many_bad_rows_fail_but_leave_the_quarantine_and_no_index(tmp_path):
    parts = good_parts()
    parts["part-0.tsv"] += BAD_ROWS
    write_parts(tmp_path / "data", parts)
    config = settings(tmp_path)
    with pytest.raises(RecordError) as caught:
        run(config)
    assert caught.value.exit_code == 3
    message = str(caught.value)
    assert "5 bad of 65 (7.69%; base64: 1, columns: 1," in message
    (quarantine,) = Path(config.store_uri).glob("datasets/*/quarantine.jsonl")
    assert str(quarantine) in message
    assert len(quarantine.read_text().splitlines()) == 5
    assert not list(Path(config.store_uri).rglob("index.json"))


def test_labels_at_or_above_the_number_of_classes_are_bad_rows(tmp_path):
    write_parts(tmp_path / "data", good_parts())
    dataset = run(settings(tmp_path, "preprocess.num_classes=4", "preprocess.max_bad_fraction=0.2"))
    assert dataset.num_classes == 4
    assert dataset.quarantine.reasons == {"label_too_large": 12}


def test_classes_without_images_are_counted_and_many_of_them_warned_of(tmp_path, caplog):
    write_parts(tmp_path / "data", {"part": [line(1, 0), line(2, 10**15), line(3, 0)]})
    dataset = run(settings(tmp_path))
    assert dataset.num_classes == 10**15 + 1
    assert dataset.num_empty_classes == 10**15 - 1
    assert dataset.images_per_class == {0: 10**15 - 1, 1: 1, 2: 1}
    assert "have no image: is a label wrong" in caplog.text


def test_an_empty_part_is_warned_of_and_the_rest_is_kept(tmp_path, caplog):
    write_parts(tmp_path / "data", good_parts() | {"empty.tsv": [], "blank.tsv": [b"\n \n"]})
    assert run(settings(tmp_path)).num_samples == 60
    for part in ("empty.tsv", "blank.tsv"):
        assert f"{part}: the part is empty" in caplog.text


@pytest.mark.parametrize("rows", [[], [b"\n\n"]])
def test_nothing_but_empty_parts_is_an_error(tmp_path, rows):
    write_parts(tmp_path / "data", {"part": rows})
    with pytest.raises(RecordError, match="every part is empty"):
        run(settings(tmp_path))


def test_nothing_but_bad_rows_is_an_error_whatever_the_fraction(tmp_path):
    write_parts(tmp_path / "data", {"part": BAD_ROWS})
    with pytest.raises(RecordError, match="found 5 bad of 5"):
        run(settings(tmp_path, "preprocess.max_bad_fraction=1"))


def test_one_row_for_many_samples_per_shard_and_quotes_do_no_harm(tmp_path):
    write_parts(tmp_path / "data", {'it\'s "quoted".tsv': [line(1, 0).rstrip(b"\n")]})
    assert samples_of(run(settings(tmp_path)).shards) == [(image(1), 0)]


def test_an_input_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    data = write_parts(tmp_path / "data", good_parts())
    upload = storage.upload

    def upload_while_someone_appends(path, uri):
        with (data / "part-0.tsv").open("ab") as part:
            part.write(line(999, 1))
        upload(path, uri)

    monkeypatch.setattr(storage, "upload", upload_while_someone_appends)
    config = settings(tmp_path)
    with pytest.raises(RecordError, match="changed while it was read"):
        run(config)
    assert not list(Path(config.store_uri).rglob("index.json"))


rows = st.one_of(
    st.builds(line, st.integers(0, 40), st.integers(0, 6)),
    st.builds(lambda n, c: swapped(line(n, c)), st.integers(0, 40), st.integers(0, 6)),
    st.sampled_from([*BAD_ROWS, b"\n", b"\r\n", b"   \n", b"\t\n"]),
    st.binary(max_size=20).map(lambda content: content + b"\n"),
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(rows, max_size=12), min_size=1, max_size=4), st.integers(1, 9))
def test_no_row_is_lost_or_doubled(tmp_path_factory, parts, samples_per_shard):
    folder = tmp_path_factory.mktemp("rows")
    contents = {f"part-{n}": b"".join([*part, line(n, n)]) for n, part in enumerate(parts)}
    write_parts(folder, {name: [content] for name, content in contents.items()})
    with (
        Spool(folder, seed=1) as spool,
        QuarantineWriter(folder / "quarantine.jsonl") as quarantine,
    ):
        counts = take_in(inputs.find(str(folder)), CONFIG, spool=spool, quarantine=quarantine)
        shards = write_shards(
            spool.shuffled(),
            samples_per_shard=samples_per_shard,
            folder_uri=f"{folder}/store",
            scratch=folder,
        )
    good = {line(n, c): (image(n), c) for n in range(41) for c in range(7)}
    good |= {swapped(row): sample for row, sample in good.items()}
    all_rows = [row for content in contents.values() for row in content.splitlines(keepends=True)]
    assert Counter(samples_of(shards)) == Counter(good[row] for row in all_rows if row in good)
    num_lines = sum(content.count(b"\n") for content in contents.values())
    assert counts.num_samples + counts.num_bad + counts.num_blank == num_lines
    assert counts.num_bad == len((folder / "quarantine.jsonl").read_text().splitlines())
    assert {shard.num_samples for shard in shards} <= {
        counts.num_samples // len(shards),
        -(-counts.num_samples // len(shards)),
    }


def python(program, *arguments, **environment):
    """Run a program that is to die or find no room: coverage could not write its file there."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_stage_killed_before_its_index_leaves_none_and_the_next_run_gives_the_same(tmp_path):
    write_parts(tmp_path / "data", good_parts())
    config = settings(tmp_path)
    killed = python(
        """
import os, signal, sys
from pathlib import Path
from plsc import storage
from plsc.preprocess.stage import run
from tests.preprocess.rows import settings
write = storage.write_bytes
def write_or_die(uri, content):
    if uri.endswith("index.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    write(uri, content)
storage.write_bytes = write_or_die
run(settings(Path(sys.argv[1])))
""",
        tmp_path,
        TMPDIR=str(tmp_path),
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = Path(config.store_uri)
    left = {path: path.read_bytes() for path in store.rglob("*.arrow")}
    assert len(left) == 4
    assert not list(store.rglob("index.json"))
    dataset = run(config)
    assert {path: path.read_bytes() for path in store.rglob("*.arrow")} == left
    assert dataset.num_samples == 60


@pytest.mark.parametrize("limit_bytes", [2_000, 30_000])
def test_a_full_disk_is_a_storage_error_and_leaves_nothing_half_done(tmp_path, limit_bytes):
    """The smaller limit stops the spool, the larger one a shard."""
    write_parts(tmp_path / "data", good_parts())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    full = python(
        """
import resource, sys
from pathlib import Path
from plsc.errors import StorageError
from plsc.preprocess.stage import run
from tests.preprocess.rows import settings
config = settings(Path(sys.argv[1]), "preprocess.samples_per_shard=1000")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    run(config)
except StorageError as error:
    sys.exit(str(error))
""",
        tmp_path,
        limit_bytes,
        TMPDIR=str(scratch),
    )
    assert full.returncode == 1, full.stderr
    assert "TMPDIR" in full.stderr
    assert "File too large" in full.stderr
    assert list(scratch.iterdir()) == []
    assert not list((tmp_path / "store").rglob("*.*"))


def test_a_store_that_is_not_there_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="unknown scheme"):
        run(settings(tmp_path, "data_uri=ftp://somewhere/data"))
