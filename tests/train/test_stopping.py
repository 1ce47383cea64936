"""Stopping early: all ranks at one step, with a checkpoint, and going on as if nothing had been."""

import os
import signal
import threading

import pytest

from plsc import doorway, storage
from plsc.artifacts.checkpoint import Checkpoint
from plsc.conf import compose
from plsc.models import read_tensors
from plsc.train import lease
from plsc.train.checkpoints import Checkpointer
from plsc.train.loop import Loop
from plsc.train.process_group import Vote
from plsc.train.stage import run
from plsc.train.stopping import Reason, Stopped, Stopping
from tests.train.ranks import on_ranks
from tests.train.states import ALONE

SHORT = ("train.max_steps=12", "train.checkpoint_every_steps=5", "train.log_every_steps=1")


def overrides(place, run_id, *more):
    dataset = f"train.dataset_uri={place.store}/runs/shards/preprocess/index.json"
    return [*place.overrides(run_id), dataset, *SHORT, *more]


def configured(place, run_id, *more):
    return compose("tiny", *overrides(place, run_id, *more))


def tensors_of(checkpoint):
    parts = [checkpoint.backbone, *checkpoint.head]
    return {(n, k): v for n, part in enumerate(parts) for k, v in read_tensors(part).items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def steps_of(config):
    folder = f"{config.store_uri}/runs/{config.run_id}/checkpoints"
    found = [info.uri for info in storage.list_objects(folder)]
    return sorted({int(u.split("/step-")[1][:8]) for u in found if u.endswith("/index.json")})


def at_step(step, action):
    """Have ``action`` done while that step is being taken."""
    report = Loop._report

    def reporting(self, *arguments):
        report(self, *arguments)
        if self.state.step == step:
            action()

    return pytest.MonkeyPatch.context(), reporting


def run_and_signal(config, step, *, times=1):
    """Train, have SIGTERM come in ``step``, and return the exit code with which that ends."""
    patching, reporting = at_step(
        step, lambda: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(times)]
    )
    with patching as patch:
        patch.setattr(Loop, "_report", reporting)
        try:
            run(config)
        except Stopped as stopped:
            return stopped.code
    return None


def on_two_ranks(ranks, arguments, signaled):
    """Train straight; then with SIGTERM to some ranks, and on: what each rank saw of it."""
    os.environ["WORLD_SIZE"] = str(ranks.world_size)
    expected = run(compose("tiny", *arguments, "run_id=whole"))
    codes, config = [], compose("tiny", *arguments)
    for rank, step, times in signaled:
        is_mine = rank in {ranks.rank, "all"}
        codes.append(run_and_signal(config, step if is_mine else 10**9, times=times))
    steps = steps_of(config)
    again = run(config)
    os.environ["WORLD_SIZE"] = "1"
    return codes, steps, tensors_of(expected), tensors_of(again)


def test_ranks_stop_at_one_step_and_go_on_bit_exactly(place):
    signaled = [(1, 2, 1), (0, 5, 3), ("all", 9, 1)]
    case = (overrides(place, "stopped"), signaled)
    ((codes, steps, expected, again), (other_codes, _, _, _)) = on_ranks(2, on_two_ranks, [case])[0]
    # A signal in step n is in the vote of step n+1, which is read in n+2: that is the last one.
    assert codes == other_codes == [143, 143, 143]
    assert steps == [4, 5, 7, 10, 11]
    assert_same(again, expected)


def test_alone_it_stops_with_the_next_step_and_goes_on_bit_exactly(place, caplog):
    caplog.set_level("INFO")
    expected = tensors_of(run(configured(place, "straight-alone")))
    config = configured(place, "alone")
    assert run_and_signal(config, 6) == 143
    assert steps_of(config) == [5, 7]
    assert "stopped by SIGTERM at step 7, checkpoint written" in caplog.text
    assert_same(tensors_of(run(config)), expected)


def test_a_stop_is_no_failure_and_leaves_no_index(place):
    config = configured(place, "quiet")
    assert run_and_signal(config, 2) == 143
    assert not storage.exists(doorway.failure_uri(config, "train"))
    assert not storage.exists(doorway.index_uri(config, "train"))


def test_a_step_whose_checkpoint_is_due_anyway_is_saved_once(place, monkeypatch):
    saved = []
    save = Checkpointer.save

    def counting(self, state, **named):
        saved.append(state.step)
        save(self, state, **named)

    monkeypatch.setattr(Checkpointer, "save", counting)
    assert run_and_signal(configured(place, "once"), 4) == 143
    assert saved == [5]


@pytest.mark.parametrize("step", [11, 12])
def test_a_signal_in_the_last_steps_changes_nothing(place, step):
    config = configured(place, f"late-{step}")
    assert run_and_signal(config, step) is None
    assert storage.exists(doorway.index_uri(config, "train"))


def test_the_handler_of_before_is_back_behind_the_block():
    before = signal.getsignal(signal.SIGTERM)
    with Stopping(ALONE):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_another_thread_signals_are_left_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def stop_by_asking():
        with Stopping(ALONE) as stopping:
            seen.append(signal.getsignal(signal.SIGTERM))
            seen.append(stopping.is_agreed())
            stopping.ask(Reason.LEASE)
            seen.append(stopping.is_agreed())
            seen.append(stopping.reason)

    thread = threading.Thread(target=stop_by_asking)
    thread.start()
    thread.join()
    assert seen == [before, False, True, Reason.LEASE]


def test_training_stops_when_its_lease_is_not_renewed(place, monkeypatch, caplog):
    caplog.set_level("INFO")
    config = configured(place, "orphan", "train.max_steps=1000000", "train.epochs=1000000")
    config.train.lease_s = 0.2
    monkeypatch.setenv(lease.LEASE_URI, lease.lease_uri(config))
    monkeypatch.setattr(lease, "is_held", lambda _: True)
    storage.write_bytes(lease.lease_uri(config), b"of a step that is gone")
    with pytest.raises(Stopped) as stopped:
        run(config)
    assert stopped.value.code == 0  # another code has the kubelet start it again
    assert "has not changed for" in caplog.text
    assert "the step that started the ranks has given no sign for train.lease_s" in caplog.text
    assert steps_of(config)[-1] > 0


def ends_unwanted(ranks, arguments):
    os.environ["WORLD_SIZE"] = str(ranks.world_size)
    config = compose("tiny", *arguments)
    config.train.lease_s = 0.2
    os.environ[lease.LEASE_URI] = lease.lease_uri(config)
    try:
        run(config)
    except Stopped as stopped:
        return stopped.code, storage.exists(f"{config.store_uri}/runs/{config.run_id}/checkpoints")
    finally:
        del os.environ[lease.LEASE_URI]
        os.environ["WORLD_SIZE"] = "1"
    return "trained", True


def test_ranks_that_nobody_waits_for_end_before_they_train_and_are_not_started_again(place):
    case = (overrides(place, "unwanted"),)
    assert on_ranks(2, ends_unwanted, [case]) == [[(0, False), (0, False)]]


def test_a_stop_at_the_end_of_an_epoch_is_saved_and_not_verified(place):
    verifying = ("train.verify_every_epochs=1", "train.verify_benchmarks=[glyph_cross]")
    config = configured(place, "hurried", "train.max_steps=30", *verifying)
    assert run_and_signal(config, 14) == 143
    index = f"{place.store}/runs/hurried/checkpoints/step-00000015/index.json"  # an epoch's 15
    assert "accuracy_glyph_cross" not in Checkpoint.read(index).figures


def votes(ranks, numbers):
    vote = Vote(ranks)
    vote.open()
    return [vote.cast(given[ranks.rank]) for given in numbers]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_vote_is_read_one_step_later_and_equal_on_all_ranks(world_size):
    numbers = [(0, 0), (0, 1), (2, 1), (0, 0), (0, 0)]
    (seen,) = on_ranks(world_size, votes, [(numbers,)])
    assert seen == ([[0, 0, 2, 0, 0]] if world_size == 1 else [[0, 0, 1, 2, 0]] * 2)
