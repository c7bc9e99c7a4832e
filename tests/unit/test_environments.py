"""Protects micro-context: it learns which words name which sound, from source audio alone, the same bytes each time."""

import numpy as np
import pandas as pd
import pytest
import torch

from clepdg import errors, prompts
from clepdg.callbacks import Reporting
from clepdg.config.schema import ComputeConfig, PretrainConfig
from clepdg.evaluation.context_geometry import rank_names
from clepdg.method import micro_context
from clepdg.method.micro_context import in_environment, pretrain

pytestmark = pytest.mark.usefixtures("few_separation_steps")

RATE = 16000


@pytest.fixture
def speech(monkeypatch, tone):
    """Utterances of two corpora whose audio is generated instead of read from shards."""
    rows = [
        {"corpus": corpus, "split": split, "folder": corpus, "tar": split, "offset": n, "bytes": 1}
        for corpus in ("a", "b")
        for split, count in (("train", 12), ("validation", 4))
        for n in range(count)
    ]
    pitches = {"a": 120.0, "b": 210.0}

    def read(folder, tar, offset, size):
        return tone(1.0, RATE, pitches[str(folder)] + 5 * offset, seed=offset), RATE

    monkeypatch.setattr(micro_context, "read_waveform", read)
    talk = [tone(1.0, RATE, 100 + 20 * n, seed=n) for n in range(8)]
    return pd.DataFrame(rows), talk


def taught(micro_factory, speech, folder, **changes):
    clap = micro_factory()
    folder.mkdir(exist_ok=True)
    config = PretrainConfig(steps=3, batch_size=8, **changes)
    figures = pretrain(clap, *speech, config, ComputeConfig(threads=1), folder, Reporting())
    return clap, figures


def test_it_is_the_same_each_time_and_moves_both_encoders(tmp_path, micro_factory, micro, speech):
    (first, figures), (second, again) = (taught(micro_factory, speech, tmp_path / name) for name in "ab")
    assert first.digest() == second.digest() and figures == again
    before, after = micro.model.state_dict(), first.model.state_dict()
    for name in ("text_projection.linear1.weight", "audio_projection.linear1.weight"):
        assert not torch.equal(before[name], after[name]), name
    assert figures["environments"] == len(prompts.CONTEXT_OF)
    assert {"environment_accuracy_heard", "environment_accuracy_left_out"} < set(figures)


def test_no_bias_norm_or_scale_decays(tmp_path, micro_factory, speech, monkeypatch):
    decays = {}

    class Seen(Exception):
        pass

    def training(*, tensors, optimiser, **rest):
        of = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
        decays.update({name: (tensor.ndim, of[id(tensor)]) for name, tensor in tensors.items()})
        raise Seen

    monkeypatch.setattr(micro_context, "Training", training)
    with pytest.raises(Seen):
        taught(micro_factory, speech, tmp_path)
    assert "logit_scale_a" in decays
    assert {(ndim >= 2, decay > 0) for ndim, decay in decays.values()} == {(True, True), (False, False)}


def test_what_is_left_out_is_never_heard(tmp_path, micro_factory, speech, monkeypatch):
    heard = []
    original = in_environment

    def spy(waveform, rate, environment, talk, rng):
        heard.append(environment)
        return original(waveform, rate, environment, talk, rng)

    monkeypatch.setattr(micro_context, "in_environment", spy)
    monkeypatch.setattr(micro_context, "environment_accuracy", lambda *args: dict.fromkeys(prompts.CONTEXT_OF, 0.0))
    taught(micro_factory, speech, tmp_path, left_out=("white", "telephone"))
    assert heard and not {"white", "telephone"} & set(heard)


def test_its_figures_are_of_validation_utterances_heard_and_left_out_apart(
    tmp_path, micro_factory, speech, monkeypatch
):
    asked = []

    def accuracy(clap, utterances, talk, seed):
        asked.append(utterances)
        return {name: float(name == "white") for name in prompts.CONTEXT_OF}

    monkeypatch.setattr(micro_context, "environment_accuracy", accuracy)
    _, figures = taught(micro_factory, speech, tmp_path, left_out=("white", "telephone"))
    validation = speech[0][speech[0].split == "validation"].reset_index(drop=True)
    pd.testing.assert_frame_equal(*asked, validation)
    assert (figures["environment_accuracy_heard"], figures["environment_accuracy_left_out"]) == (0.0, 0.5)


@pytest.mark.parametrize("environment", prompts.CONTEXT_OF)
def test_every_environment_sounds_as_loud_and_is_one_of_the_hand_written_contexts(tone, environment):
    waveform = tone(1.0, RATE)
    talk = [tone(1.0, RATE, 150, seed) for seed in range(6)]
    heard = in_environment(waveform, RATE, environment, talk, np.random.default_rng(0))
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(np.sqrt(np.mean(waveform**2)), rel=1e-3)
    assert (np.abs(heard - waveform).max() > 1e-3) == (environment != "clean")
    assert prompts.CONTEXT_OF[environment] in prompts.HANDWRITTEN_CONTEXTS


def test_captions_name_no_emotion():
    emotions = {word for words in prompts.EMOTION_WORDS.values() for word in words}
    for template in prompts.ENVIRONMENT_TEMPLATES:
        for context in prompts.CONTEXT_OF.values():
            assert not emotions & set(prompts.words(template.format(context=context)))


def test_without_validation_utterances_there_is_one_clear_error(tmp_path, micro_factory, speech):
    table, talk = speech
    with pytest.raises(errors.ClepError, match="training and validation"):
        taught(micro_factory, (table[table.split == "train"], talk), tmp_path)


def test_contexts_in_words_rank_their_own_corruption_above_chance(micro_factory, speech, tone, tmp_path):
    """The positive control's claim: what words were heard with, they name again on utterances never heard."""
    clap = micro_factory()
    config = PretrainConfig(steps=120, batch_size=32, left_out=())
    figures = pretrain(clap, *speech, config, ComputeConfig(threads=2), tmp_path, Reporting())
    assert figures["environment_accuracy_heard"] > 3 / figures["environments"]  # a third of a share is chance's
    clap.model.requires_grad_(False)
    new = [tone(1.0, RATE, 150 + 7 * n, seed=100 + n) for n in range(8)]
    clean = clap.encode_waveforms([(wave, RATE) for wave in new]).double().numpy()
    moves = {}
    for name in prompts.CONTEXT_OF:
        if name != "clean":
            rng = np.random.default_rng(0)
            heard = [(in_environment(wave, RATE, name, speech[1], rng), RATE) for wave in new]
            moves[name] = clap.encode_waveforms(heard).double().numpy() - clean
    words = ("angry", "happy", "neutral", "sad")
    content = clap.encode_text([prompts.CONTENT_TEMPLATE.format(emotion=word) for word in words])
    joint = [
        clap.encode_text([prompts.JOINT_TEMPLATE.format(emotion=word, context=context) for word in words]) - content
        for context in prompts.HANDWRITTEN_CONTEXTS
    ]
    names = rank_names(moves, torch.stack(joint).double().numpy(), prompts.HANDWRITTEN_CONTEXTS, prompts.CONTEXT_OF)
    assert names is not None
    assert names.mean_rank < (names.contexts + 1) / 2 and names.p < 0.05
