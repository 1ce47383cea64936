import numpy as np
import pytest

from plsc.datasets.chance import generator, rank
from plsc.datasets.faces import FACES, ink


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.name)
def test_every_face_is_bundled_and_draws_letters(face):
    assert face.path.is_file()
    assert "A" in face.characters()
    drawing = np.asarray(ink("A", face))
    assert drawing.max() == 255
    for edge in (drawing[0], drawing[-1], drawing[:, 0], drawing[:, -1]):
        assert edge.any(), "cropped to the ink"


def test_a_slanted_face_leans_to_the_right():
    leans = {face.name: _lean(np.asarray(ink("I", face), float)) for face in FACES}
    slanted = {face.name for face in FACES if face.is_slanted}
    upright = [lean for name, lean in leans.items() if name not in slanted]
    assert min(leans[name] for name in slanted) > max(map(abs, upright))


def _lean(drawing):
    """Return how much further right the ink of the upper half lies, as a share of the height."""
    columns = np.arange(drawing.shape[1])
    centers = [half.sum(axis=0) @ columns / half.sum() for half in np.array_split(drawing, 2)]
    return (centers[0] - centers[1]) / len(drawing)


def test_a_blank_is_no_drawing():
    assert ink(" ", FACES[0]) is None
    assert ink("\u2003", FACES[0]) is None


def test_randomness_depends_on_names_and_not_on_the_process():
    assert rank(0, "split", "A") == 8102610175231034403
    assert rank("ab", "c") != rank("a", "bc")
    assert generator(0, "x").integers(1000) == generator(0, "x").integers(1000)
