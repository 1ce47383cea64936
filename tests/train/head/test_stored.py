"""Storage formats of the head: what is lost, and that nothing is lost on average."""

import pytest
import torch

from plsc.conf.schema import StateDtype
from plsc.train.head.stored import Noise, decode, stored
from plsc.train.head.update import Sgd, load_slots

CPU = torch.device("cpu")
FORMATS = list(StateDtype)


def noise(step=0):
    made = Noise(CPU)
    made.restart(seed=1, step=step, rank=0)
    return made


def write(matrix, rows, values, noise):
    matrix.write(rows, matrix.read(rows).copy_(values), noise)


def values(rows=64, size=256):
    generator = torch.Generator().manual_seed(0)
    magnitudes = torch.logspace(-6, 0, rows)[:, None]
    return torch.randn(rows, size, generator=generator) * magnitudes


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("rows", [slice(16, 48), torch.arange(47, 15, -1)])
def test_rows_come_back_within_the_resolution_and_others_are_not_touched(dtype, rows):
    matrix = stored((64, 256), dtype, CPU)
    expected = values()[rows]
    write(matrix, rows, expected, noise())
    found = matrix.read(rows)
    resolution = {StateDtype.fp32: 0, StateDtype.bf16: 2**-7, StateDtype.int8: 1 / 126}[dtype]
    largest = expected.abs().amax(dim=1, keepdim=True)
    scale = largest if dtype is StateDtype.int8 else expected.abs()
    assert ((found - expected).abs() <= resolution * scale).all()
    others = torch.ones(64, dtype=torch.bool)
    others[rows] = False
    assert not matrix.read(others.nonzero().flatten()).any()


@pytest.mark.parametrize("dtype", [StateDtype.bf16, StateDtype.int8])
def test_stochastic_rounding_is_right_on_average(dtype):
    expected = values(8, 128)
    matrix = stored((8, 128), dtype, CPU)
    total = torch.zeros_like(expected, dtype=torch.float64)
    repeats = 4000
    for step in range(repeats):
        write(matrix, slice(0, 8), expected, noise(step))
        total += matrix.read(slice(0, 8))
    resolution = {StateDtype.bf16: 2**-7, StateDtype.int8: 1 / 127}[dtype]
    largest = expected.abs().amax(dim=1, keepdim=True)
    scale = largest if dtype is StateDtype.int8 else expected.abs()
    # Standard error of a mean of ``repeats`` draws, each within one step: five of them.
    bound = 5 * resolution * scale / repeats**0.5
    assert ((total / repeats - expected).abs() <= bound + 1 / 256 * resolution * scale).all()


def test_small_updates_are_lost_to_nearest_and_kept_at_random():
    kept = stored((1, 4096), StateDtype.bf16, CPU)
    lost = stored((1, 4096), StateDtype.bf16, CPU, is_stochastic=False)
    for matrix in (kept, lost):
        write(matrix, slice(0, 1), torch.ones(1, 4096), noise())
    for step in range(100):
        for matrix in (kept, lost):
            write(matrix, slice(0, 1), matrix.read(slice(0, 1)) + 1e-3, noise(step))
    assert lost.read(slice(0, 1)).mean() == 1.0
    assert kept.read(slice(0, 1)).mean() == pytest.approx(1.1, abs=5e-3)


@pytest.mark.parametrize("dtype", [StateDtype.bf16, StateDtype.int8])
def test_what_can_be_stored_exactly_is(dtype):
    exact = torch.tensor([[0.0, 127.0, -127.0, 1.0, -64.0, 2.0, 96.0, 3.0]])
    matrix = stored((1, 8), dtype, CPU)
    write(matrix, slice(0, 1), exact, noise())
    assert torch.equal(matrix.read(slice(0, 1)), exact)


@pytest.mark.parametrize("dtype", FORMATS)
def test_zeros_stay_zeros(dtype):
    matrix = stored((3, 100), dtype, CPU)
    write(matrix, slice(0, 3), torch.zeros(3, 100), noise())
    assert not matrix.read(slice(0, 3)).any()


@pytest.mark.parametrize("size", [1, 97, 100, 127, 128, 300])
def test_any_size_is_cut_into_blocks(size):
    matrix = stored((2, size), StateDtype.int8, CPU)
    expected = values(2, size)
    write(matrix, slice(0, 2), expected, noise())
    largest = expected.abs().amax(dim=1, keepdim=True)
    assert ((matrix.read(slice(0, 2)) - expected).abs() <= largest / 126).all()


def test_noise_is_the_same_for_the_same_step_and_rank_only():
    like = torch.empty(50, 70)
    draws = []
    for step, rank in ((3, 0), (3, 0), (4, 0), (3, 1)):
        made = Noise(CPU)
        made.restart(seed=9, step=step, rank=rank)
        draws.append(made.bits(like))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])


def test_loading_into_another_format_rounds_the_same_each_time():
    rows = {"momentum_buffer": values(4)}
    loaded = []
    for _ in range(2):
        optimizer = Sgd(0.9, 0.0, stored((4, 256), StateDtype.int8, CPU))
        load_slots(optimizer, "", rows)
        loaded.append(optimizer.slots["momentum_buffer"].read(slice(0, 4)))
    assert torch.equal(*loaded)
    largest = rows["momentum_buffer"].abs().amax(dim=1, keepdim=True)
    assert ((loaded[0] - rows["momentum_buffer"]).abs() <= largest / 126).all()


def test_noise_fills_its_range_evenly():
    made = noise()
    bits, fractions = made.bits(torch.empty(400, 400)), made.fractions(torch.empty(400, 400))
    for values in (bits / 65536, fractions):
        assert 0 <= values.min() < 1e-3
        assert 1 - 1e-3 < values.max() < 1
        assert values.mean() == pytest.approx(0.5, abs=5e-3)


@pytest.mark.parametrize("dtype", FORMATS)
def test_decode_reads_what_a_checkpoint_holds(dtype):
    matrix = stored((4, 256), dtype, CPU)
    write(matrix, slice(0, 4), values(4), noise())
    rows = {f"momentum{suffix}": tensor for suffix, tensor in matrix.tensors().items()}
    assert torch.equal(decode("momentum", rows).float(), matrix.read(slice(0, 4)))
