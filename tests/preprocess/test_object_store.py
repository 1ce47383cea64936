"""The stage on a real S3 server."""

import pytest

from plsc import storage
from plsc.artifacts.shards import fetch_shard
from plsc.errors import StorageError
from plsc.preprocess import data_report
from plsc.preprocess.shuffle import planning
from plsc.preprocess.stage import run
from plsc.storage import patience, s3
from tests.faults import FaultProxy, behind, busy, cut, lose, reset, stall
from tests.preprocess.rows import digests_of, good_parts, image, settings, write_parts

pytestmark = pytest.mark.services


@pytest.fixture
def data(tmp_path, bucket_uri):
    """Parts in the bucket, and the same on this disk."""
    parts = write_parts(tmp_path / "data", good_parts())
    for path in parts.iterdir():
        storage.upload(path, f"{bucket_uri}/data/{path.name}")
    return f"{bucket_uri}/data"


def test_bucket_and_disk_give_the_same_bytes(tmp_path, bucket_uri, data):
    there = settings(tmp_path, f"data_uri={data}", f"store_uri={bucket_uri}/store")
    dataset = run(there)
    assert digests_of(dataset) == digests_of(run(settings(tmp_path)))
    assert storage.exists(data_report.uri_of(dataset))
    for shard in dataset.shards:
        assert fetch_shard(shard, tmp_path / "cache").stat().st_size == shard.size_bytes
    again = run(settings(tmp_path, f"data_uri={data}", f"store_uri={bucket_uri}/store"))
    assert again.shards == dataset.shards
    minio = data.replace("s3://", "minio://") + "/"
    assert run(settings(tmp_path, f"data_uri={minio}", f"store_uri={bucket_uri}/store")) is not None
    assert len(list(storage.list_objects(f"{bucket_uri}/store/datasets/"))) == 7


def test_image_files_in_a_bucket_are_read(tmp_path, bucket_uri):
    for number in range(5):
        storage.write_bytes(f"{bucket_uri}/data/images/{number}.jpg", image(number))
    labels = "".join(f"images/{number}.jpg {number}\n" for number in range(5))
    storage.write_bytes(f"{bucket_uri}/data/label.txt", labels.encode())
    dataset = run(settings(tmp_path, f"data_uri={bucket_uri}/data"))
    assert dataset.num_classes == 5
    assert dataset.quarantine.num_rows == 0


@pytest.mark.usefixtures("object_store")
def test_a_missing_bucket_is_a_storage_error_that_says_so(tmp_path):
    with pytest.raises(StorageError, match=r"s3://no-such-bucket.*the bucket does not exist"):
        run(settings(tmp_path, "data_uri=s3://no-such-bucket/data"))


def test_wrong_credentials_are_a_storage_error_that_says_so(tmp_path, data, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3.client.cache_clear()
    try:
        with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY"):
            run(settings(tmp_path, f"data_uri={data}"))
    finally:
        s3.client.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_store_that_fails_again_and_again_changes_no_byte(
    tmp_path, bucket_uri, data, object_store, monkeypatch, workers
):
    expected = digests_of(run(settings(tmp_path)))
    monkeypatch.setattr(planning, "_SMALLEST_ITEM_BYTES", 5_000)
    monkeypatch.setattr(patience, "PAUSE_S", 0.01)
    monkeypatch.setenv("S3_TIMEOUT_S", "0.5")
    faults = [
        # Few enough that no stream can meet six faults in a row, whoever asks when.
        cut(method="GET", path="part-", every=2, times=3, after_bytes=3_000),
        cut(method="GET", path=".run", every=3, times=3, after_bytes=500),
        stall(method="GET", path="part-", first=3, times=2, after_bytes=1_000),
        lose(method="PUT", path="shard-", every=2, times=3),
        lose(method="PUT", path="map/", every=5, times=3),
        busy(every=9),
        reset(every=13),
    ]
    config = settings(
        tmp_path,
        f"data_uri={data}",
        f"store_uri={bucket_uri}/store",
        f"preprocess.workers={workers}",
    )
    with behind(FaultProxy(object_store.s3_endpoint, faults), monkeypatch) as proxy:
        dataset = run(config)
    assert digests_of(dataset) == expected
    assert proxy.injected.keys() >= {"cut", "stall", "lose", "busy", "reset"}
    assert not list(storage.list_objects(f"{dataset.uri.rpartition('/')[0]}/work/"))


def test_a_store_that_fails_for_good_is_a_storage_error_and_leaves_no_index(
    tmp_path, bucket_uri, data, object_store, monkeypatch
):
    monkeypatch.setattr(patience, "PAUSE_S", 0.01)
    config = settings(tmp_path, f"data_uri={data}", f"store_uri={bucket_uri}/store")
    faults = [busy(method="PUT", path="shard-00002")]
    with (
        behind(FaultProxy(object_store.s3_endpoint, faults), monkeypatch),
        pytest.raises(StorageError, match="shard-00002"),
    ):
        run(config)
    left = [info.uri for info in storage.list_objects(f"{bucket_uri}/store/")]
    assert not [uri for uri in left if uri.endswith("index.json") or "/work/" in uri]
    assert run(config).num_samples == 60
