"""The benchmark of preprocess: its input, its references, and its lines."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pybase64
import pytest

from benchmarks.base64_parts import IMAGE_SIZE, Parts, check_room, write_parts
from benchmarks.observing import observe
from benchmarks.preprocess import compare, main, table
from benchmarks.preprocess_variants import VARIANTS, copy_decoded
from benchmarks.sqlite_seed import shuffle
from plsc.transforms import decode

PARTS = Parts(rows=320, image_bytes=3000, num_parts=3)
KEYS = {
    "variant",
    "rows",
    "rows_per_s",
    "wall_seconds",
    "wall_seconds_median",
    "cpu_seconds",
    "cpu_us_per_row",
    "process_seconds",
    "peak_rss_bytes",
    "worker_peak_rss_bytes",
    "total_peak_rss_bytes",
    "disk_peak_bytes",
}
MIB = 2**20


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder, PARTS)
    return folder


def rows_of(paths: list[Path]) -> Counter[tuple[bytes, int]]:
    rows: Counter[tuple[bytes, int]] = Counter()
    for path in paths:
        for line in path.read_bytes().splitlines():
            image, label = line.split(b"\t")
            rows[pybase64.b64decode(image, validate=True), int(label)] += 1
    return rows


def test_the_input_is_real_jpegs_that_all_differ(data):
    rows = rows_of(sorted(data.glob("part-*.tsv")))
    assert (data / "file_list.txt").read_text().split() == [
        path.name for path in sorted(data.glob("part-*.tsv"))
    ]
    images = [image for image, _ in rows]
    assert len(set(images)) == rows.total() == PARTS.rows
    assert sum(map(len, images)) / len(images) == pytest.approx(PARTS.image_bytes, rel=0.1)
    assert {label for _, label in rows} == set(range(PARTS.classes))
    for image in images[::40]:
        assert decode(image).shape == (IMAGE_SIZE, IMAGE_SIZE, 3)


def test_the_same_arguments_give_the_same_bytes(data, tmp_path):
    paths = write_parts(tmp_path, PARTS)
    again = [hashlib.sha256(path.read_bytes()).digest() for path in paths]
    first = [hashlib.sha256((data / path.name).read_bytes()).digest() for path in paths]
    assert again == first
    other = write_parts(tmp_path, PARTS, seed=1)
    assert hashlib.sha256(other[0].read_bytes()).digest() != first[0]


@pytest.mark.parametrize("is_mended", [False, True])
def test_the_sqlite_shuffle_keeps_every_row_in_another_order(data, tmp_path, is_mended):
    given = rows_of(sorted(data.glob("part-*.tsv")))
    assert shuffle(data, tmp_path, is_mended=is_mended) == PARTS.rows
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == [f"base64_rank_{rank}" for rank in range(8)]
    assert rows_of(files) == given
    assert list(rows_of(files)) != list(given)
    assert sorted(path.name for path in data.iterdir()) == [
        "file_list.txt",
        *(f"part-00{number}.tsv" for number in range(3)),
    ]


def test_both_forms_of_the_sqlite_shuffle_write_the_same_and_fill_the_last_file(data, tmp_path):
    for is_mended in (False, True):
        folder = tmp_path / str(is_mended)
        assert shuffle(data, folder, is_mended=is_mended, num_ranks=7) == 322
    rows = rows_of(sorted((tmp_path / "False").iterdir()))
    assert rows == rows_of(sorted((tmp_path / "True").iterdir()))
    assert rows.keys() == rows_of(sorted(data.glob("part-*.tsv"))).keys()
    assert sorted(rows.values()) == [1] * 318 + [2] * 2


def test_the_floor_writes_every_image(data, tmp_path):
    assert copy_decoded(data, tmp_path) == PARTS.rows
    parts = sorted(data.glob("part-*.tsv"))
    images = b"".join(image for path in parts for image, _ in rows_of([path]))
    assert (tmp_path / "images").read_bytes() == images


def test_too_little_room_is_said_beforehand(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"GB are needed below .*, .* GB are free: give another"):
        check_room(tmp_path, 10**18)
    assert main(["--rows", str(10**12), "--folder", str(tmp_path)]) == 1
    assert "GB are free" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_memory_is_that_of_the_command_and_of_the_processes_that_it_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "hungry.py").write_text(
        "import subprocess, sys, time\n"
        "held = bytes(range(256)) * 4096 * int(sys.argv[1])\n"
        "if sys.argv[2:]: subprocess.run([sys.executable, '-m', 'hungry', *sys.argv[2:]])\n"
        "time.sleep(0.4)\n"
        "print('{\"size\": %d}' % len(held))\n"
    )
    found = observe("hungry", ["40", "90"], folder=tmp_path)
    assert found.said == {"size": 40 * MIB}
    assert 40 * MIB < found.first_peak_bytes < 70 * MIB
    assert 90 * MIB < found.child_peak_bytes < 120 * MIB
    assert 130 * MIB < found.total_peak_bytes < 190 * MIB
    assert found.process_seconds > 0.8
    assert observe("hungry", ["1"], folder=tmp_path).child_peak_bytes == 0
    with pytest.raises(RuntimeError, match="hungry wrong ended with exit code 1"):
        observe("hungry", ["wrong"], folder=tmp_path)


def test_ratios_stand_in_the_last_line_beside_their_targets():
    lines = [
        {"variant": "floor_copy_decode", "wall_seconds": 1.0, "cpu_seconds": 0.5},
        {"variant": "sqlite_seed", "wall_seconds": 40.0, "cpu_seconds": 30.0},
        {"variant": "ours", "wall_seconds": 2.0, "cpu_seconds": 3.0},
    ]
    *others, last = compare(lines)
    assert others == lines[:-1]
    assert last["ratios"] == {
        "ours_over_floor_copy_decode_wall": 2.0,
        "ours_over_floor_copy_decode_cpu": 6.0,
        "sqlite_seed_over_ours_wall": 20.0,
        "sqlite_seed_over_ours_cpu": 10.0,
    }
    assert last["targets"] == {
        "ours_over_floor_copy_decode_wall": "<= 4",
        "sqlite_seed_over_ours_wall": ">= 10",
        "sqlite_seed_over_ours_cpu": ">= 10",
    }
    assert compare(lines[:2]) == lines[:2]


def test_an_unknown_variant_and_too_few_rows_are_refused(capsys):
    for given in (["--variants", "ours,theirs"], ["--variants", ""], ["--rows", "3"]):
        with pytest.raises(SystemExit):
            main(given)
    assert "no such variant: theirs; there are floor_copy_decode" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_prints_a_line_for_each_variant_and_a_table(tmp_path, capfd):
    assert main(["--rows", "300", "--rounds", "1", "--folder", str(tmp_path)]) == 0
    printed = capfd.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["variant"] for line in lines] == list(VARIANTS)
    for line in lines:
        assert line.keys() >= KEYS
        assert line["rows"] == 300
        assert line["cpu_seconds"] > 0
        assert line["peak_rss_bytes"] >= line["worker_peak_rss_bytes"] > 5 * MIB
    assert lines[-1]["ratios"].keys() > lines[-1]["targets"].keys() > set()
    assert table(lines) in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_scaling_prints_a_line_for_each_size_and_how_cost_grows(tmp_path, capfd):
    given = ["--scaling", "400,200", "--rounds", "1", "--folder", str(tmp_path)]
    assert main([*given, "--samples-per-shard", "64"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(line["variant"], line["rows"]) for line in lines] == [("ours", 200), ("ours", 400)]
    assert lines[-1]["ratios"].keys() == lines[-1]["targets"].keys()
    assert "cpu_per_row_growth" in lines[-1]["ratios"]


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.usefixtures("object_store")
def test_ours_can_be_measured_on_a_server_of_its_own(tmp_path, capfd):
    given = ["--rows", "200", "--rounds", "1", "--s3", "--skip-sqlite", "--folder", str(tmp_path)]
    assert main(given) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [line["variant"] for line in lines] == ["floor_copy_decode", "ours"]
    assert list(tmp_path.iterdir()) == []
