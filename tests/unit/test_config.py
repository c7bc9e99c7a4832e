"""Protects the configuration: METHOD's defaults, dotted overrides, and errors that list what is valid."""

import pickle
from dataclasses import asdict, fields, is_dataclass, replace

import pytest

from clepdg.config.model_pins import LAION_REPOSITORY, pinned_revision
from clepdg.config.presets import PRESETS, build, faithful_acpt, option_names
from clepdg.config.schema import ClepConfig, Config, EncoderConfig, IndexConfig, ShardConfig, TextConfig
from clepdg.errors import ConfigError
from clepdg.hashing import plain


def test_presets_are_what_they_say():
    demo, real = build("demo"), build("open")
    assert demo.backbone.name == "micro"
    assert len(demo.corpora) == 5
    assert demo.acpt.contexts == 16
    assert demo.acpt.epochs == 30
    assert real.backbone.name == "laion/clap-htsat-unfused"
    assert len(real.backbone.revision) == 40
    assert not real.clep.train_text_encoder
    assert (real.acpt.contexts, real.acpt.tokens, real.acpt.temperature) == (80, 4, 0.1)
    assert (faithful_acpt().tokens, faithful_acpt().learning_rate, faithful_acpt().temperature) == (1, 0.002, 1.0)


def test_micro_brings_its_own_training():
    config = build("open", backbone="micro")
    assert config.clep.from_scratch
    assert not config.clep.train_text_encoder
    assert config.clep.learning_rate == 5e-4


def test_a_pinned_revision_stays_with_its_name():
    assert (
        build("open", backbone="laion/larger_clap_general").backbone.revision
        == "ada0c23a36c4e8582805bb38fec3905903f18b41"
    )
    assert build("open", backbone="someone/clap").backbone.revision is None
    assert build("open").backbone.revision == pinned_revision(build("open").backbone.name)
    assert build("open", backbone="laion:630k-best").backbone.revision == pinned_revision(LAION_REPOSITORY)
    assert build("open", backbone="laion/larger_clap_general@abc").backbone.revision == "abc"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("clep.epochs", "15", 15),
        ("clep.epochs", "1e1", 10),
        ("clep.epochs", 15.0, 15),
        ("clep_seeds", "9007199254740993", (9007199254740993,)),  # a float holds no such number
        ("acpt.temperature", 1, 1.0),
        ("encoder.name", "none", None),
        ("clep.learning_rate", "1e-3", 1e-3),
        ("clep.train_text_encoder", "true", True),
        ("shard.band_limit_hz", "none", None),
        ("clep_seeds", "0,1,2", (0, 1, 2)),
        ("text.handwritten_contexts", ["a car"], ("a car",)),
        ("classifier.loss", "softmax", "softmax"),
        ("acpt.method", "faithful", "faithful"),
        ("rows", "majority,log-mel", ("majority", "log-mel")),
    ],
)
def test_overrides_take_the_type_of_their_field(name, text, value):
    config = build("demo", overrides={name: text})
    found = config
    for part in name.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"clep.epoch": 1}, "did you mean clep.epochs"),
        ({"clep": 1}, "no such setting"),
        ({"clep.epochs.more": 1}, "no such setting"),
        ({"preset": "open"}, "no such setting"),
        ({"clep.epochs": "many"}, "wrong type"),
        ({"clep.epochs": "1.5"}, "wrong type"),
        ({"clep.epochs": True}, "wrong type"),
        ({"clep.epochs": 0}, "out of range.\n  got: 0\n  expected: 1 to 1000000000\n  where: clep.epochs"),
        ({"clep.epochs": 10**22}, "out of range.\n  got: 10000000000000000000000\n  expected: 1 to 1000000000"),
        ({"clep.learning_rate": "inf"}, "expected: a finite number\n  where: clep.learning_rate"),
        ({"clep.projection_learning_rate": -1}, "0 or more"),
        ({"acpt.content_template": "a {emotion} tone}"}, "one {emotion}"),
        ({"text.handwritten_contexts": "a {emotion} room"}, "braces"),
        ({"clep.weight_decay": -5}, "0 or more"),
        ({"clep.clip_norm": 0}, "above 0"),
        ({"clep.without_emotion": "glad"}, "angry"),
        ({"acpt.diversity_weight": -1}, "0 or more"),
        ({"classifier.momentum": 7}, "below 1"),
        ({"text.content_templates": "speech"}, "each with {emotion}"),
        ({"text.content_templates": "a {emotion} {voice}"}, "each with {emotion}"),
        ({"text.handwritten_contexts": "a hall, "}, "none empty"),
        ({"pretrain.left_out": "desert"}, "room-long"),
        ({"later_seeds": "-3"}, "from 0 to below 2^63, none twice\n  where: later_seeds"),
        ({"clep_seeds": str(1 << 70)}, "below 2^63"),
        ({"backbone.seed": -1}, "below 2^63"),
        ({"clep.learning_rate": "nan"}, "wrong type"),
        ({"classifier.loss": "hinge"}, "arcface, softmax"),
        ({"clep.train_text_encoder": "yes"}, "wrong type"),
        ({"text.label_set": "5"}, "one of 4, 6"),
        ({"clep_seeds": "1,1"}, "none twice"),
        ({"protocols": "supervized"}, "some of supervised, leave-one-corpus-out, pairs"),
    ],
)
def test_wrong_overrides_are_one_clear_error(overrides, message):
    with pytest.raises(ConfigError) as caught:
        build("demo", overrides=overrides)
    assert message in str(caught.value)


def test_unknown_settings_are_answered_with_all_valid_ones():
    with pytest.raises(ConfigError) as caught:
        build("demo", overrides={"nonsense": 1})
    assert all(name in str(caught.value) for name in option_names())


def test_unknown_preset_lists_the_presets():
    with pytest.raises(ConfigError, match=", ".join(PRESETS)):
        build("full")


def test_demo_keeps_to_micro():
    with pytest.raises(ConfigError, match="micro"):
        build("demo", backbone="laion/clap-htsat-unfused")


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (ClepConfig, {"epochs": 0}, "got: 0\n  expected: 1 to 1000000000\n  where: clep.epochs"),
        (ClepConfig, {"lora_rank": 65}, "got: 65\n  expected: 0 to 64\n  where: clep.lora_rank"),
        (ClepConfig, {"soft_share": 1.0}, "expected: between 0 and 1\n  where: clep.soft_share"),
        (ClepConfig, {"warmup_share": 1.0}, "expected: from 0 to below 1\n  where: clep.warmup_share"),
        (ClepConfig, {"weight_decay": float("nan")}, "got: nan\n  expected: a finite number"),
        (ClepConfig, {"epochs": "1"}, "got: '1'\n  expected: a whole number\n  where: clep.epochs"),
        (ClepConfig, {"epochs": True}, "got: True\n  expected: a whole number"),
        (ClepConfig, {"augment": 1}, "got: 1\n  expected: true or false"),
        (ClepConfig, {"target": "word"}, "got: 'word'\n  expected: emotion, instance, attribute, soft"),
        (ClepConfig, {"epoch": 1}, "did you mean clep.epochs"),
        (ShardConfig, {"band_limit_hz": 999}, "got: 999\n  expected: 1000 to 24000, or none"),
        (ShardConfig, {"band_limit_hz": "x"}, "expected: a whole number, or none"),
        (
            IndexConfig,
            {"min_seconds": 70.0},
            "got: 60.0\n  expected: above index.min_seconds, at most 3600\n  where: index.max_sec",
        ),
        (
            EncoderConfig,
            {"revision": "abc"},
            "expected: none, since encoder.name is not set\n  where: encoder.revision",
        ),
        (TextConfig, {"content_templates": ("{emotion}", 1)}, "got: 1\n  expected: text"),
        (TextConfig, {"content_templates": "{emotion}"}, "expected: a list of texts"),
        (Config, {"preset": "demo"}, "A setting is missing.\n  where: corpora"),
        (Config, {"preset": "demo", "corpora": ()}, "got: ()\n  expected: at least one, none twice\n  where: corpora"),
    ],
)
def test_a_value_is_checked_when_it_is_made(kind, values, message):
    with pytest.raises(ConfigError) as caught:
        kind(**values)
    assert message in str(caught.value)
    assert "pydantic" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__suppress_context__


def test_settings_are_plain_frozen_dataclasses():
    config = build("demo")
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(build("demo"))
    assert list(asdict(config)) == [item.name for item in fields(config)]
    assert plain(config)["clep"]["templates"] == list(config.clep.templates)
    assert all(is_dataclass(getattr(config, name)) for name in ("clep", "text"))
    assert replace(config.text, content_templates=["{emotion}"]).content_templates == ("{emotion}",)
    with pytest.raises(ConfigError, match="2 to 1000000000"):
        replace(config.clep, batch_size=1)
    with pytest.raises(AttributeError):
        config.clep.epochs = 3
