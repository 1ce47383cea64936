import json
import re

import pytest

from plsc.artifacts.deployment import Deployment
from plsc.artifacts.index import Payload, Provenance, now
from plsc.artifacts.shards import Duplicates, LeftOut, Quarantine, Shard, ShardSet
from plsc.errors import ArtifactError, ShardError, StorageError

PROVENANCE = Provenance(
    run_id="run", experiment="tiny", created_at=now(), seconds=1.5, config={"seed": 0}
)


@pytest.fixture
def dataset(tmp_path):
    return ShardSet(
        provenance=PROVENANCE,
        uri=str(tmp_path / "index.json"),
        layout="records",
        column_order="mixed",
        seed=0,
        num_samples=3,
        num_blank_rows=0,
        num_classes=4,
        num_empty_classes=2,
        images_per_class={0: 2, 1: 1, 2: 1},
        classes=Payload(uri="s3://b/classes.arrow", size_bytes=10, sha256="0" * 64),
        image_size=16,
        shards=[Shard(uri="s3://b/k", size_bytes=10, sha256="0" * 64, num_samples=3)],
        quarantine=Quarantine(uri="", num_rows=0, reasons={}),
        duplicates=Duplicates(num_repeated=0, num_removed=0, num_conflicting=0),
        left_out=LeftOut(num_classes=0, num_rows=0),
    )


def test_an_index_is_read_as_it_was_written(dataset):
    dataset.write(dataset.uri)
    assert ShardSet.read(dataset.uri) == dataset


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "Report"}, "expected an index of kind ShardSet, version 2, found Report"),
        ({"format": 1}, "found ShardSet, version 1: another version of plsc wrote it: run its"),
        ({"num_samples": "many"}, "num_samples"),
        ({"surprise": 1}, "surprise"),
        ({"shards": [{"uri": "s3://b/k"}]}, "shards.0"),
    ],
)
def test_an_index_that_is_not_what_it_should_be_is_refused(dataset, change, words):
    document = json.loads(dataset.to_json()) | change
    with pytest.raises(ShardError, match=words):
        ShardSet.from_json(json.dumps(document).encode(), "the-uri")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null"])
def test_what_is_no_json_object_is_refused(content):
    with pytest.raises(ShardError, match=r"the-uri: .*found no JSON object"):
        ShardSet.from_json(content, "the-uri")


def test_a_cut_off_index_is_refused_at_every_length(dataset):
    content = dataset.to_json()
    for length in range(0, len(content) - 2, 7):
        with pytest.raises(ShardError):
            ShardSet.from_json(content[:length], "the-uri")


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        Deployment(
            provenance=PROVENANCE,
            endpoint="127.0.0.1:1",
            model="m",
            version=1,
            previous_version=None,
            repository_uri="/r",
            canary_max_abs=float("nan"),
        )


def test_each_kind_raises_its_own_error(dataset):
    with pytest.raises(ArtifactError, match="expected an index of kind Deployment"):
        Deployment.from_json(dataset.to_json(), "the-uri")


def test_a_missing_index_says_which_stage_writes_it_is_to_be_run(tmp_path):
    with pytest.raises(StorageError, match="run the stage that writes it"):
        ShardSet.read(str(tmp_path / "index.json"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("shards", []),
        ("shards.0.sha256", "/path/victim"),
        ("shards.0.sha256", "0" * 63),
        ("shards.0.sha256", "0" * 64 + "\n"),
        ("shards.0.sha256", "A" * 64),
        ("shards.0.size_bytes", -1),
        ("shards.0.size_bytes", 10**400),
        ("shards.0.num_samples", 0),
        ("shards.0.uri", "s3://b/\0"),
        ("shards.0.uri", "s3://[b/k"),
        ("classes.sha256", "../0"),
        ("num_samples", 0),
        ("num_classes", -1),
        ("num_classes", 0),
        ("num_classes", 2**63 + 1),
        ("num_blank_rows", -1),
        ("num_empty_classes", -1),
        ("image_size", 0),
        ("images_per_class", {"12": -5}),
        ("images_per_class", {"12": 0}),
        ("images_per_class", {"-12": 5}),
        ("images_per_class", {str(10**30): 5}),
        ("quarantine.num_rows", -3),
        ("quarantine.reasons", {"base64": -1}),
        ("quarantine.uri", "a\x1b[2Jb"),
        ("duplicates.num_removed", -1),
        ("left_out.num_rows", -1),
        ("provenance.seconds", -0.5),
    ],
)
def test_values_that_no_stage_writes_are_refused_by_name(dataset, path, value):
    document = json.loads(dataset.to_json())
    *parents, name = path.split(".")
    place = document
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[name] = value
    with pytest.raises(ShardError, match=rf"the-uri: .* but {re.escape(path)}"):
        ShardSet.from_json(json.dumps(document).encode(), "the-uri")


def test_as_many_classes_as_there_can_be_labels_are_no_mistake(dataset):
    document = json.loads(dataset.to_json()) | {"num_classes": 2**63}
    assert ShardSet.from_json(json.dumps(document).encode(), "").num_classes == 2**63
