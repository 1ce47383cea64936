import base64
import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from plsc.datasets.fonts import read_claims
from plsc.datasets.large import build_large, count_large
from plsc.datasets.plan import Plan, PlannedClass, cut_into_parts
from plsc.datasets.recipes import LARGE
from plsc.errors import ConfigError
from plsc.transforms import decode
from plsc.verification import measure, pixel_embeddings, read_benchmark
from tests.datasets.typefaces import (
    IDEOGRAPHS,
    cut_bundled,
    rectangles,
    without_names,
    write_font,
)

SMALL = replace(
    LARGE, image_size=32, num_held_out=30, images_per_face=2, num_pairs=120, folds=3, num_parts=5
)


@pytest.fixture(scope="module")
def fonts(tmp_path_factory):
    folder = cut_bundled(tmp_path_factory.mktemp("fonts"))
    (folder / "broken.ttf").write_bytes(b"\0\1\0\0 not a font")
    return folder


@pytest.fixture(scope="module")
def made(fonts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    build_large(fonts, SMALL, str(folder), processes=1)
    return folder


def files_of(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows_of(folder):
    names = (folder / "file_list.txt").read_text().splitlines()
    rows = [line.split("\t") for name in names for line in (folder / name).read_text().splitlines()]
    return [(base64.b64decode(image, validate=True), int(label)) for image, label in rows]


def run(*arguments, **options):
    command = [sys.executable, "-m", "plsc.datasets.glyphs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_every_class_is_shown_by_each_of_its_faces_as_often_as_asked(made):
    rows = rows_of(made)
    classes = json.loads((made / "classes.json").read_text())
    told = json.loads((made / "fonts.json").read_text())
    counts = np.bincount([label for _, label in rows])
    assert len(counts) == len(classes) > 40
    assert set(counts.tolist()) <= {4, 6, 8}, "two pictures for each of two to four faces"
    assert counts.sum() == 2 * sum(face["classes"] for face in told["faces"])
    assert told["skipped"] == ["broken.ttf"]
    assert len({image for image, _ in rows}) == len(rows)
    assert {decode(image).shape for image, _ in rows} == {(32, 32, 3)}
    assert [label for _, label in rows] == sorted(label for _, label in rows)


def test_names_of_files_may_be_any_bytes(tmp_path, caplog):
    folder = cut_bundled(tmp_path / "fonts", ("DejaVuSans", "DejaVuSerif", "STIXGeneral"))
    nameless = without_names(folder / "DejaVuSerif.ttf")
    nameless.rename(folder / os.fsdecode(b"no \xff name.ttf"))
    (folder / "DejaVuSans.ttf").rename(folder / os.fsdecode(b"\xfe.ttf"))
    (folder / os.fsdecode(b"junk \xff.ttf")).write_bytes(b"no font")
    recipe = replace(SMALL, max_classes=3, num_held_out=0, images_per_class=1)
    build_large(folder, recipe, str(tmp_path / "out"), processes=1)
    told = json.loads((tmp_path / "out" / "fonts.json").read_bytes().decode())
    assert told["skipped"] == ["junk \ufffd.ttf"]
    assert {(face["file"], face["family"]) for face in told["faces"]} == {
        ("no \ufffd name.ttf", "no-name"),
        ("\ufffd.ttf", "DejaVu-Sans"),
        ("STIXGeneral.ttf", "STIXGeneral"),
    }
    assert len(rows_of(tmp_path / "out")) == 3
    assert caplog.text.encode()


def test_a_font_without_any_name_is_called_by_its_digest(tmp_path):
    path = write_font(tmp_path / os.fsdecode(b"\xff.ttf"), {"A": rectangles("A")})
    (claim,) = read_claims(without_names(path), "0123456789abcdef")
    assert (claim.face.name, claim.face.family) == ("01234567@01234567", "01234567")


def test_look_alikes_of_other_scripts_are_one_class(made):
    shown = set(json.loads((made / "classes.json").read_text()).values())
    held_out = {chr(int(path.name[2:6], 16)) for path in (made / "samples").iterdir()}
    assert held_out.isdisjoint(shown)
    assert not shown & set("\u0410\u0412\u0415\u041c\u041d\u041e")


@pytest.mark.parametrize("name", ["glyph_cross", "glyph_slant", "glyph_rough"])
def test_the_benchmarks_beat_chance_but_are_not_solved_by_raw_pixels(made, name):
    benchmark = read_benchmark(str(made), name)
    assert benchmark.num_pairs == SMALL.num_pairs
    rows = pixel_embeddings(benchmark.images, image_size=32)
    measured = measure(rows, benchmark.is_same, folds=3, far_targets=[0.1])
    assert 0.5 < measured.accuracy < 0.95


def test_the_bytes_depend_neither_on_processes_nor_on_where_the_fonts_lie(made, fonts, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    for path in fonts.iterdir():
        (elsewhere / path.name).write_bytes(path.read_bytes())
    build_large(elsewhere.parent, SMALL, str(tmp_path / "out"), processes=2)
    assert files_of(tmp_path / "out") == files_of(made)


def test_a_killed_run_leaves_no_file_list_and_the_next_one_ends_with_the_same_bytes(
    fonts, tmp_path
):
    options = ["--fonts", fonts, "--image-size", 32, "--held-out", 20, "--pairs", 40]
    options += ["--images-per-class", 40, "--parts", 25, "--processes", 1]
    killed, clean = tmp_path / "killed", tmp_path / "clean"
    command = [sys.executable, "-m", "plsc.datasets.glyphs", *options, "--out-uri", killed]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list(killed.glob("unfinished/*.json")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
    assert not (killed / "file_list.txt").exists()
    time.sleep(1)  # its painters end by themselves, perhaps after one more part
    parts = sorted(killed.glob("*.tsv"))
    assert 0 < len(parts) < 25
    parts[0].write_bytes(b"altered")
    again = run(*options, "--out-uri", killed)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "of an interrupted run" in again.stdout or len(parts) == 1
    assert run(*options, "--out-uri", clean).returncode == 0
    assert files_of(killed) == files_of(clean)


def test_parts_of_another_interrupted_plan_are_deleted_or_replaced(made, fonts, tmp_path):
    (tmp_path / "unfinished").mkdir()
    for name in ("part-00002.tsv", "part-00077.tsv"):
        (tmp_path / name).write_text("stale\t0\n")
        note = json.dumps({"plan": "other", "sha256": "0"})
        (tmp_path / "unfinished" / f"{name}.json").write_text(note)
    build_large(fonts, SMALL, str(tmp_path), processes=1)
    assert files_of(tmp_path) == files_of(made)


def test_without_slanted_faces_that_benchmark_is_left_out_and_said_so(tmp_path, caplog):
    folder = cut_bundled(tmp_path / "fonts", ("DejaVuSans", "STIXGeneral"))
    with caplog.at_level(logging.INFO, "plsc"):
        build_large(folder, SMALL, str(tmp_path / "out"), processes=1)
    assert "no glyph_slant" in caplog.text
    names = sorted(path.name for path in (tmp_path / "out").glob("*.bin"))
    assert names == ["glyph_cross.bin", "glyph_rough.bin"]


def test_most_classes_and_no_held_out_characters(fonts, tmp_path):
    recipe = replace(SMALL, max_classes=7, num_held_out=0, images_per_class=3)
    build_large(fonts, recipe, str(tmp_path), processes=1)
    assert np.bincount([label for _, label in rows_of(tmp_path)]).tolist() == [3] * 7
    assert not list(tmp_path.glob("*.bin"))


def test_counting_writes_nothing_and_says_what_would_be_made(fonts, tmp_path):
    ended = run("--fonts", fonts, "--count-only", "--held-out", 10, cwd=Path.cwd())
    assert ended.returncode == 0, ended.stdout
    assert "plan: " in ended.stdout
    assert "10 held-out characters" in ended.stdout


@pytest.mark.parametrize("num_parts", [0, 1, 4, 1000])
def test_parts_are_runs_of_classes_of_about_as_many_pictures(num_parts):
    classes = [PlannedClass(label, "A", (), 5 + label % 7) for label in range(100)]
    plan = Plan(replace(LARGE, num_parts=num_parts), 0, classes, None, "")
    parts = list(cut_into_parts(plan))
    assert [each for part in parts for each in part] == classes
    assert len(parts) == {0: 16, 1000: 100}.get(num_parts, num_parts)


def test_a_part_of_a_large_set_stays_far_below_its_bound():
    classes = [PlannedClass(label, "A", (), 65) for label in range(80_000)]
    parts = list(cut_into_parts(Plan(LARGE, 0, classes, None, "")))
    most = max(sum(each.num_images for each in part) for part in parts)
    assert 100 * 2**20 > most * 9200 > 50 * 2**20


def test_fonts_without_usable_faces_or_enough_characters_are_an_error(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.ttf").write_bytes(b"no font")
    with pytest.raises(ConfigError, match="none of 1 font files can be used"):
        count_large(tmp_path / "bad", SMALL, 0, processes=1)
    write_font(tmp_path / "one" / "a.ttf", {char: rectangles(char) for char in IDEOGRAPHS})
    with pytest.raises(ConfigError, match=r"found 0.*lower --min-faces"):
        count_large(tmp_path / "one", SMALL, 0, processes=1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--fonts", "/nowhere", "--out-uri", "x"], "--fonts /nowhere: expected a folder"),
        (["--recipe", "large", "--out-uri", "x"], "expects --fonts"),
        (["--recipe", "tiny", "--fonts", "/tmp", "--out-uri", "x"], "leave out --fonts"),
        (["--recipe", "tiny", "--parts", "3", "--out-uri", "x"], "--parts: only with --fonts"),
        (["--fonts", "/tmp", "--min-faces", "0", "--out-uri", "x"], "correct --min-faces"),
        (["--fonts", "/tmp"], "expected --out-uri"),
    ],
)
def test_the_command_refuses_what_does_not_go_together(arguments, expected):
    ended = run(*arguments)
    assert ended.returncode == 2
    assert expected in ended.stdout
