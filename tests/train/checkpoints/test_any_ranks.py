"""Any number of ranks goes on from what any number wrote, in every way a head can be kept."""

import dataclasses

import pytest
import torch

from plsc.train.checkpoints.resuming import resume
from plsc.train.checkpoints.slots import slots
from plsc.train.head import decode
from tests.train.ranks import on_ranks
from tests.train.states import (
    CLASSES,
    configured,
    fresh,
    saved,
    state_of,
    stepped,
)

MODES = {
    "sgd": ("train.optimizer.name=sgd",),
    "softmax": ("train.optimizer.name=sgd", "train.head.loss=softmax"),
    "adamw": ("train.optimizer.name=adamw",),
    "bf16-momentum": ("train.optimizer.name=sgd", "train.head.momentum_dtype=bf16"),
    "int8-momentum": ("train.optimizer.name=adamw", "train.head.momentum_dtype=int8"),
    "bf16-weight": ("train.optimizer.name=sgd", "train.head.weight_dtype=bf16"),
    "plain": ("train.head.update=plain",),
    "replicated": ("train.head.distribution=replicated",),
    "few-classes": ("train.optimizer.name=adamw",),
}
ROUNDED = {"bf16-momentum", "int8-momentum", "bf16-weight"}  # with noise of their own on each rank


def begun(ranks, config, mode):
    """Step twice, save, step twice; return the state at the checkpoint and at the end."""
    state = stepped(fresh(config, ranks, classes_of(mode)), ranks)
    saved(state, config, ranks)
    at_checkpoint = state_of(state)
    return at_checkpoint, state_of(stepped(state, ranks))


def gone_on(ranks, config, mode):
    state = fresh(config, ranks, classes_of(mode))
    assert resume(state, config).step == state.step == 2
    at_checkpoint = state_of(state)
    return at_checkpoint, state_of(stepped(state, ranks))


def classes_of(mode):
    return 2 if mode == "few-classes" else CLASSES


def whole(states, mode):
    """Put the ranks' rows together; a replicated head's are all on each."""
    backbone, rows = states[0]
    if mode != "replicated":
        # A rank without classes has no slots and no count of steps.
        ranks = [rows for _, rows in states if len(rows["weight"])]
        rows = {
            name: torch.cat([rank[name] for rank in ranks]) if rows[name].ndim else rows[name]
            for name in rows
        }
    return backbone, rows


@pytest.mark.slow
def test_checkpoint_of_some_ranks_goes_on_with_any_number(tmp_path):
    configs = {mode: configured(tmp_path, *MODES[mode]) for mode in MODES}
    written = {}
    for writers in (1, 2, 3):
        cases = [(stored_under(config, writers, mode), mode) for mode, config in configs.items()]
        states = on_ranks(writers, begun, cases)
        written |= {(writers, mode): state for mode, state in zip(MODES, states, strict=True)}
    # As many ranks as wrote it, fewer, and more.
    for readers, all_writers in ((1, (1, 3)), (2, (1, 2)), (3, (2,))):
        chosen = [(writers, mode) for writers, mode in written if writers in all_writers]
        cases = [(stored_under(configs[mode], writers, mode), mode) for writers, mode in chosen]
        for (writers, mode), found in zip(chosen, on_ranks(readers, gone_on, cases), strict=True):
            expected = written[writers, mode]
            assert_equal(expected, found, 0, mode, exact=True)
            assert_equal(expected, found, 1, mode, exact=readers == writers)


def stored_under(config, writers, mode):
    return dataclasses.replace(config, store_uri=f"{config.store_uri}/{mode}-{writers}")


def assert_equal(expected, found, when, mode, *, exact):
    for part in (0, 1):
        one = whole([rank[when] for rank in expected], mode)[part]
        other = whole([rank[when] for rank in found], mode)[part]
        if exact:
            torch.testing.assert_close(other, one, rtol=0, atol=0, msg=lambda m: f"{mode}: {m}")
        elif mode not in ROUNDED:
            torch.testing.assert_close(
                other, one, rtol=1e-4, atol=1e-5, msg=lambda m: f"{mode}: {m}"
            )


@pytest.mark.parametrize("storage_dtype", ["bf16", "int8"])
@pytest.mark.parametrize("update", ["fused", "plain"])
def test_narrow_momentum_goes_on_in_another_format(tmp_path, storage_dtype, update):
    written_as = configured(tmp_path, f"train.head.momentum_dtype={storage_dtype}")
    first = stepped(fresh(written_as))
    saved(first, written_as)
    config = configured(tmp_path, f"train.head.update={update}")
    second = fresh(config)
    resume(second, config)
    rows = first.head.state_rows()
    found = second.head.state_rows() | slots(second.optimizer, second.head)
    for name in ("exp_avg", "exp_avg_sq"):
        expected = decode(f"optimizer/weight/{name}", rows).float()
        torch.testing.assert_close(found[f"optimizer/weight/{name}"], expected, rtol=0, atol=0)
    assert found["optimizer/weight/step"] == 2
    stepped(second)
