import pytest

from plsc.errors import ShardError
from plsc.preprocess.shuffle.job import Job, read_value


def test_a_job_that_was_altered_is_refused(tmp_path):
    (tmp_path / "job.json").write_text('{"seed": 0}')
    with pytest.raises(ShardError, match=r"job\.json: expected Job"):
        read_value(Job, str(tmp_path / "job.json"))
