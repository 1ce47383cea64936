from concurrent.futures import ThreadPoolExecutor

import pytest

from plsc.datasets import alphabet


@pytest.fixture(scope="session")
def pool():
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def choose(pool, monkeypatch):
    """Return a function that chooses the alphabet among given characters."""

    def chosen(chars):
        monkeypatch.setattr(alphabet, "_candidates", lambda: list(chars))
        return alphabet.choose_alphabet(pool, max_candidates=10_000, seed=0)

    return chosen
