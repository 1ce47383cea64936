import re
from html.parser import HTMLParser
from pathlib import Path

from plsc.preprocess import data_report
from plsc.preprocess.stage import run
from tests.preprocess.rows import good_parts, line, settings, write_parts

EVIL = b"<script>alert(1)</script>\t3\n"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def report(folder: Path, *overrides: str) -> str:
    dataset = run(settings(folder, *overrides))
    return Path(data_report.uri_of(dataset)).read_text()


def test_the_report_shows_counts_reasons_and_samples_and_needs_no_other_file(tmp_path):
    parts = good_parts(num_rows=30)
    write_parts(tmp_path / "data", parts | {"part-3.tsv": [b"one column\n"]})
    page = report(tmp_path, "preprocess.max_bad_fraction=0.5")
    assert "<b>90</b>samples" in page
    assert "<b>5</b>classes" in page
    assert "<b>1</b>bad rows" in page
    assert "expected 2 columns with a TAB between, found 1" in page
    tags = Tags(page).found
    sources = [attrs["src"] for tag, attrs in tags if tag == "img"]
    assert len(sources) == 65
    assert all(source.startswith("data:image/") for source in sources)
    assert not [tag for tag, attrs in tags if tag in ("script", "link") or "href" in attrs]
    assert not re.search(r"url\(|@import", page)


def test_rows_of_the_input_cannot_put_html_into_the_report(tmp_path):
    write_parts(tmp_path / "data", {"<b>part": [EVIL, line(1, 0)]})
    page = report(
        tmp_path, "preprocess.max_bad_fraction=0.5", "name='<i>name'", "deploy.model_name=m"
    )
    assert "&lt;script&gt;alert(1)" in page
    assert not [tag for tag, _ in Tags(page).found if tag in ("script", "i")]


def test_the_same_data_set_gives_the_same_report(tmp_path):
    write_parts(tmp_path / "data", good_parts())
    first = report(tmp_path)
    for path in (tmp_path / "store").rglob("index.json"):
        path.unlink()
    assert report(tmp_path) == first
