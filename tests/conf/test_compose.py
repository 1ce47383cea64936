"""The configuration: every experiment composes, and mistakes are named before anything runs."""

import pytest

from plsc.conf import compose, experiments, split_overrides, to_dict
from plsc.conf.schema import Loss, Optimizer
from plsc.errors import ConfigError


@pytest.mark.parametrize("experiment", experiments())
def test_every_experiment_composes(experiment):
    config = compose(experiment, "run_id=test")
    assert config.name == experiment
    assert config.deploy.model_name == experiment
    assert config.train.dataset_uri.startswith(config.store_uri)


def test_glyphs_is_the_default_and_tiny_extends_it():
    glyphs, tiny = compose("glyphs", "run_id=test"), compose("tiny", "run_id=test")
    assert glyphs.model.name == tiny.model.name == "glyphnet"
    assert tiny.train.head.loss is Loss.arcface
    assert tiny.train.optimizer.name is Optimizer.adamw
    assert tiny.image_size < glyphs.image_size


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trian.epochs=1", "Key 'trian' not in 'PipelineConfig'"),
        ("train.epoch=1", "Key 'epoch' not in 'TrainConfig'"),
        ("train.epochs=many", "could not be converted to Integer"),
        ("train.optimizer.name=adam", "expected one of .*sgd, adamw"),
        ("model=resnet", "Could not find 'model/resnet'"),
        ("train.epochs=0", "train.epochs must be greater than 0, not 0"),
        ("train.ranks=300", "global_batch_size=128 gives no sample to some of the 300 ranks'"),
        ("train.micro_batches=0", "train.micro_batches must be greater than 0"),
        ("train.clip_norm=-1", "train.clip_norm must not be negative"),
        ("train.head.sample_rate=0", r"sample_rate must lie in 0 \(excluded\)\.\.1, not 0"),
        ("train.head.margins=[1,2]", "train.head.margins must be three numbers"),
        ("train.head.loss=sphereface", "margin must be at least 1 for sphereface, not 0.2"),
        ("train.head.margin=4", r"margin must lie in 0\.\.pi \(excluded\) for arcface, not 4"),
        ("train.head.precision=fp16", "train.head.precision must be fp32 or bf16"),
        ("train.head.weight_dtype=int8", "train.head.weight_dtype must be fp32 or bf16"),
        ("train.loss_scale.init=0.5", "train.loss_scale must have init >= 1"),
        ("train.finetune_head=true", "finetune_head=true needs train.finetune_from"),
        ("model.dropout=1.5", r"model.dropout must lie in 0..1, not 1.5"),
        ("evaluate.folds=1", "evaluate.folds must be at least 2"),
        ("evaluate.far_targets=[2]", r"far_targets\[0\] must lie in 0..1"),
        ("+evaluate.thresholds.lfw=0.9", "thresholds.lfw belongs to no benchmark"),
        ("train.verify_benchmarks=[lfw]", "verify_benchmarks names 'lfw'"),
        ("deploy.model_name=a/b", "deploy.model_name must be letters"),
        ("run_id=../x", "run_id must be letters"),
    ],
)
def test_mistakes_are_named(override, words):
    with pytest.raises(ConfigError, match=words):
        compose("glyphs", "run_id=test", override)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("update=fused", "clip"), "update=fused cannot be had together with train.clip_norm: use"),
        (("update=plain", "sample_rate=0.1"), "update=plain .* needs train.head.sample_rate=1"),
        (("distribution=replicated", "momentum_dtype=bf16"), "a replicated head"),
        (("distribution=replicated", "update=fused"), "replicated needs train.head.update=plain"),
    ],
)
def test_settings_of_the_head_that_do_not_go_together_are_named(overrides, words):
    given = ["train.clip_norm=1" if o == "clip" else f"train.head.{o}" for o in overrides]
    with pytest.raises(ConfigError, match=words):
        compose("glyphs", "run_id=test", *given)


def test_all_mistakes_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        compose("glyphs", "run_id=test", "train.epochs=-1", "image_size=0")
    assert "train.epochs" in str(error.value)
    assert "image_size" in str(error.value)


def test_missing_run_id_is_named():
    with pytest.raises(ConfigError, match="run_id"):
        compose("glyphs")


def test_unknown_experiment_lists_those_that_exist():
    with pytest.raises(ConfigError, match=r"(?s)Could not find 'experiment/glyph'.*glyphs"):
        compose("glyph", "run_id=test")


def test_place_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("PLSC_STORE_URI", "s3://elsewhere")
    monkeypatch.setenv("PLSC_TRITON_URL", "triton:8001")
    config = compose("glyphs", "run_id=test")
    assert config.store_uri == "s3://elsewhere"
    assert config.data_uri == "s3://elsewhere/data/glyphs"
    assert config.deploy.server == "triton:8001"


def test_configuration_as_a_dictionary_composes_to_itself():
    document = to_dict(compose("glyphs", "run_id=test"))
    head = document["train"]["head"]
    assert (head["loss"], head["margin"], head["scale"]) == ("arcface", 0.2, 24.0)
    assert document["train"]["optimizer"]["name"] == "adamw"


def test_overrides_split_like_a_shell():
    assert split_overrides("a=1 'b=x y'  c=[1,2]") == ["a=1", "b=x y", "c=[1,2]"]
    with pytest.raises(ConfigError, match="close the quote"):
        split_overrides("a='1")
