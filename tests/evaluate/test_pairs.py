"""The hardest pairs are the right ones, and only their pixels reach the page."""

import base64

import numpy as np
import pytest

from plsc.evaluate.pairs import hardest
from tests.samples import jpeg

SIMILARITIES = np.array([0.9, 0.1, 0.5, 0.4, 0.2, -0.3])
IS_SAME = np.array([True, True, True, False, False, False])


@pytest.fixture
def images() -> list[bytes]:
    return [jpeg(np.full((32, 32, 3), 20 * number, np.uint8)) for number in range(12)]


def test_the_hardest_pairs_come_first(images):
    least, most = hardest(images, SIMILARITIES, IS_SAME, threshold=0.3, count=2)
    assert [(pair.number, pair.similarity) for pair in least] == [(1, 0.1), (2, 0.5)]
    assert [(pair.number, pair.similarity) for pair in most] == [(3, 0.4), (4, 0.2)]
    assert [pair.is_right for pair in (*least, *most)] == [False, True, False, True]


def test_fewer_pairs_than_asked_are_all_shown(images):
    least, most = hardest(images, SIMILARITIES, IS_SAME, threshold=0.3, count=10)
    assert len(least) == len(most) == 3


def test_bytes_behind_an_image_do_not_reach_the_page(images):
    images = [image + b"<script>alert(1)</script>" for image in images]
    least, _ = hardest(images, SIMILARITIES, IS_SAME, threshold=0.3, count=1)
    for picture in least[0].pictures:
        head, _, content = picture.partition(",")
        assert head == "data:image/jpeg;base64"
        assert b"script" not in base64.b64decode(content)
