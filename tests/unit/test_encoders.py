"""Protects speech encoders of transformers: their own hidden states, no padding heard, no pickle, no foreign code."""

import json

import numpy as np
import pytest
import torch

from clepdg.errors import BackboneError
from clepdg.models.speech_encoder import FRAMES, load_encoder
from tests.clap import build_small_clap
from tests.encoders import save_whisper

SMALL = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "conv_dim": [16, 16], "conv_stride": [20, 16], "conv_kernel": [40, 16], "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a function that makes a folder of a tiny random encoder, as transformers saves it."""
    import transformers

    def make(kind: str, **settings):
        torch.manual_seed(0)
        where = tmp_path_factory.mktemp(f"a {kind}")
        config = getattr(transformers, f"{kind}Config")(**(SMALL | settings))
        getattr(transformers, f"{kind}Model")(config).save_pretrained(where)
        normalise = config.feat_extract_norm == "layer"
        transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=normalise).save_pretrained(
            where
        )
        return where

    return make


@pytest.fixture(scope="module")
def wavlm(folder):
    return folder("WavLM")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return save_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("WavLM", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
        ("Wav2Vec2", {"feat_extract_norm": "group"}),
        ("Hubert", {"feat_extract_norm": "layer"}),
    ],
)
def test_embeddings_are_the_mean_of_transformers_own_hidden_states(folder, tone, kind, settings):
    from transformers import AutoFeatureExtractor, AutoModel

    where = folder(kind, **settings)
    peer, extractor = AutoModel.from_pretrained(where).eval(), AutoFeatureExtractor.from_pretrained(where)
    encoder = load_encoder(str(where))
    for seconds in (0.3, 2.0):
        waveform = tone(seconds, 16000)
        inputs = extractor(waveform, sampling_rate=16000, return_tensors="pt")
        with torch.no_grad():
            expected = peer(inputs.input_values).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(encoder.encode(waveform, 16000), expected.numpy(), atol=1e-5)


def test_padding_that_the_front_end_adds_is_not_heard_and_long_audio_is_heard_whole(whisper, tone):
    """Whisper's front end fills up to 30 s; frames of the filling are left out of the mean."""
    from transformers import WhisperFeatureExtractor, WhisperModel

    peer, extractor = WhisperModel.from_pretrained(whisper).eval(), WhisperFeatureExtractor.from_pretrained(whisper)
    encoder = load_encoder(str(whisper))

    def hidden(waveform):
        with torch.no_grad():
            return peer.get_encoder()(
                **extractor(waveform, sampling_rate=16000, return_tensors="pt")
            ).last_hidden_state[0]

    short, long = tone(2.0, 16000), tone(33.0, 16000)
    np.testing.assert_allclose(encoder.encode(short, 16000), hidden(short)[:100].mean(dim=0).numpy(), atol=1e-5)
    parts = torch.cat([hidden(long[:480000]), hidden(long[480000:])[:150]])  # 50 frames a second
    np.testing.assert_allclose(encoder.encode(long, 16000), parts.mean(dim=0).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["wavlm", "whisper"])
def test_pauses_are_left_out_of_pooled_states_where_it_is_asked(request, tone, tmp_path, name):
    encoder = load_encoder(str(request.getfixturevalue(name)))
    pause = np.zeros(16000, dtype=np.float32)
    waveform = np.concatenate([pause, tone(1.0, 16000), pause])
    every, states = encoder.pool(waveform, 16000), encoder.states(waveform, 16000)
    setattr(encoder.extractor, FRAMES, "active")
    encoder.save(tmp_path)
    again = load_encoder(str(tmp_path))  # the front end's file keeps it
    assert again.active_only and again.digest() != load_encoder(str(request.getfixturevalue(name))).digest()
    frames = states.shape[1]
    speech = states[:, round(frames / 3) : round(frames * 2 / 3)]
    expected = torch.cat([speech.mean(dim=1), speech.std(dim=1, correction=0)], dim=-1).numpy()
    for pooled in (again.pool(waveform, 16000), again.pool_with_gradients([waveform])[0].detach().numpy()):
        assert np.abs(pooled - expected).max() < np.abs(every - expected).max() / 3
    assert np.isfinite(again.pool(pause, 16000)).all()


@pytest.mark.parametrize("name", ["wavlm", "whisper"])
def test_its_front_end_works_in_float32_whatever_the_precision(request, tone, name):
    encoder, heard = load_encoder(str(request.getfixturevalue(name))), []

    def hear(module, args, inputs):
        heard.append(next(inputs[name] for name in ("input_features", "input_values") if name in inputs))

    encoder.encoder.register_forward_pre_hook(hear, with_kwargs=True)
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            states = encoder.states(tone(0.5, 16000), 16000)
        assert states.dtype == torch.float32
    assert heard[1].dtype == torch.float32
    assert torch.equal(*heard)


def test_other_rates_are_resampled_and_very_short_audio_is_heard(wavlm, tone):
    encoder = load_encoder(str(wavlm))
    at_16, at_48 = encoder.encode(tone(1.0, 16000), 16000), encoder.encode(tone(1.0, 48000), 48000)
    assert np.abs(at_16 - at_48).max() < np.abs(at_16).max()
    assert np.isfinite(encoder.encode(tone(1.0, 16000)[:20], 16000)).all()


def test_save_and_load_keep_the_encoder(wavlm, folder, tmp_path, tone):
    encoder = load_encoder(str(wavlm))
    encoder.save(tmp_path)
    again = load_encoder(str(tmp_path))
    assert again.digest() == encoder.digest()
    np.testing.assert_array_equal(again.encode(tone(1.0, 16000), 16000), encoder.encode(tone(1.0, 16000), 16000))
    front_end = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**front_end, "do_normalize": True}))
    assert load_encoder(str(tmp_path)).digest() != encoder.digest()


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    where = folder("WavLM")
    mark = tmp_path / "it ran"
    (where / "theirs.py").write_text(f"open({str(mark)!r}, 'w')\nclass Theirs: pass\n")
    config = json.loads((where / "config.json").read_text())
    config |= {"model_type": "emotion9vec", "auto_map": {"AutoModel": "theirs.Theirs", "AutoConfig": "theirs.Theirs"}}
    (where / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="can't be loaded"):
        load_encoder(str(where))
    assert not mark.exists()


def test_weights_that_are_not_whole_are_refused(folder):
    from safetensors.torch import load_file, save_file

    where = folder("Wav2Vec2")
    tensors = load_file(where / "model.safetensors")
    name = next(name for name in tensors if "attention" in name)
    save_file({n: t for n, t in tensors.items() if n != name}, where / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match="weights are incomplete"):
        load_encoder(str(where))


def test_a_model_of_another_kind_is_named(wavlm, tmp_path):
    build_small_clap().save(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text((wavlm / "preprocessor_config.json").read_text())
    with pytest.raises(BackboneError, match="not a speech encoder"):
        load_encoder(str(tmp_path))
