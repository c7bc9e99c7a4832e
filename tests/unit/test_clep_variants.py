"""Protects CLEP's variants: what is frozen stays, what is left out is met nowhere, and all are plain models."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from clepdg import prompts
from clepdg.callbacks import Reporting
from clepdg.config.rows import CLEP_VARIANTS
from clepdg.config.schema import ComputeConfig
from clepdg.dataset.shards import UtteranceReader
from clepdg.method import clep, text_features
from clepdg.method.inputs import batch_audio, log_mels
from clepdg.method.weights import add_adapters, interpolate, merge_adapters
from clepdg.models.clap import Clap
from clepdg.models.folder import load_model
from clepdg.models.micro import build_micro
from tests.clap import build_small_clap
from tests.unit.test_clep import CONFIG, EMOTIONS, fit

pytestmark = pytest.mark.usefixtures("few_separation_steps")

FROZEN = replace(CONFIG, train_text_encoder=False, from_scratch=False)  # as with a pretrained backbone


@pytest.fixture(scope="module")
def described(utterances):
    return utterances.assign(gender=["female", "male", None] * 8, transcript=["a b", None] * 12)


@pytest.fixture(scope="module")
def main_digest(micro_factory, described, tmp_path_factory):
    clap = micro_factory()
    fit(clap, described, tmp_path_factory.mktemp("main"), FROZEN)
    return clap.digest()


def weights(clap):
    return {name: tensor.clone() for name, tensor in clap.model.state_dict().items()}


def changed(clap, before):
    return {name for name, tensor in clap.model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(
    ("variant", "frozen", "learning"),
    [
        ("frozen-text", ("text_model", "text_projection"), ("audio_model", "audio_projection")),
        ("projections-only", ("text_model", "audio_model"), ("text_projection", "audio_projection")),
        ("lora", ("text_model",), ("audio_model", "text_projection", "audio_projection")),
    ],
)
def test_what_a_variant_freezes_does_not_move(micro_factory, described, tmp_path, variant, frozen, learning):
    clap = micro_factory()
    before = weights(clap)
    fit(clap, described, tmp_path / "a", CLEP_VARIANTS[variant](FROZEN))
    moved = changed(clap, before)
    assert not {name for name in moved if name.startswith(frozen)}
    for part in learning:
        assert {name for name in moved if name.startswith(part)}, part
    assert set(clap.model.state_dict()) == set(before)  # a plain model


@pytest.mark.parametrize(
    ("build", "layers"),
    [(build_small_clap, ("query", "key", "value", "dense")), (lambda: build_micro(0), ("first", "second"))],
    ids=["htsat", "micro"],
)
def test_adapters_alone_learn_in_the_audio_encoder_and_only_its_layers_move(build, layers, described, tmp_path):
    clap = build()
    before = weights(clap)
    fit(clap, described, tmp_path / "a", CLEP_VARIANTS["lora"](FROZEN))
    moved = {name for name in changed(clap, before) if name.startswith("audio_model")}
    assert moved
    for name in moved:
        assert name.endswith(tuple(f"{layer}.weight" for layer in layers)), name
        change = (clap.model.state_dict()[name] - before[name]).double().flatten(1)
        assert torch.linalg.matrix_rank(change, rtol=1e-4) <= 8


def test_adapters_change_nothing_at_first_and_merge_into_the_same_outputs(micro_factory):
    clap = micro_factory()
    mels = torch.randn(3, 1, 256, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = clap.encode_log_mel(mels)
        adapters = add_adapters(clap, 4, 0)
        torch.testing.assert_close(clap.encode_log_mel(mels), plain, atol=1e-6, rtol=0)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in clap.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        adapted = clap.encode_log_mel(mels)
        assert float((adapted - plain).abs().max()) > 1e-2
        merge_adapters(adapters)
        torch.testing.assert_close(clap.encode_log_mel(mels), adapted, atol=1e-5, rtol=0)
    assert not [name for name, _ in clap.model.named_parameters() if "lora" in name]


def test_adapters_start_from_their_seed(micro_factory):
    def start(seed):
        clap = micro_factory()
        add_adapters(clap, 4, seed)
        return torch.cat([p.flatten() for name, p in clap.model.named_parameters() if "lora_A" in name])

    assert torch.equal(start(0), start(0))
    assert not torch.equal(start(0), start(1))


def test_a_lora_clep_is_a_folder_like_any_other(micro_factory, described, tmp_path):
    clap = micro_factory()
    fit(clap, described, tmp_path / "a", CLEP_VARIANTS["lora"](FROZEN))
    clap.save(tmp_path / "model")
    assert load_model(tmp_path / "model").digest() == clap.digest()


def test_interpolation_at_its_ends_is_clap_and_clep(micro_factory):
    clap, clep_ = micro_factory(), micro_factory()
    with torch.no_grad():
        for parameter in clep_.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    learnt, start = weights(clep_), weights(clap)
    interpolate(clap, clep_, 0.0)
    assert not changed(clep_, learnt)
    interpolate(clap, clep_, 0.5)
    for name, tensor in clep_.model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (learnt[name] + start[name]) / 2)
    interpolate(clap, clep_, 1.0)
    assert not {name for name in changed(clep_, start) if start[name].is_floating_point()}
    assert not changed(clap, start)


@pytest.mark.parametrize("variant", ["soft", "attribute", "lora", "augmented", "instance", "plain"])
def test_the_same_seed_gives_the_same_bytes_also_after_a_kill(
    micro_factory, described, main_digest, tmp_path, variant, ticking
):
    config = CLEP_VARIANTS[variant](FROZEN)
    whole = micro_factory()
    fit(whole, described, tmp_path / "whole", config)

    def kill(done, total):
        if done == 3:
            raise KeyboardInterrupt

    broken = micro_factory()
    with pytest.raises(KeyboardInterrupt):
        fit(
            broken, described, tmp_path / "broken", config, reporting=Reporting(progress=kill), checkpointing=ticking(2)
        )
    assert (tmp_path / "broken" / "training.resume").exists()
    resumed = micro_factory()
    fit(resumed, described, tmp_path / "broken", config)
    assert resumed.digest() == whole.digest()
    assert whole.digest() != main_digest


def test_a_text_that_is_cached_later_does_not_depend_on_what_is_beside_it(micro_factory):
    clap = micro_factory()
    clap.model.eval()
    texts = ["angry speech, low pitch", "the person in this recording is sad, female voice, fast pace"]
    alone, beside = (text_features.TextFeatures(clap, EMOTIONS, FROZEN) for _ in range(2))
    beside.encode(texts)
    for text in texts:
        alone.encode([text])
        assert torch.equal(alone.cache[text], beside.cache[text])


@pytest.mark.parametrize("frozen_text", [True, False])
def test_an_emotion_that_is_left_out_is_met_nowhere(micro_factory, described, tmp_path, monkeypatch, frozen_text):
    """Neither its words in a text nor its utterances, in training or selection."""
    texts: list[str] = []
    heard: list[str] = []
    tokenize = Clap.tokenize
    monkeypatch.setattr(Clap, "tokenize", lambda self, asked: texts.extend(asked) or tokenize(self, asked))

    class Watched(UtteranceReader):
        def __init__(self, table, *bounds):
            super().__init__(table, *bounds)
            self.names = table.utterance_id.tolist()

        def waveform(self, position):
            heard.append(self.names[position])
            return super().waveform(position)

    for module in (clep, batch_audio, log_mels):
        monkeypatch.setattr(module, "UtteranceReader", Watched)
    emotions = ("angry", "sad", "happy")
    third = described.assign(utterance_id=described.utterance_id + "x", emotion="happy")
    table = pd.concat([described, third], ignore_index=True)
    config = replace(
        CONFIG, target="attribute", from_scratch=True, train_text_encoder=not frozen_text, without_emotion="sad"
    )
    known = tuple(emotion for emotion in emotions if emotion != "sad")
    clep.fit(micro_factory(), table, known, config, ComputeConfig(), 0, tmp_path, Reporting())
    words = {word for text in texts for word in prompts.words(text)}
    assert not words & set(prompts.EMOTION_WORDS["sad"])
    assert words & set(prompts.EMOTION_WORDS["happy"])
    of = table.set_index("utterance_id").emotion
    assert {of[utterance] for utterance in heard} == {"angry", "happy"}
