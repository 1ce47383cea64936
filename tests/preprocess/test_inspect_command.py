"""What ``python -m plsc.preprocess inspect`` prints, and how it ends."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from plsc.preprocess import contact_sheet, inspection_text
from plsc.preprocess.inspect_command import main
from plsc.preprocess.inspection import inspect
from tests.preprocess.data_sets import write_data_set


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "datasets" / "abc")


def test_the_text_tells_all_that_matters(folder):
    dataset = write_data_set(folder)
    text = inspection_text.to_text(inspect(folder), is_colored=False)
    for part in (
        f"Data set tiny  {folder}/index.json",
        "from s3://somewhere/data, by run run",
        "60 of 5 classes\n",
        "16 x 16 pixels, from records, image_label; order of seed 0",
        "3, ",
        "2 (3.23%): base64 2",
        "3 rows repeat another (3 left out); 1 images have several labels",
        "1 small classes with 4 rows",
        "12 in every class that has any",
        "Health: good  (names and sizes; --deep reads all)",
    ):
        assert part in text, part
    assert max(map(len, text.splitlines())) < 100 + len(folder)
    colored = inspection_text.to_text(inspect(folder, is_deep=True), is_colored=True)
    assert "\033[32mgood\033[0m  (every byte was read)" in colored
    document = json.loads(inspection_text.to_json(inspect(folder)))
    assert document["is_healthy"]
    assert document["num_samples"] == dataset.num_samples
    assert document["images_per_class_spread"] == {"min": 12, "median": 12, "max": 12}


@pytest.mark.parametrize(
    ("images_per_class", "lines"),
    [
        ({1: 3, 2: 6}, ["1 " + "█" * 16, "2 " + "█" * 32]),
        ({0: 1, 100: 8}, ["0 ████", "100 " + "█" * 32]),
        (dict.fromkeys(range(1, 101), 1), ["1-10 " + "█" * 32, "11-20 " + "█" * 32]),
        ({1: 1000, 5: 2, 1_000_000: 1}, ["1-3 " + "█" * 32]),
    ],
)
def test_the_histogram_has_few_lines_whatever_the_spread(folder, images_per_class, lines):
    shown = inspection_text._histogram(images_per_class)
    assert len(shown) <= 12
    for line, start in zip(shown, lines, strict=False):
        assert line.strip().startswith(start)
    assert sum(int(line.split()[-1].replace(",", "")) for line in shown) == sum(
        images_per_class.values()
    )


def test_the_command_ends_with_0_2_or_3(folder, tmp_path, capsys):
    dataset = write_data_set(folder)
    sheet = tmp_path / "sheet.png"
    assert main([folder, "--sheet", str(sheet), "--sheet-size", "8x5", "--deep"]) == 0
    assert "Health: good" in capsys.readouterr().out
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
        assert picture.size == contact_sheet.size_of(40, 8) == (878, 678)
        assert len(picture.getcolors(1 << 24) or []) > 40
    Path(dataset.shards[0].uri).unlink()
    assert main([folder, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["problems"][0]["found"] == "is missing"
    assert main([str(tmp_path / "nothing")]) == 3
    assert "found nothing" in capsys.readouterr().err
    for wrong in ([], [folder, "--sheet-size", "0x3"], [folder, "--shallow"]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2


def test_the_doorway_leads_to_it(folder):
    write_data_set(folder)
    command = [sys.executable, "-m", "plsc.preprocess", "inspect", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Health: good" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["--deep"], ["--json"], ["--sheet", "{}/sheet.png"]])
@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": -1},
        {"images_per_class": {"12": -5}},
        {"images_per_class": {"12": 0}},
        {"images_per_class": {}},
        {"images_per_class": {"1": 5, "2": 3, str(10**18): 5}},
        {"num_classes": 2**63},
        {"shards": []},
        {"uri": "index.json"},
        {"uri": "/index.json"},
        {"uri": ""},
        {"uri": "s3://[b/index.json"},
        {"quarantine": {"uri": "", "num_rows": -60, "reasons": {}}},
        {"quarantine": {"uri": "/nowhere/x", "num_rows": 2**63, "reasons": {"a\nb": 2}}},
    ],
)
def test_an_index_of_nonsense_ends_with_3_and_words(folder, tmp_path, arguments, change, capsys):
    write_data_set(folder)
    index = Path(folder, "index.json")
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    assert main([folder, *(one.format(tmp_path) for one in arguments)]) == 3
    said = capsys.readouterr()
    assert "error: " in said.err or "problem" in said.out


def test_an_index_cannot_name_a_file_to_overwrite(folder, tmp_path):
    write_data_set(folder)
    victim = tmp_path / "victim.arrow"
    victim.write_bytes(b"precious")
    index = Path(folder, "index.json")
    document = json.loads(index.read_text())
    document["shards"][0]["sha256"] = str(tmp_path / "victim")
    index.write_text(json.dumps(document))
    assert main([folder, "--deep"]) == 3
    assert victim.read_bytes() == b"precious"


def test_control_characters_of_an_index_do_not_reach_the_terminal(folder, capsys):
    write_data_set(folder)
    index = Path(folder, "index.json")
    document = json.loads(index.read_text())
    document["provenance"] |= {"experiment": "\x1b[2J", "run_id": "a\nb"}
    document["layout"] = "\x9b2J"
    index.write_text(json.dumps(document))
    assert main([folder]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "Data set \\x1b[2J" in text


def test_a_disk_without_room_is_told(folder, tmp_path, monkeypatch, capsys):
    write_data_set(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert main([folder, "--deep"]) == 3
    assert "error: expected room for a shard in" in capsys.readouterr().err
