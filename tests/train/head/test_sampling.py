"""Class sampling: which rows take part, whatever the number of ranks, and that no other is read."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plsc.conf.schema import HeadUpdate, Loss
from plsc.train.head import HeadStep, Margin, ShardedHead
from plsc.train.head.sampling import sample_rows
from plsc.train.partition import partition_classes
from tests.train.problems import (
    ADAMW,
    ALONE,
    LR,
    Problem,
    assert_close,
    assert_equals_reference,
    configured,
    trained,
)
from tests.train.ranks import on_ranks
from tests.train.reference import dense_loss


def taken(classes, rate, labels, step=0):
    """Return the class ids that take part on a rank."""
    sample = sample_rows(classes, rate, labels, seed=3, step=step)
    rows = sample.rows_N[sample.rows_N < len(classes)]
    assert len(rows.unique()) == len(rows)
    own = labels[(labels >= classes.start) & (labels < classes.stop)] - classes.start
    assert torch.equal(sample.rows_N[sample.places(own)], own)
    return set((rows + classes.start).tolist())


@settings(deadline=None, max_examples=60)
@given(
    num_classes=st.integers(1, 400),
    rate=st.floats(0.01, 1.0),
    world_size=st.integers(1, 6),
    step=st.integers(0, 1000),
    data=st.data(),
)
def test_sample_holds_every_positive_and_does_not_depend_on_the_ranks(
    num_classes, rate, world_size, step, data
):
    labels = torch.tensor([*data.draw(st.lists(st.integers(-1, num_classes - 1), max_size=20)), -1])
    alone = taken(range(num_classes), rate, labels, step)
    shards = [partition_classes(num_classes, world_size, rank) for rank in range(world_size)]
    together = [taken(shard, rate, labels, step) for shard in shards if shard]
    assert set().union(*together) == alone
    positives = set(labels[labels >= 0].tolist())
    assert positives <= alone
    assert abs(len(alone - positives) - rate * num_classes) <= 1 + len(positives)


def test_every_class_is_drawn_equally_often():
    counts = torch.zeros(1000)
    for step in range(2000):
        counts[list(taken(range(1000), 0.1, torch.tensor([-1]), step))] += 1
    # Binomial with p = 0.1: mean 200, standard deviation 13.4.
    assert counts.mean() == pytest.approx(200, abs=2)
    assert counts.std() == pytest.approx(13.4, abs=2)
    assert (counts - 200).abs().max() < 5 * 13.4


SAMPLED = [
    Problem(configured(loss, sample_rate=0.4), optimizer, num_classes=37, batch_size=6)
    for loss in (Loss.arcface, Loss.softmax)
    for optimizer in (Problem(configured()).optimizer, ADAMW)
]


def test_only_rows_that_take_part_change_and_they_change_as_without_the_others():
    for problem in SAMPLED:
        one = dataclasses.replace(problem, steps=1)
        output = trained(ALONE, one)
        embeddings, labels = one.batch(0)
        chosen = taken_in_step(one, labels)
        changed = (output["weight"] != output["initial"]).any(dim=1)
        assert torch.equal(changed, chosen)
        weight = output["initial"].double().requires_grad_()
        bias = torch.zeros(37, dtype=torch.float64) if one.config.loss is Loss.softmax else None
        embeddings.requires_grad_()
        loss = dense_loss(one.config.loss, embeddings, weight, bias, labels,
                          Margin.of(one.config), one.config.scale, chosen)  # fmt: skip
        loss.backward()
        assert output["losses"][0] == pytest.approx(loss.item(), rel=1e-11)
        assert_close(output["gradients"][0], embeddings.grad, 1e-11)


def taken_in_step(problem, labels):
    sample = sample_rows(range(problem.num_classes), problem.config.sample_rate, labels,
                         seed=7, step=0)  # fmt: skip
    chosen = torch.zeros(problem.num_classes, dtype=torch.bool)
    chosen[sample.rows_N[sample.rows_N < problem.num_classes]] = True
    return chosen


def test_sampling_every_class_is_the_full_softmax():
    # The largest rate below 1 that still draws every class.
    for update in (HeadUpdate.fused, HeadUpdate.deferred):
        problem = Problem(configured(sample_rate=1 - 1e-9, update=update))
        assert_equals_reference(problem, [trained(ALONE, problem)], 1e-11)


@pytest.mark.slow
def test_sampled_training_is_the_same_on_any_number_of_ranks():
    (alone,) = zip(*on_ranks(1, trained, [(p,) for p in SAMPLED]), strict=True)
    for world_size in (2, 3):
        outputs = on_ranks(world_size, trained, [(p,) for p in SAMPLED])
        for expected, of_ranks in zip(alone, outputs, strict=True):
            assert of_ranks[0]["losses"] == pytest.approx(expected["losses"], rel=1e-11)
            for name in ("weight", *(n for n in expected if n.startswith("optimizer/weight/exp"))):
                assert_close(torch.cat([o[name] for o in of_ranks]), expected[name], 1e-11)


def test_momentum_of_a_row_waits_until_it_takes_part_again():
    config = configured(sample_rate=0.2)
    head = ShardedHead(config, Problem(config).optimizer, num_classes=50, embedding_size=8,
                       ranks=ALONE, seed=0)  # fmt: skip
    rows = head.state_rows()
    for step in range(5):
        before = {name: tensor.clone() for name, tensor in rows.items()}
        embeddings = torch.randn(4, 8, requires_grad=True)
        labels = torch.randint(0, 50, (4,))
        head(embeddings, labels, HeadStep(step, LR, Margin(m2=0.5))).loss.backward()
        sample = sample_rows(range(50), 0.2, labels, seed=0, step=step).rows_N
        others = torch.ones(50, dtype=torch.bool)
        others[sample[sample < 50]] = False
        assert others.any()
        for name, tensor in rows.items():
            assert torch.equal(tensor[others], before[name][others])
            assert not torch.equal(tensor, before[name])
