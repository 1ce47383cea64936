"""The same input gives the same bytes, whoever reads it in what pieces; and every row counts."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from plsc.artifacts.shards import ShardSet
from plsc.errors import RecordError
from plsc.preprocess.shuffle import planning
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

BAD_ROWS = [b"one column\n", b"/9j/@@@@\t3\n", b"AAAA\t3\n", b"\t\n"]

rows = st.one_of(
    st.builds(line, st.integers(0, 40), st.integers(0, 6)),
    st.builds(lambda n, c: swapped(line(n, c)), st.integers(0, 40), st.integers(0, 6)),
    st.sampled_from([*BAD_ROWS, b"\n", b"\r\n", b"   \n"]),
    st.binary(max_size=20).map(lambda content: content + b"\n"),
)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    parts=st.lists(st.lists(rows, max_size=12), min_size=1, max_size=4),
    samples_per_shard=st.integers(1, 9),
    item_bytes=st.integers(50, 5000),
    is_deduplicated=st.booleans(),
)
def test_no_row_is_lost_or_doubled(
    tmp_path_factory, monkeypatch, parts, samples_per_shard, item_bytes, is_deduplicated
):
    folder = tmp_path_factory.mktemp("rows")
    monkeypatch.setattr(planning, "_SMALLEST_ITEM_BYTES", item_bytes)
    contents = {f"part-{n}": b"".join([*part, line(n, n)]) for n, part in enumerate(parts)}
    write_parts(folder / "data", {name: [content] for name, content in contents.items()})
    dataset = run(
        settings(
            folder,
            f"preprocess.samples_per_shard={samples_per_shard}",
            f"preprocess.deduplicate={is_deduplicated}",
            "preprocess.max_bad_fraction=1",
        )
    )
    good = {line(n, c): (image(n), c) for n in range(41) for c in range(7)}
    good |= {swapped(row): sample for row, sample in good.items()}
    all_rows = [row for content in contents.values() for row in content.splitlines(keepends=True)]
    expected = Counter(good[row] for row in all_rows if row in good)
    found = Counter(samples_of(dataset.shards))
    assert found == (Counter(set(expected)) if is_deduplicated else expected)
    assert dataset.duplicates.num_repeated == expected.total() - len(expected)
    num_lines = sum(content.count(b"\n") for content in contents.values())
    num_rows = found.total() + dataset.duplicates.num_removed
    assert num_rows + dataset.quarantine.num_rows + dataset.num_blank_rows == num_lines
    sizes = {shard.num_samples for shard in dataset.shards}
    assert max(sizes) <= samples_per_shard
    assert max(sizes) - min(sizes) <= 1


def with_noise(num_rows: int) -> dict[str, list[bytes]]:
    """Return parts with good, repeated, conflicting, bad and blank rows."""
    parts = good_parts(num_parts=3, num_rows=num_rows)
    parts["part-0.tsv"] += [*BAD_ROWS, b"\n", *parts["part-1.tsv"][:40]]
    parts["part-2.tsv"][3:3] = [line(n, 77) for n in range(30)]
    return parts


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[Path, ShardSet]:
    folder = tmp_path_factory.mktemp("reference")
    write_parts(folder / "data", with_noise(400))
    return folder, run(settings(folder))


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("item_bytes", [3_000, 200_000])
def test_workers_and_items_do_not_change_a_byte(
    reference, tmp_path, monkeypatch, workers, item_bytes
):
    folder, expected = reference
    monkeypatch.setattr(planning, "_SMALLEST_ITEM_BYTES", item_bytes)
    (tmp_path / "data").symlink_to(folder / "data")
    dataset = run(settings(tmp_path, f"preprocess.workers={workers}"))
    assert digests_of(dataset) == digests_of(expected)
    assert dataset.classes.sha256 == expected.classes.sha256
    assert dataset.duplicates == expected.duplicates
    assert dataset.quarantine.reasons == expected.quarantine.reasons
    first, second = (Path(found.quarantine.uri).read_text() for found in (dataset, expected))
    assert first.replace(str(tmp_path), "") == second.replace(str(folder), "")


def test_little_memory_makes_many_runs_and_tasks_and_the_same_bytes(
    reference, tmp_path, monkeypatch
):
    folder, expected = reference
    (tmp_path / "data").symlink_to(folder / "data")
    planned = []
    begin = planning.begin
    monkeypatch.setattr(
        planning, "begin", lambda *given: planned.append(begin(*given)) or planned[0]
    )
    dataset = run(settings(tmp_path, "preprocess.memory_mib=1"))
    assert len(planned[0][1]) > 1
    assert digests_of(dataset) == digests_of(expected)


def test_the_same_settings_name_the_same_folder_whatever_the_workers(reference):
    folder, expected = reference
    again = run(settings(folder, "preprocess.workers=3", "preprocess.memory_mib=64"))
    assert again.uri == expected.uri


@pytest.mark.parametrize("bad_per_1000", [1, 10, 600])
def test_a_share_of_bad_rows_is_counted_exactly_and_judged(tmp_path, bad_per_1000):
    num_bad = 2 * bad_per_1000
    good = [line(n, n % 5) for n in range(2000 - num_bad)]
    kinds = [*BAD_ROWS[:3], line(1, 0).replace(b"\t0", b"\t99999999999999999999")]
    bad = [kinds[n % 4] for n in range(num_bad)]
    mixed = [row for n in range(20) for row in (*good[n::20], *bad[n::20])]
    write_parts(tmp_path / "data", {"part": mixed})
    fraction = bad_per_1000 / 1000
    dataset = run(settings(tmp_path, f"preprocess.max_bad_fraction={fraction}"))
    assert dataset.quarantine.num_rows == num_bad
    assert sorted(samples_of(dataset.shards)) == sorted(
        (image(n), n % 5) for n in range(2000 - num_bad)
    )
    with pytest.raises(RecordError, match=f"found {num_bad} bad of 2000"):
        run(settings(tmp_path, f"preprocess.max_bad_fraction={fraction * 0.9}"))
