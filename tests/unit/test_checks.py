"""Protects what is known before work starts: texts that a backbone can't read, a folder without noises."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clepdg.config.presets import OF_DUAL, build
from clepdg.config.schema import Config
from clepdg.errors import BackboneError, ClepError, ConfigError
from clepdg.hashing import stage_key
from clepdg_flows.graph.models import backbone
from clepdg_flows.run.plan import check, configure, make_plan
from clepdg_tasks.engine import last_arguments
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host.model_checks import check_backbone
from clepdg_tasks.host.settings import load_settings
from tests.rehearsal.hub import Hub


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("text.handwritten_contexts", "a quiet studio,a foo street"),
        ("text.nonacoustic_contexts", "a foo"),
        ("text.content_templates", "a {emotion} foo"),
        ("clep.templates", ",".join(["a {emotion} voice"] * 8 + ["foo {emotion}"])),
        ("acpt.content_template", "foo {emotion}"),
        ("acpt.context_template", "foo {context}"),
        ("acpt.joint_template", "{emotion} foo {context}"),
    ],
)
def test_a_word_that_micro_does_not_know_is_said_before_anything_is_trained(setting: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"got: foo\n  where: {setting}"):
        check_backbone(build("demo", overrides={setting: value}))


@pytest.mark.parametrize("backbone", [None, "micro-context"])
def test_the_words_of_the_presets_are_known(backbone: str | None) -> None:
    check_backbone(build("demo", backbone=backbone))
    check_backbone(build("open", backbone="micro"))


def test_a_run_that_ends_with_the_data_needs_no_model_and_no_device(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path))
    monkeypatch.setenv("CLEPDG_DEVICE", "cuda:7")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.wav").touch()
    settings, given = load_settings(), {"ravdess": str(tmp_path / "corpus")}
    check(make_plan(Arguments(corpora=("ravdess",), sources=given, until="shard")), settings)
    missing = {"encoder.name": "no/encoder", "rows": "encoder,egemaps"}
    for name in ("no/such", "laion:630k-audioset-best", "dual:no/audio+no/text"):
        for until in ("source", "index", "shard"):
            asked = Arguments(corpora=("ravdess",), sources=given, until=until, backbone=name, overrides=missing)
            check(make_plan(asked), settings)
    arguments = Arguments(corpora=("ravdess",), sources=given, overrides={"protocols": "supervised"})
    with pytest.raises(ClepError) as caught:
        check(make_plan(arguments), settings)
    assert "HF_HUB_OFFLINE" in str(caught.value) and "cuda:7" in str(caught.value)


def test_a_folder_with_an_unknown_pickle_is_refused_before_work_starts(tmp_path) -> None:
    for name in ("config.json", "tokenizer.json", "pytorch_model.bin"):
        (tmp_path / name).touch()
    config = build("open", backbone=str(tmp_path))
    with pytest.raises(BackboneError, match="--allow-pickle-weights"):
        check_backbone(config)
    check_backbone(config, allow_unknown=True)
    node = backbone(config, allow_pickle_weights=True)
    assert node.compute.keywords == {"allow_unknown": True}
    assert stage_key("backbone", 1, node.config, node.state) == stage_key(
        "backbone", 1, backbone(config).config, node.state
    )


def test_a_kept_run_does_not_allow_pickles(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path))
    last_arguments.keep(load_settings(), Arguments(allow_pickle_weights=True, allow_partial=True))
    last = last_arguments.last(load_settings())
    assert last is not None
    assert last.allow_partial and not last.allow_pickle_weights


def test_a_backbone_that_was_pretrained_on_text_reads_any_word(tmp_path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).touch()
    config = build("open", backbone=str(tmp_path), overrides={"text.handwritten_contexts": "a foo"})
    check_backbone(config)


def test_the_noise_own_needs_recordings(tmp_path) -> None:
    def configured(folder: str | None) -> Config:
        given = {"evaluate.noise_folder": folder} if folder else {}
        return configure(Arguments(preset="demo", overrides={"evaluate.conditions": "own-10dB", **given}))

    (tmp_path / "a.txt").write_text("no audio")
    (tmp_path / "folder.wav").mkdir()
    for folder in (None, str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(ConfigError, match="needs a folder of recordings") as caught:
            configured(folder)
        assert "where: evaluate.noise_folder" in str(caught.value) and (folder or "no folder") in str(caught.value)
    (tmp_path / "deep").mkdir()
    soundfile.write(tmp_path / "deep" / "fan.wav", np.zeros(1600), 16000)
    assert configured(str(tmp_path)).evaluate.noise_folder == str(tmp_path)


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("dual:{text}+{audio}", ["The speech encoder", "preprocessor_config.json", "the speech encoder first"]),
        ("dual:{audio}+/nowhere", ["The text encoder", "/nowhere"]),
        ("dual:{audio}", ["two encoders"]),
        ("dual:{audio}+{text},pool=mean", ["two encoders", "--set clep.pooling=mean"]),
        ("dual-contexts:{audio}+{text}", ["did you mean dual-context:?"]),
    ],
)
def test_a_wrong_dual_backbone_is_explained(backbone: str, words: list[str], tmp_path: Path) -> None:
    """The message names the side and the cure."""
    for side, file in (("audio", "preprocessor_config.json"), ("text", "tokenizer.json")):
        (tmp_path / side).mkdir()
        for name in ("config.json", "model.safetensors", file):
            (tmp_path / side / name).write_text("{}")
    name = backbone.format(audio=tmp_path / "audio", text=tmp_path / "text")
    with pytest.raises(ClepError) as error:
        check_backbone(build("speech", backbone=name))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("setting", sorted(OF_DUAL))
def test_settings_that_a_backbone_ignores_are_refused(setting: str) -> None:
    """A dual backbone takes them."""
    value = {"backbone.frames": "all", "clep.layers": "last", "clep.pooling": "mean", "clep.standardise": "source"}
    overrides = {setting: value[setting]}
    build("speech", overrides=overrides)
    with pytest.raises(ConfigError, match=f"(?s)Only a dual backbone.*{setting}"):
        build("demo", overrides=overrides)


@pytest.fixture
def hubs_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that sets environment variables, and has huggingface_hub read them as it does at its import."""
    from huggingface_hub import constants

    def read(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        importlib.reload(constants)

    with monkeypatch.context() as monkeypatch:
        yield read
    importlib.reload(constants)


NOWHERE = f"tests/none@{'0' * 40}"


@pytest.mark.parametrize("word", ["1", "true", "Yes", "ON"])
def test_offline_is_said_in_any_spelling(word: str, hubs_settings: Callable[..., None]) -> None:
    with Hub([]) as hub:
        hubs_settings(HF_HUB_OFFLINE=word, HF_ENDPOINT=hub.url)
        with pytest.raises(BackboneError, match="HF_HUB_OFFLINE"):
            check_backbone(build("open", backbone=NOWHERE))
        assert not hub.requests


def test_a_mirror_is_asked_in_the_hubs_place_with_the_users_token(hubs_settings: Callable[..., None]) -> None:
    with Hub([]) as hub:
        hubs_settings(HF_HUB_OFFLINE="0", HF_ENDPOINT=hub.url, NO_PROXY="127.0.0.1", HTTPS_PROXY="http://127.0.0.1:1")
        with pytest.raises(BackboneError, match=hub.url) as caught:
            check_backbone(build("open", backbone=NOWHERE))
        assert "no such model" in str(caught.value) and not caught.value.away
        assert any("tests/none" in path for _, path in hub.requests)
    hubs_settings(HF_ENDPOINT="http://127.0.0.1:1")
    with pytest.raises(BackboneError, match="does not answer") as caught:
        check_backbone(build("open", backbone=NOWHERE))
    assert caught.value.away  # so a deployment's run is tried again
