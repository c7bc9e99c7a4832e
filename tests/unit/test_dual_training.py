"""Protects a dual backbone whose speech encoder learns: what moves, the same bytes after a kill, what is evaluated."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clepdg.callbacks import DEFAULT_CHECKPOINTING, Reporting
from clepdg.config.schema import ClepConfig, ComputeConfig
from clepdg.dataset.shards import waveforms_of
from clepdg.method import clep, weights
from clepdg.method.emotion_classifier import pool_states
from clepdg.method.inputs.batch_audio import BatchAudio
from clepdg.models.dual import Dual, build_dual, load_dual
from clepdg.models.speech_encoder import load_encoder
from tests.encoders import save_encoders, save_whisper

EMOTIONS = ("angry", "sad")
FROZEN = ClepConfig(
    epochs=2, steps_per_epoch=3, batch_size=4, train_audio_encoder=False, learning_rate=1e-3,
    projection_learning_rate=1e-2,
)  # fmt: skip
WHOLE, LORA = replace(FROZEN, train_audio_encoder=True), replace(FROZEN, lora_rank=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def states(folders, utterances):
    return pool_states(build_dual(*folders, seed=0), utterances)


@pytest.fixture
def fit(folders, utterances, states, tmp_path):
    """Return a function that trains a dual backbone in a folder of this name."""

    def run(name, config, reporting=None, checkpointing=DEFAULT_CHECKPOINTING):
        dual, folder = build_dual(*folders, seed=0), tmp_path / name
        folder.mkdir(exist_ok=True)
        reporting, compute = reporting or Reporting(), ComputeConfig(threads=1)
        figures = clep.fit(
            dual, utterances, EMOTIONS, config, compute, 0, folder, reporting, checkpointing, states=states
        )
        return dual, figures

    return run


@pytest.mark.parametrize(
    ("config", "moved"),
    [
        (WHOLE, {"audio_model"}),
        (LORA, {"audio_model"}),
        (replace(FROZEN, train_text_encoder=True), {"text_model"}),
        (replace(FROZEN, augment=True), set()),
    ],
    ids=["whole", "lora", "text", "augment"],
)
def test_what_is_trained_moves_and_the_rest_keeps_its_bytes(folders, fit, config, moved):
    before = build_dual(*folders, seed=0).model.state_dict()
    after = fit("a", config)[0].model.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    encoders = {"audio_model", "text_model"} & {name.partition(".")[0] for name in changed}
    assert (set(after), encoders) == (set(before), moved)
    assert {name.partition(".")[0] for name in changed} - encoders == {
        "audio_projection", "text_projection", "logit_scale_a",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["wavlm", "whisper"])
def test_each_adapter_has_a_gradient_and_each_weight_of_the_encoder_that_is_used(folders, tmp_path, tone, kind):
    audio = folders[0] if kind == "wavlm" else save_whisper(tmp_path)
    for config in (LORA, WHOLE):
        dual = build_dual(audio, folders[1], seed=0)
        if config.lora_rank:
            weights.add_adapters(dual, config.lora_rank, 0)
        weights.trainable_groups(dual, config)
        dual.encode_inputs(dual.encoder.pool_with_gradients([tone(0.5, 16000)])).square()[0, 0].backward()
        trained = {name: p for name, p in dual.audio_encoder.named_parameters() if p.requires_grad}
        without = {name for name, p in trained.items() if p.grad is None}
        assert trained and without <= {"masked_spec_embed"}
        assert kind == "wavlm" or any("q_proj" in name for name in trained)
        assert not [
            name for name, p in dual.model.audio_model.named_parameters() if "decoder" in name and p.requires_grad
        ]


@pytest.mark.parametrize("kind", ["wavlm", "whisper"])
def test_states_with_gradients_are_those_without(folders, tmp_path, tone, kind):
    encoder = load_encoder(folders[0] if kind == "wavlm" else save_whisper(tmp_path))
    speech = [tone(seconds, 16000) for seconds in (0.01, 0.5, 1.2)]
    with torch.no_grad():
        found = encoder.pool_with_gradients([encoder.crop(waveform, 16000, 0.9) for waveform in speech])
    expected = np.stack([encoder.pool(waveform, 16000) for waveform in speech])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    long = tone(31.0, 16000)
    assert len(encoder.crop(long, 16000, 0.5)) == 30 * 16000
    assert np.array_equal(encoder.crop(long, 16000, 0.0), long[: 30 * 16000])


@pytest.mark.parametrize("standardise", ["none", "source"])
def test_before_its_first_step_a_trained_encoder_gives_what_the_frozen_one_does(
    folders, utterances, states, standardise
):
    train, batch = utterances[utterances.split == "train"].reset_index(drop=True), np.array([3, 0, 12, 9])
    dual, found = build_dual(*folders, seed=0), []
    for config in (FROZEN, WHOLE):
        audio = BatchAudio(dual, train, replace(config, standardise=standardise), 0, states)
        with torch.no_grad():
            found.append(audio.encode(batch, audio.load(0, batch)))
    torch.testing.assert_close(*found, atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", [WHOLE, LORA], ids=["whole", "lora"])
def test_a_saved_clep_embeds_as_its_validation_did(fit, utterances, tmp_path, monkeypatch, config):
    epochs, encode = [], Dual.encode_waveforms
    monkeypatch.setattr(Dual, "encode_waveforms", lambda self, heard: epochs.append(encode(self, heard)) or epochs[-1])
    dual, figures = fit("a", config)
    dual.save(tmp_path / "model")
    validation = utterances[utterances.split == "validation"].sort_values("utterance_id")
    found = encode(load_dual(tmp_path / "model"), waveforms_of(validation))
    torch.testing.assert_close(found, epochs[figures["best_epoch"] - 1], atol=1e-5 if config.lora_rank else 0, rtol=0)


@pytest.mark.parametrize("config", [WHOLE, LORA], ids=["whole", "lora"])
def test_a_killed_training_goes_on_bit_for_bit(fit, ticking, config):
    class Killed(Exception):
        pass

    def kill(done, total):
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        fit("broken", config, Reporting(progress=kill), ticking(2))
    resumed, whole = fit("broken", config)[0], fit("whole", config)[0]
    assert resumed.digest() == whole.digest()
