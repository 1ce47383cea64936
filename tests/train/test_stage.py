"""The train stage: exact resume, a killed rank, and what it must refuse."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch

from plsc import doorway, storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.artifacts.shards import ShardSet
from plsc.errors import CheckpointError, ConfigError, ShardError, TrainError
from plsc.models import read_tensors
from plsc.train.checkpoints import best
from plsc.train.stage import run
from plsc.train.step import run_step

SHORT = ("train.max_steps=6", "train.checkpoint_every_steps=3", "train.log_every_steps=2")


def configured(place, run_id, *overrides):
    dataset = f"train.dataset_uri={place.store}/runs/shards/preprocess/index.json"
    return place.config(run_id, dataset, *SHORT, *overrides)


def tensors_of(checkpoint):
    blocks = [read_tensors(block) for block in checkpoint.head]
    return read_tensors(checkpoint.backbone), blocks


def assert_same(one, other):
    for a, b in zip([one[0], *one[1]], [other[0], *other[1]], strict=True):
        assert a.keys() == b.keys()
        assert all(a[name].equal(b[name]) for name in a)


def test_resumed_run_is_bit_exact(place):
    straight = run(configured(place, "straight"))
    run(configured(place, "interrupted", "train.max_steps=3"))
    resumed = run(configured(place, "resumed", "train.resume_run=interrupted"))
    # The schedule depends on the last step, so the interrupted run must have had the same plan.
    assert resumed.step == straight.step == 6
    assert Checkpoint.read(doorway.index_uri(configured(place, "resumed"), "train")) == resumed


def test_run_goes_on_bit_exactly_from_its_own_checkpoint(place):
    config = configured(place, "own")
    whole = run(config)
    expected = tensors_of(whole)
    folder = f"{place.store}/runs/own/checkpoints/step-00000006"
    storage.delete_prefix(folder)  # as if it was killed after step 3
    again = run(config)
    assert_same(tensors_of(again), expected)
    assert again.figures.keys() == whole.figures.keys()


def test_a_run_that_is_complete_keeps_its_figures(place):
    whole = run(configured(place, "complete"))
    again = run(configured(place, "again", "train.resume_run=complete"))
    assert again.step == whole.step
    assert again.figures == whole.figures


def test_every_epoch_is_verified_and_recorded(place):
    figures = run(
        configured(
            place, "verified", "train.max_steps=16", "train.verify_every_epochs=1",
            "train.verify_benchmarks=[glyph_cross,glyph_rough]",
        )
    ).figures  # fmt: skip
    assert 0.4 <= figures["accuracy_glyph_cross"] <= 1
    assert 0.4 <= figures["accuracy_glyph_rough"] <= 1
    assert figures["samples_per_s"] > 0
    events = list(storage.list_objects(f"{place.store}/runs/verified/train/events"))
    assert len(events) == 1
    assert events[0].size_bytes > 100


def test_a_complete_checkpoint_is_not_written_over(place):
    config = configured(place, "finished")
    first = run(config)
    index = place.store / "runs/finished/checkpoints/step-00000006/index.json"
    written = index.stat().st_mtime_ns
    assert run(config) == first
    assert index.stat().st_mtime_ns == written


def test_resuming_a_run_without_checkpoint_is_refused(place):
    with pytest.raises(CheckpointError, match=r"train.resume_run=nobody: expected a checkpoint"):
        run(configured(place, "lost", "train.resume_run=nobody"))


def test_fine_tuning_begins_a_new_run_with_the_weights_of_another(place, caplog):
    before = run(configured(place, "before"))
    settings = (f"train.finetune_from={before.index_uri}", "train.finetune_head=true")
    caplog.set_level("INFO")
    tuned = run(configured(place, "tuned", *settings, "train.optimizer.lr=1e-12"))
    assert f"fine-tunes the backbone of {before.index_uri}" in caplog.text
    assert tuned.step == before.step == 6
    (expected,), (found,) = (tensors_of(checkpoint)[1] for checkpoint in (before, tuned))
    torch.testing.assert_close(found["weight"], expected["weight"])  # it hardly learned since
    caplog.clear()
    assert run(configured(place, "tuned", *settings)) == tuned  # resumed, not begun again
    assert "fine-tunes" not in caplog.text


def test_the_best_checkpoint_is_kept_beside_the_newest(place):
    config = configured(
        place, "best", "train.max_steps=24", "train.verify_every_epochs=1",
        "train.verify_benchmarks=[glyph_cross]", "train.keep_checkpoints=1",
        "train.checkpoint_every_steps=4",
    )  # fmt: skip
    last = run(config)
    kept = best(config, "best")
    steps = {info.uri.split("/")[-2] for info in storage.list_objects(
        f"{place.store}/runs/best/checkpoints")}  # fmt: skip
    assert steps == {f"step-{last.step:08d}", f"step-{kept.step:08d}"}
    assert kept.figures["accuracy"] == last.figures["best_accuracy"]
    assert kept.step % 15 == 0  # an epoch of the tiny data has 15 steps


def test_data_of_another_image_size_is_refused(place):
    with pytest.raises(ConfigError, match="holds images of 32 pixels: set image_size=32"):
        run(configured(place, "sizes", "image_size=64"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_stopped_within_an_epoch_goes_on_bit_exactly(place, workers):
    changes = (
        "train.max_steps=20", "train.checkpoint_every_steps=9", "train.loader.window_shards=1",
        f"train.loader.workers={workers}", "train.augment.crop=0.7", "train.augment.color=0.2",
        "train.augment.flip=true",
    )  # fmt: skip
    config = configured(place, f"windows-{workers}", *changes)
    expected = tensors_of(run(config))
    storage.delete_prefix(f"{place.store}/runs/windows-{workers}/checkpoints/step-00000020")
    storage.delete_prefix(f"{place.store}/runs/windows-{workers}/checkpoints/step-00000018")
    assert_same(tensors_of(run(config)), expected)  # from step 9 of an epoch of 15


def test_damaged_images_are_counted_and_do_not_end_training(place, tmp_path, caplog):
    dataset = ShardSet.read(f"{place.store}/runs/shards/preprocess/index.json")
    content = storage.read_bytes(dataset.shards[0].uri)
    damaged = content.replace(b"\xff\xd8\xff", b"\xff\xd8\x00", 40)
    assert damaged != content
    uri, index = str(tmp_path / "shard.arrow"), str(tmp_path / "damaged" / "index.json")
    storage.write_bytes(uri, damaged)
    digest = storage.sha256_of_file(tmp_path / "shard.arrow")
    first = dataset.shards[0].model_copy(update={"uri": uri, "sha256": digest})
    shards = [first, *dataset.shards[1:]]
    dataset.model_copy(update={"shards": shards, "uri": index}).write(index)
    whole = run(configured(place, "damaged", f"train.dataset_uri={index}", "train.max_steps=15"))
    assert whole.figures["replaced_images"] == 40  # an epoch of 15 steps, filled from elsewhere
    assert "shard.arrow cannot be used: " in caplog.text
    assert "40 images could not be used so far" in caplog.text
    again = run(
        configured(
            place, "damaged-again", f"train.dataset_uri={index}", "train.max_steps=15",
            "train.resume_run=damaged", "train.resume_step=9",
        )
    )  # fmt: skip
    assert again.figures["replaced_images"] == 40


def test_altered_shard_is_refused(place, tmp_path):
    dataset = ShardSet.read(f"{place.store}/runs/shards/preprocess/index.json")
    content = bytearray(storage.read_bytes(dataset.shards[0].uri))
    content[len(content) // 2] ^= 1
    altered = str(tmp_path / "shard.arrow")
    storage.write_bytes(altered, bytes(content))
    shards = [dataset.shards[0].model_copy(update={"uri": altered}), *dataset.shards[1:]]
    index = str(tmp_path / "altered" / "index.json")
    dataset.model_copy(update={"shards": shards, "uri": index}).write(index)
    with pytest.raises(ShardError, match=r"shard\.arrow"):
        run(
            configured(
                place, "altered", f"train.dataset_uri={index}",
                f"train.loader.cache_path={tmp_path}/cache",  # another may hold it as it was
            )
        )  # fmt: skip


def test_label_beyond_the_classes_is_refused(place, tmp_path):
    dataset = ShardSet.read(f"{place.store}/runs/shards/preprocess/index.json")
    index = str(tmp_path / "fewer" / "index.json")
    dataset.model_copy(update={"num_classes": 39, "uri": index}).write(index)
    with pytest.raises(ShardError, match=r"holds labels 0\.\.39, .* 39 classes, 0\.\.38"):
        run(configured(place, "fewer", f"train.dataset_uri={index}"))


@pytest.mark.parametrize("every_steps", [0, 5])
def test_loss_that_is_not_finite_is_never_saved(place, every_steps):
    with pytest.raises(TrainError, match=r"loss is nan after step|rank 0 are not finite"):
        run(
            configured(
                place, f"nan-{every_steps}", "train.optimizer.lr=1e30", "train.optimizer.name=sgd",
                "train.schedule.warmup_epochs=0", f"train.checkpoint_every_steps={every_steps}",
                "train.log_every_steps=1000",
            )
        )  # fmt: skip
    assert not list(storage.list_objects(f"{place.store}/runs/nan-{every_steps}/checkpoints"))


def stepped(place, tmp_path, run_id, *overrides, resume_run=""):
    """Run the step as the pipeline does, on two ranks."""
    metadata, metrics = {}, {}
    run_step(
        "tiny",
        " ".join((*place.overrides(run_id), *SHORT, *overrides)),
        "",
        run_id,
        resume_run=resume_run,
        dataset_path=f"{place.store}/runs/shards/preprocess/index.json",
        model_path=str(tmp_path / "model.json"),
        metadata=metadata,
        metrics=metrics,
    )
    return metadata, metrics


@pytest.mark.slow
def test_killed_rank_is_named_and_the_next_run_resumes(place, tmp_path, capfd):
    killer = threading.Thread(target=kill_a_rank_after_a_checkpoint, args=(place, "killed"))
    killer.start()
    with pytest.raises(TrainError) as failure:
        stepped(place, tmp_path, "killed", "train.max_steps=100000", "train.epochs=100000")
    killer.join()
    message = str(failure.value)
    assert "of 2 was killed by SIGKILL" in message
    assert "resume run killed from its checkpoint of step" in message
    assert not [p for p in psutil.process_iter(["cmdline"]) if is_rank_of(p, "killed")]
    assert (place.store / "runs/killed/train/failure.json").is_file()

    capfd.readouterr()
    done = int(message.rsplit(" ", 1)[1])
    limit = f"train.max_steps={done + 2}"
    metadata, metrics = stepped(
        place, tmp_path, "after", limit, "train.epochs=100000", resume_run="killed"
    )
    assert f"resumes run killed from step {done}" in capfd.readouterr().out
    assert metadata["step"] == done + 2
    assert metadata["ranks"] == 2
    assert metrics["loss"] > 0
    assert Checkpoint.read(str(tmp_path / "model.json")).step == done + 2


def is_rank_of(process, run_id):
    arguments = process.info["cmdline"] or []
    return "plsc.train" in arguments and any(run_id in a for a in arguments)


def kill_a_rank_after_a_checkpoint(place, run_id):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if list((place.store / "runs" / run_id / "checkpoints").glob("*/index.json")):
            break
        time.sleep(0.1)
    ranks = [
        process
        for process in psutil.process_iter(["cmdline"])
        if is_rank_of(process, run_id) and "torch.distributed.run" not in process.info["cmdline"]
    ]
    os.kill(ranks[-1].pid, signal.SIGKILL)


def test_error_of_a_rank_reaches_the_step(place, tmp_path):
    with pytest.raises(ConfigError, match="holds images of 32 pixels"):
        stepped(place, tmp_path, "wrong", "image_size=48")


def test_doorway_ends_with_the_exit_code_of_the_error(place):
    command = [sys.executable, "-m", "plsc.train", "experiment=tiny", *place.overrides("door")]
    ended = subprocess.run([*command, "image_size=48", f"train.dataset_uri={place.store}/none"],
                           capture_output=True, text=True, check=False)  # fmt: skip
    assert ended.returncode == 3, ended.stdout + ended.stderr
    assert "there is no such file" in ended.stdout
