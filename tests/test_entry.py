"""Entry: the seed's five lines on a folder in the seed's layout."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from plsc import Entry
from plsc.conf.schema import Distribution, Loss, LossScaleConfig, Precision
from plsc.errors import ConfigError
from plsc.verification import write_benchmark
from tests.samples import jpeg, patterns

CLASSES = 6


@pytest.fixture(scope="module")
def seed_folder(tmp_path_factory):
    """``images/``, ``label.txt`` and ``lfw.bin``, as PLSC has them."""
    folder = tmp_path_factory.mktemp("train_data")
    (folder / "images").mkdir()
    generator = torch.Generator().manual_seed(0)
    lines = []
    for number in range(48):
        label = number % CLASSES
        pixels = torch.full((32, 32, 3), 40 * label + 20) + torch.randint(
            0, 15, (32, 32, 3), generator=generator
        )
        (folder / f"images/{number:08d}.jpg").write_bytes(jpeg(pixels.to(torch.uint8).numpy()))
        lines.append(f"images/{number:08d}.jpg {label}")
    (folder / "label.txt").write_text("\n".join(lines) + "\n")
    write_benchmark(str(folder), patterns("lfw", 32, 40, seed=0))
    return folder


def small(seed_folder, tmp_path):
    ins = Entry()
    ins.set_dataset_dir(str(seed_folder))
    ins.set_model_save_dir(str(tmp_path))
    ins.set_class_num(CLASSES)
    ins.set_model("glyphnet")
    ins.set_image_shape([3, 32, 32])
    ins.set_emb_size(16)
    ins.set_train_batch_size(16)
    ins.set_train_epochs(1)
    return ins


def test_five_lines_train_test_and_convert(seed_folder, tmp_path):
    ins = small(seed_folder, tmp_path)
    checkpoint = ins.train()
    assert checkpoint.num_classes == CLASSES
    assert checkpoint.step == 3
    assert "accuracy_lfw" in checkpoint.figures
    assert ins.test().keys() == {"lfw"}
    model = ins.convert_for_prediction()
    assert model.embedding_size == 16
    assert model.parity_max_abs <= 1e-4


def test_module_of_your_own_is_trained(seed_folder, tmp_path):
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 16))

        def forward(self, images):
            return self.body(images)

    ins = small(seed_folder, tmp_path)
    ins.set_model(Mine())
    ins.set_with_test(False)
    ins.set_loss_type("softmax")
    assert ins.train().embedding_size == 16


@pytest.mark.slow
def test_same_lines_run_on_two_ranks(seed_folder, tmp_path):
    program = tmp_path / "five.py"
    program.write_text(
        "from plsc import Entry\n"
        "ins = Entry()\n"
        f"ins.set_dataset_dir({str(seed_folder)!r})\n"
        f"ins.set_model_save_dir({str(tmp_path / 'out')!r})\n"
        f"ins.set_class_num({CLASSES})\n"
        "ins.set_model('glyphnet'); ins.set_image_shape([3, 32, 32]); ins.set_emb_size(16)\n"
        "ins.set_train_batch_size(8); ins.set_train_epochs(1)\n"
        "ins.train()\n"
    )
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    ended = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, timeout=200
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (index,) = (tmp_path / "out" / "runs").glob("*/train/index.json")
    document = json.loads(index.read_text())
    assert document["ranks"] == 2
    assert document["step"] == 3
    assert [block["num_classes"] for block in document["head"]] == [3, 3]


def composed(ins):
    """Return the configuration that ``train`` would run with."""
    ins._run_id = "composed"
    return ins._config()


def test_mixed_precision_knobs_reach_the_loss_scale():
    ins = Entry()
    ins.set_mixed_precision(True, 1024.0, 500, 3, 4.0, 0.25, False)
    train = composed(ins).train
    assert train.precision is Precision.fp16
    assert train.loss_scale == LossScaleConfig(
        init=1024.0, is_dynamic=False, growth_interval=500, growth_factor=4.0, backoff_interval=3,
        backoff_factor=0.25,
    )  # fmt: skip


def test_defaults_of_mixed_precision_are_those_of_the_configuration():
    ins = Entry()
    ins.set_mixed_precision(use_fp16=True)
    assert composed(ins).train.loss_scale == LossScaleConfig()
    ins.set_mixed_precision(use_fp16=False)
    assert composed(ins).train.precision is Precision.fp32


def test_sample_ratio_reaches_the_head():
    ins = Entry()
    ins.set_sample_ratio(0.1)
    assert composed(ins).train.head.sample_rate == 0.1


@pytest.mark.parametrize(
    ("loss_type", "loss", "distribution"),
    [
        ("dist_arcface", Loss.arcface, Distribution.sharded),
        ("dist_softmax", Loss.softmax, Distribution.sharded),
        ("arcface", Loss.arcface, Distribution.replicated),
        ("softmax", Loss.softmax, Distribution.replicated),
    ],
)
def test_loss_type_says_who_holds_the_classes(loss_type, loss, distribution):
    ins = Entry()
    ins.set_loss_type(loss_type)
    head = composed(ins).train.head
    assert (head.loss, head.distribution) == (loss, distribution)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="amp_lists: expected None"):
        Entry().set_mixed_precision(True, amp_lists=["softmax"])
    with pytest.raises(ConfigError, match=r"expected \[3, size, size\], found \[1, 28, 28\]"):
        Entry().set_image_shape([1, 28, 28])
    with pytest.raises(ConfigError, match="expected one of dist_arcface"):
        Entry().set_loss_type("triplet")
    with pytest.raises(ConfigError, match="call train"):
        Entry().test()
