"""Of the reasons that pods leave behind, the one that ended the job is taken."""

from pathlib import Path

import pytest

from plsc import storage
from plsc.cluster import reasons
from plsc.errors import PlscError, RecordError, StorageError


def leave(folder: Path, index: int, error: PlscError) -> None:
    with pytest.raises(PlscError), reasons.left_behind(str(folder), index):
        raise error


@pytest.mark.parametrize("culprit", ["", "2"])
def test_an_error_that_was_to_be_tried_again_does_not_hide_why_another_index_failed(
    tmp_path: Path, culprit: str
) -> None:
    leave(tmp_path, 1, StorageError("the store is slow"))
    assert reasons.taken(str(tmp_path), culprit) is None
    assert not list(storage.list_objects(f"{tmp_path}/failures/"))


def test_it_is_taken_if_its_own_index_was_given_up(tmp_path: Path) -> None:
    leave(tmp_path, 1, StorageError("the store is slow"))
    leave(tmp_path, 0, StorageError("slow here too"))
    found = reasons.taken(str(tmp_path), "1")
    assert isinstance(found, StorageError)
    assert str(found) == "the store is slow"


def test_an_error_that_ends_the_job_at_once_is_taken_whoever_else_failed(tmp_path: Path) -> None:
    leave(tmp_path, 1, StorageError("the store is slow"))
    leave(tmp_path, 12, RecordError("bad row"))
    assert isinstance(reasons.taken(str(tmp_path), "2"), RecordError)
