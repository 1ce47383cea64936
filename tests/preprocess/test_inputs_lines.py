import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plsc.errors import RecordError
from plsc.preprocess.inputs import lines
from plsc.preprocess.inputs.lines import lines_of, split

contents = st.lists(st.sampled_from([b"a", b"\n", b"bcd", b"\r\n", b"e" * 300]), max_size=40).map(
    b"".join
)


def blocks(content, start, size):
    begin = max(0, start - 1)
    return [content[at : at + size] for at in range(begin, len(content), size)]


@given(contents, st.lists(st.integers(0, 400), max_size=6), st.integers(1, 64), st.integers(1, 12))
def test_ranges_give_every_line_once_wherever_they_are_cut(content, places, block, limit_bytes):
    whole = list(split([content], limit_bytes=limit_bytes))
    borders = sorted({0, len(content), *(place for place in places if place < len(content))})
    pieces = [
        one
        for start, stop in itertools.pairwise(borders)
        for one in split(
            blocks(content, start, block), start=start, stop=stop, limit_bytes=limit_bytes
        )
    ]
    assert pieces == whole


@given(contents, st.integers(1, 12))
def test_lines_cover_every_byte_once(content, limit_bytes):
    found = list(split([content], limit_bytes=limit_bytes))
    ends = [line.offset + line.size_bytes for line in found]
    assert [line.offset for line in found] == [0, *ends][: len(found)]
    assert (ends or [0])[-1] == len(content)
    assert len(found) == len(content.splitlines()) or b"\r" in content
    for line in found:
        bytes_of_it = content[line.offset : line.offset + line.size_bytes]
        assert line.is_whole is (len(bytes_of_it) <= limit_bytes)
        assert line.row == (bytes_of_it if line.is_whole else bytes_of_it[:120])


def test_a_line_over_several_ranges_belongs_to_the_first_and_is_read_to_its_end(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(lines, "_BLOCK_BYTES", 16)
    monkeypatch.setattr(lines, "_AHEAD_BYTES", 4)
    content = b"first\n" + b"x" * 5000 + b"\nlast"
    path = tmp_path / "part"
    path.write_bytes(content)
    found = {
        start: [
            (line.offset, line.size_bytes)
            for line in lines_of(
                str(path), start=start, stop=min(start + 10, len(content)), part_bytes=len(content)
            )
        ]
        for start in range(0, len(content), 10)
    }
    assert found.pop(0) == [(0, 6), (6, 5001)]
    assert found.pop(5000) == [(5007, 4)]
    assert not any(found.values())


def test_a_line_that_begins_right_at_a_border_is_not_lost(tmp_path):
    path = tmp_path / "part"
    path.write_bytes(b"aaa\nbbb\n")
    ranges = [(0, 4), (4, 8)]
    found = [
        [line.row for line in lines_of(str(path), start=a, stop=b, part_bytes=8)] for a, b in ranges
    ]
    assert found == [[b"aaa\n"], [b"bbb\n"]]


def test_a_part_that_shrank_since_it_was_listed_is_an_error(tmp_path):
    path = tmp_path / "part"
    path.write_bytes(b"aaa\nbb")
    with pytest.raises(RecordError, match="expected 8 bytes, found the end after 6"):
        list(lines_of(str(path), start=0, stop=8, part_bytes=8))
