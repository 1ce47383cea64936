import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plsc.artifacts.records import Record
from plsc.preprocess.shuffle import Spool, keys_of, make_unique

OFFSETS = np.arange(0, 500_000, 5, dtype=np.uint64)


def splitmix64(state: int) -> int:
    """Return the first output after ``state``, as Steele, Lea and Flood write it."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_keys_stay_what_they_are():
    """Other keys would be another order of every data set: raise ``reuse._FORMAT`` then."""
    part = int.from_bytes(hashlib.blake2b(b"7\0part-00000.tsv", digest_size=8).digest(), "big")
    offsets = [0, 1, 5000, 2**63, 2**64 - 1]
    keys = keys_of(7, "part-00000.tsv", np.array(offsets, np.uint64)).tolist()
    assert keys == [splitmix64(part ^ splitmix64(offset)) for offset in offsets]
    assert keys[0] == 7628480197829366242


def test_keys_of_one_part_all_differ_and_fill_the_range_evenly():
    keys = keys_of(0, "part", OFFSETS)
    assert len(np.unique(keys)) == len(keys)
    counts = np.bincount((keys >> np.uint64(56)).astype(int), minlength=256)
    assert abs(counts - len(keys) / 256).max() < 6 * (len(keys) / 256) ** 0.5


@pytest.mark.parametrize(("seed", "part"), [(1, "part"), (0, "part2"), (-1, "part")])
def test_seed_and_part_make_other_keys(seed, part):
    usual, other = keys_of(0, "part", OFFSETS), keys_of(seed, part, OFFSETS)
    assert not np.intersect1d(usual, other).size
    assert abs(np.corrcoef(usual.astype(float), other.astype(float))[0, 1]) < 0.02


@given(st.lists(st.integers(0, 20), min_size=1))
def test_equal_keys_are_moved_apart_in_order(numbers):
    keys = np.sort(np.array(numbers, np.uint64))
    unique = make_unique(keys)
    assert (unique >= keys).all()
    assert (np.diff(unique.astype(int)) > 0).all()
    assert unique[0] == keys[0]


def test_a_spool_gives_rows_in_the_order_of_their_keys(tmp_path):
    records = [Record(f"image {n}".encode(), n) for n in range(50)]
    with Spool(tmp_path, seed=3) as spool:
        for part in (0, 1):
            for n in range(part, 50, 2):
                spool.append(n * 10, records[n])
            spool.end_part(f"part-{part}")
        rows = spool.shuffled()
        assert len(rows) == 50
        assert rows.labels.tolist() != list(range(50))
        assert rows.images(range(50)) == [records[n].image for n in rows.labels]
        assert rows.images(range(10, 12)) == [records[n].image for n in rows.labels[10:12]]
        assert (np.diff(rows.keys.astype(float)) > 0).all()
        assert list(tmp_path.iterdir()) == []
