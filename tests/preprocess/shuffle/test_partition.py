from hypothesis import given
from hypothesis import strategies as st

from plsc.preprocess.shuffle.partition import equal_ranges


@given(st.integers(1, 5000), st.integers(1, 700))
def test_ranges_are_few_and_equal_and_cover_everything_once(num_samples, largest):
    ranges = equal_ranges(num_samples, largest=largest)
    assert [row for part in ranges for row in part] == list(range(num_samples))
    sizes = [len(part) for part in ranges]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= largest
    assert len(ranges) == -(-num_samples // largest)
