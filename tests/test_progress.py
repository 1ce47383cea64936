"""Progress lines."""

import logging

import pytest

from plsc import progress

log = logging.getLogger("plsc.test")


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.34, "7.3 s"), (125, "2 min 05 s"), (12_000, "3 h 20 min")]
)
def test_durations_read_well(seconds, text):
    assert progress.duration(seconds) == text


def test_lines_tell_done_rate_and_time_left(caplog, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "plsc"):
        assert list(progress.track(log, "writing", range(4), total=4, unit="shards")) == [
            0,
            1,
            2,
            3,
        ]
    lines = [record.getMessage() for record in caplog.records]
    assert any("shards, 0/s" in line and "left" in line for line in lines[:-1])
    assert lines[-1].startswith("writing: 4 shards in ")
