"""Labels are counted exactly in bounded blocks, and numbered as the settings say."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from plsc.preprocess.shuffle import classes
from plsc.preprocess.shuffle.classes import LabelCounts


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), min_size=1))
def test_labels_are_counted_over_all_blocks(blocks):
    counts = LabelCounts()
    for block in blocks:
        counts.add(np.array(block, np.int64))
    labels, images = counts.totals()
    expected = Counter(label for block in blocks for label in block)
    assert list(zip(labels.tolist(), images.tolist(), strict=True)) == sorted(expected.items())


def test_blocks_are_merged_on_the_way(monkeypatch):
    monkeypatch.setattr(classes, "_MERGE_AT", 100)
    counts = LabelCounts()
    for _ in range(50):
        counts.add(np.arange(30))
        assert len(counts._blocks) < 8
    labels, images = counts.totals()
    assert labels.tolist() == list(range(30))
    assert set(images.tolist()) == {50}
