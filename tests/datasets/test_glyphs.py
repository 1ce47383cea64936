import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from plsc import storage
from plsc.datasets import glyphs
from plsc.datasets.pairs import BENCHMARKS
from plsc.datasets.recipes import RECIPES
from plsc.errors import StorageError
from plsc.transforms import decode
from plsc.verification import measure, pixel_embeddings, read_benchmark

TINY = RECIPES["tiny"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glyphs")
    glyphs.build(TINY, str(folder), processes=1)
    return folder


def rows_of(folder):
    names = (folder / "file_list.txt").read_text().splitlines()
    rows = [line.split("\t") for name in names for line in (folder / name).read_text().splitlines()]
    return [(base64.b64decode(image, validate=True), int(label)) for image, label in rows]


def files_of(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_parts_hold_every_class_as_often_as_the_recipe_says(made):
    rows = rows_of(made)
    counts = np.bincount([label for _, label in rows])
    assert counts.tolist() == [TINY.images_per_class] * TINY.max_classes
    size = TINY.image_size
    assert {decode(image).shape for image, _ in rows} == {(size, size, 3)}
    assert len({image for image, _ in rows}) == len(rows), "no picture occurs twice"


def test_the_file_list_names_the_parts(made):
    names = (made / "file_list.txt").read_text().splitlines()
    assert names == ["part-00000.tsv", "part-00001.tsv"]
    assert sorted(path.name for path in made.glob("*.tsv")) == names


def test_classes_and_held_out_characters_are_disjoint(made, pool):
    plan = glyphs._make_plan(pool, TINY, 0)
    assert set(plan.classes).isdisjoint(plan.held_out)
    assert json.loads((made / "classes.json").read_text()) == {
        str(label): char for label, char in enumerate(plan.classes)
    }
    for sample in (made / "samples").iterdir():
        char = chr(int(sample.name.split("-")[0].removeprefix("U+"), 16))
        assert char in plan.held_out


def test_samples_show_held_out_characters_in_two_faces(made):
    names = sorted(path.stem for path in (made / "samples").glob("*.jpg"))
    assert len(names) >= 4
    assert names == sorted(f"{name[:-2]}-{letter}" for name in names[::2] for letter in "ab")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_benchmarks_are_read_and_beat_chance_but_are_not_solved_by_raw_pixels(made, name):
    benchmark = read_benchmark(str(made), name)
    assert benchmark.num_pairs == TINY.num_pairs
    rows = pixel_embeddings(benchmark.images, image_size=TINY.image_size)
    measured = measure(rows, benchmark.is_same, folds=TINY.folds, far_targets=[0.1])
    assert 0.52 < measured.accuracy < 0.85


def test_the_bytes_do_not_depend_on_the_number_of_processes(made, tmp_path):
    glyphs.build(TINY, str(tmp_path), processes=2)
    assert files_of(tmp_path) == files_of(made)


def test_another_seed_makes_another_set(made, tmp_path):
    glyphs.build(TINY, str(tmp_path), 1, processes=1)
    assert (tmp_path / "classes.json").read_bytes() != (made / "classes.json").read_bytes()


def test_an_interrupted_build_leaves_no_file_list(made, tmp_path, monkeypatch):
    (tmp_path / "file_list.txt").write_text("stale\n")
    write_bytes = storage.write_bytes

    def full_disk(uri, content):
        if uri.endswith(".bin"):
            raise StorageError(f"{uri}: no space left on device")
        write_bytes(uri, content)

    monkeypatch.setattr(storage, "write_bytes", full_disk)
    with pytest.raises(StorageError, match="no space left"):
        glyphs.build(TINY, str(tmp_path), processes=1)
    assert not (tmp_path / "file_list.txt").exists()
    assert (tmp_path / "part-00000.tsv").exists()


def test_the_command_says_what_is_wrong_and_exits_with_the_errors_code():
    command = [sys.executable, "-m", "plsc.datasets.glyphs", "--recipe", "tiny", "--out-uri"]
    ended = subprocess.run([*command, "ftp://x/y"], capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert "'ftp'" in ended.stdout


def test_the_command_makes_the_same_set(made, tmp_path):
    command = [sys.executable, "-m", "plsc.datasets.glyphs", "--recipe", "tiny", "--out-uri"]
    ended = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=True)
    assert files_of(tmp_path) == files_of(made)
    assert "[glyphs] data set: 40 classes" in ended.stdout


def test_the_glyphs_recipe_is_a_large_class_problem_that_two_cores_can_solve():
    recipe = RECIPES["glyphs"]
    assert recipe.num_held_out >= 300
    assert recipe.num_pairs % (2 * recipe.folds) == 0


@pytest.mark.slow
def test_the_faces_share_enough_characters_for_the_glyphs_recipe(pool):
    plan = glyphs._make_plan(pool, RECIPES["glyphs"], 0)
    assert len(plan.classes) >= 1500
    assert len(plan.held_out) == RECIPES["glyphs"].num_held_out
    assert len(plan.classes) * RECIPES["glyphs"].images_per_class <= 45_000
    assert set(plan.classes).isdisjoint(plan.held_out)
