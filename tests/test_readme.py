"""The README tells the truth: its commands, names and paths exist."""

import ast
import re
from pathlib import Path

import pytest

import plsc
from plsc import conf

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text()))
        assert named <= targets, f"{page.name} names {named - targets}"


def test_python_examples_use_what_exists():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                assert node.module == "plsc"
                assert {alias.name for alias in node.names} <= set(plsc.__all__)


def test_entry_offers_what_the_example_calls():
    for name in re.findall(r"ins\.(\w+)\(", README):
        assert callable(getattr(plsc.Entry, name))


def test_every_part_of_the_tree_exists():
    tree = re.search(r"## The tree\n\n```text\n(.*?)```", README, re.DOTALL)[1]
    inside = ""
    for line in tree.splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        inside = name if not indent else inside
        path = ROOT / (inside + name if indent else name)
        assert path.exists(), f"README's tree names {path.relative_to(ROOT)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_settings_that_the_cluster_page_shows_compose():
    shown = re.findall(r"```text\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    assert len(shown) == 1
    config = conf.compose("glyphs", "run_id=check", *conf.split_overrides(shown[0]))
    assert config.train.pods.node_selector == ["pool=a100"]


def test_the_catalogue_says_what_it_offers():
    with pytest.raises(AttributeError, match="it offers Client, Entry"):
        _ = plsc.Nothing
