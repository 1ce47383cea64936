import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from plsc import doorway, storage
from plsc.artifacts.records import Record, to_line
from plsc.artifacts.shards import ShardReader, ShardSet
from plsc.errors import RecordError, StorageError
from plsc.preprocess.shuffle.runs import key_function
from plsc.preprocess.stage import run
from plsc.transforms import NotAnImageError, decode
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
from tests.samples import jpeg

BAD_ROWS = [
    b"one column\n",
    b"/9j/@@@@\t3\n",
    b"AAAA\t3\n",
    line(1000, 1).replace(b"\t1", b"\t-1"),
    line(1001, 1).replace(b"\t1", b"\tcat"),
]


def test_every_sample_comes_out_once_in_equal_shards_in_the_order_of_its_key(tmp_path):
    write_parts(tmp_path / "data", good_parts())
    dataset = run(settings(tmp_path))
    expected = [(image(number), number % 5) for number in range(60)]
    assert sorted(samples_of(dataset.shards)) == sorted(expected)
    assert samples_of(dataset.shards) != expected
    assert [shard.num_samples for shard in dataset.shards] == [15, 15, 15, 15]
    readers = [ShardReader(Path(shard.uri)) for shard in dataset.shards]
    keys = [bytes(key) for reader in readers for key in reader.keys]
    key_of = key_function(0)
    assert keys == sorted(key_of(sample[0]) for sample in expected)
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


@pytest.mark.parametrize("lacking", ["shard-00001.arrow", "data_report.html", "classes.arrow"])
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
    write = storage.write_bytes

    def write_while_someone_appends(uri, content, **how):
        if uri.endswith(".arrow"):
            with (data / "part-0.tsv").open("ab") as part:
                part.write(line(999, 1))
        write(uri, content, **how)

    monkeypatch.setattr(storage, "write_bytes", write_while_someone_appends)
    config = settings(tmp_path)
    with pytest.raises(RecordError, match="changed while it was read"):
        run(config)
    assert not list(Path(config.store_uri).rglob("index.json"))


def test_a_store_that_is_not_there_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="unknown scheme"):
        run(settings(tmp_path, "data_uri=ftp://somewhere/data"))


def classes_of(dataset):
    """Return the rows of the class map: (label, name, number of images)."""
    table = pa.ipc.open_file(pa.memory_map(dataset.classes.uri)).read_all()
    assert storage.sha256_of_file(Path(dataset.classes.uri)) == dataset.classes.sha256
    return [tuple(row.values()) for row in table.to_pylist()]


def test_the_class_map_lists_every_class_that_has_images(tmp_path):
    write_parts(tmp_path / "data", {"part": [line(1, 7), line(2, 3), line(3, 7)]})
    assert classes_of(run(settings(tmp_path))) == [(3, "3", 1), (7, "7", 2)]


def test_names_become_class_ids_in_sorted_order(tmp_path):
    names = ["zebra", "\u00e9t\u00e9", "apple", "Ape", "10", "9"]
    rows = [line(n, 0).replace(b"\t0", b"\t" + names[n % 6].encode()) for n in range(12)]
    write_parts(tmp_path / "data", {"part": rows})
    dataset = run(settings(tmp_path, "preprocess.labels=names"))
    in_order = sorted(names, key=str.encode)
    assert classes_of(dataset) == [(n, name, 2) for n, name in enumerate(in_order)]
    expected = [(image(n), in_order.index(names[n % 6])) for n in range(12)]
    assert sorted(samples_of(dataset.shards)) == sorted(expected)
    assert (dataset.num_classes, dataset.num_empty_classes) == (6, 0)


def test_more_names_than_classes_are_refused_and_fewer_leave_empty_ones(tmp_path):
    rows = [line(n, n).replace(b"\t%d" % n, b"\tname-%d" % n) for n in range(3)]
    write_parts(tmp_path / "data", {"part": rows})
    named = "preprocess.labels=names"
    assert run(settings(tmp_path, named, "preprocess.num_classes=5")).num_empty_classes == 2
    with pytest.raises(RecordError, match=r"at most 2 class names .* found 3"):
        run(settings(tmp_path, named, "preprocess.num_classes=2"))


def test_duplicates_are_counted_and_kept_unless_they_are_to_be_removed(tmp_path):
    rows = [line(1, 0), line(2, 0), line(1, 0), line(1, 3), line(1, 0), line(2, 0), line(3, 1)]
    write_parts(tmp_path / "data", {"part": rows})
    kept = run(settings(tmp_path))
    found = kept.duplicates
    assert (found.num_repeated, found.num_removed, found.num_conflicting) == (3, 0, 1)
    assert kept.num_samples == 7
    removed = run(settings(tmp_path, "preprocess.deduplicate=true"))
    assert removed.duplicates.num_removed == 3
    expected = [(image(1), 0), (image(1), 3), (image(2), 0), (image(3), 1)]
    assert sorted(samples_of(removed.shards)) == sorted(expected)
    assert removed.images_per_class == {0: 1, 1: 2, 2: 1}


def test_small_classes_are_left_out_and_the_others_numbered_anew(tmp_path):
    rows = [line(n, label) for n, label in enumerate([5, 2, 9, 2, 9, 9])]
    write_parts(tmp_path / "data", {"part": rows})
    dataset = run(settings(tmp_path, "preprocess.min_images_per_class=2"))
    assert classes_of(dataset) == [(0, "2", 2), (1, "9", 3)]
    assert (dataset.left_out.num_classes, dataset.left_out.num_rows) == (1, 1)
    assert (dataset.num_classes, dataset.num_samples) == (2, 5)
    assert sorted(samples_of(dataset.shards)) == sorted(
        (image(n), label) for n, label in enumerate([-1, 0, 1, 0, 1, 1]) if label >= 0
    )
    with pytest.raises(RecordError, match=r"at least 4 images .* found at most 3 in any of 3"):
        run(settings(tmp_path, "preprocess.min_images_per_class=4"))


def test_removed_duplicates_do_not_count_for_the_size_of_a_class(tmp_path):
    rows = [line(1, 0), line(1, 0), line(2, 1), line(3, 1)]
    write_parts(tmp_path / "data", {"part": rows})
    settled = ("preprocess.min_images_per_class=2", "preprocess.deduplicate=true")
    dataset = run(settings(tmp_path, *settled))
    assert classes_of(dataset) == [(0, "1", 2)]
    assert dataset.num_samples == 2


def test_a_shard_that_no_worker_can_hold_is_refused_with_both_settings(tmp_path):
    write_parts(tmp_path / "data", good_parts(num_rows=200))
    with pytest.raises(RecordError, match=r"memory_mib or lower preprocess\.samples_per_shard"):
        run(settings(tmp_path, "preprocess.memory_mib=1", "preprocess.samples_per_shard=1000"))


def test_nothing_temporary_is_left_after_success_or_failure(tmp_path):
    write_parts(tmp_path / "data", good_parts())
    config = settings(tmp_path)
    run(config)
    (tmp_path / "data" / "part-0.tsv").write_bytes(b"".join(BAD_ROWS))
    with pytest.raises(RecordError):
        run(config)
    assert not list(Path(config.store_uri).glob("datasets/*/work/**/*"))
    assert not list(Path(config.store_uri).rglob("*.part"))


def test_one_picture_that_occurs_everywhere_needs_no_memory_if_it_is_removed(tmp_path):
    rows = [line(number, 1) for number in range(40)] + [line(7, 1)] * 3000
    write_parts(tmp_path / "data", {"part": rows})
    dataset = run(settings(tmp_path, "preprocess.memory_mib=1", "preprocess.deduplicate=true"))
    assert (dataset.num_samples, dataset.duplicates.num_removed) == (40, 3000)
    kept = run(settings(tmp_path, "preprocess.memory_mib=1"))
    assert (kept.num_samples, kept.duplicates.num_repeated) == (3040, 3000)


def test_a_set_that_was_moved_or_lost_its_class_map_is_made_again(tmp_path, caplog):
    write_parts(tmp_path / "data", good_parts())
    first = run(settings(tmp_path))
    Path(first.classes.uri).write_bytes(b"cut")
    assert "is made again" not in caplog.text
    run(settings(tmp_path))
    assert "lacks classes.arrow" in caplog.text
    (tmp_path / "store").rename(tmp_path / "moved")
    second = run(settings(tmp_path, f"store_uri={tmp_path}/moved"))
    assert "was copied from elsewhere" in caplog.text
    assert Path(second.shards[0].uri).is_file()


def test_damage_that_no_header_shows_does_not_end_the_stage(tmp_path):
    whole = bytearray(jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)))
    whole[-400:-200] = bytes(200)
    write_parts(tmp_path / "data", {"part": [to_line(Record(bytes(whole), 0)), line(1, 1)]})
    config = settings(tmp_path, "image_size=64", "preprocess.max_bad_fraction=0.5")
    with pytest.raises(NotAnImageError):
        decode(bytes(whole))
    assert run(config).num_samples == 1
    checked = settings(
        tmp_path, "image_size=64", "preprocess.max_bad_fraction=1", "preprocess.check=decode"
    )
    with pytest.raises(RecordError, match="damaged_image: 1, dimensions: 1"):
        run(checked)
