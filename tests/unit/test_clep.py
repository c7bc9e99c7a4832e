"""Protects CLEP's training: what learns and what does not, selection on validation, and resuming bit for bit."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from clepdg.callbacks import DEFAULT_CHECKPOINTING, Reporting
from clepdg.config.presets import demo
from clepdg.config.schema import ClepConfig, ComputeConfig
from clepdg.method import clep, text_features, weights
from tests.clap import build_small_clap

EMOTIONS = ("angry", "sad")
SCRATCH = replace(demo().clep, epochs=2, steps_per_epoch=3, batch_size=4)
CONFIG = replace(SCRATCH, from_scratch=False)  # text that is not separated first


def fit(clap, utterances, folder, config=CONFIG, seed=0, reporting=None, checkpointing=DEFAULT_CHECKPOINTING):
    folder.mkdir(exist_ok=True)
    return clep.fit(
        clap, utterances, EMOTIONS, config, ComputeConfig(), seed, folder, reporting or Reporting(), checkpointing
    )


def test_frozen_parts_keep_their_bytes_and_the_rest_learns(micro_factory, utterances, tmp_path):
    clap = micro_factory()
    before = {name: tensor.clone() for name, tensor in clap.model.state_dict().items()}
    fit(clap, utterances, tmp_path / "a", replace(CONFIG, train_text_encoder=False, from_scratch=False))
    changed = {n for n, tensor in clap.model.state_dict().items() if not torch.equal(tensor, before[n])}
    assert not {name for name in changed if name.startswith("text_model") or "batch_norm" in name}
    assert {name for name in changed if name.startswith(("audio_projection", "text_projection"))}
    assert {name for name in changed if name.startswith("audio_model")}
    assert "logit_scale_a" in changed


def test_every_trainable_parameter_is_in_one_group_and_has_a_gradient(micro_factory, utterances):
    for train_text in (True, False):
        config = replace(CONFIG, train_text_encoder=train_text)
        clap = micro_factory()
        groups = weights.trainable_groups(clap, config)
        grouped = [id(p) for group in groups for p in group["params"]]
        trainable = {id(p): name for name, p in clap.model.named_parameters() if p.requires_grad}
        assert len(grouped) == len(set(grouped))
        assert set(grouped) == set(trainable)
        weights.train_mode(clap, config)
        text = text_features.TextFeatures(clap, EMOTIONS, config)
        audio = clap.encode_log_mel(torch.randn(2, 1, 256, 64))
        captions, prototypes = text.with_prototypes(["angry speech", "sad speech"])
        (clap.logit_scale.exp() * audio @ torch.cat([captions, prototypes]).T).square().sum().backward()
        without = [name for name, p in clap.model.named_parameters() if p.requires_grad and p.grad is None]
        assert not without
        no_decay = {id(p) for g in groups if g["weight_decay"] == 0 for p in g["params"]}
        assert {id(p) for p in clap.model.parameters() if p.requires_grad and p.ndim < 2} <= no_decay
        assert id(clap.logit_scale) in no_decay


def test_frozen_text_encoder_and_batch_norm_stay_in_eval():
    clap = build_small_clap()
    weights.train_mode(clap, replace(CONFIG, train_text_encoder=False))
    assert not any(module.training for module in clap.model.text_model.modules())
    assert not clap.model.audio_model.audio_encoder.batch_norm.training
    assert clap.model.audio_model.training


def test_cached_text_equals_encoded_text(micro_factory):
    clap = micro_factory()
    clap.model.eval()
    texts = ["angry speech", "sad speech", "angry speech"]
    cached = text_features.TextFeatures(clap, EMOTIONS, replace(CONFIG, train_text_encoder=False)).encode(texts)
    fresh = text_features.TextFeatures(clap, EMOTIONS, replace(CONFIG, train_text_encoder=True)).encode(texts)
    torch.testing.assert_close(cached, fresh, atol=1e-5, rtol=0)


def test_prototypes_equal_a_plain_loop(micro):
    """P_n = n(mean_j n(t_nj)); that CE(s a P^T, y) is cross-entropy is torch's own."""
    text = text_features.TextFeatures(micro, EMOTIONS, CONFIG)
    with torch.no_grad():
        _, prototypes = text.with_prototypes([])
        for own, row in zip(prototypes, text.prompts, strict=True):
            assert len(row) == len(CONFIG.templates)
            total = np.zeros(len(own))
            for prompt in row:
                one = micro.project_text(micro.pool_text(**micro.tokenize([prompt])))[0].numpy()
                total += one / np.sqrt(sum(float(x) ** 2 for x in one)) / len(row)
            np.testing.assert_allclose(own.numpy(), total / np.sqrt((total**2).sum()), atol=1e-5)


def test_it_learns_an_easy_task_and_keeps_its_best_epoch(micro_factory, utterances, tmp_path):
    clap = micro_factory()
    figures = fit(clap, utterances, tmp_path / "a", replace(SCRATCH, epochs=4, steps_per_epoch=8, batch_size=8))
    scores, (before, after) = figures["validation_uar"], figures["prompt_cosine"]
    assert before > 0.99 and after < 0.5
    assert max(scores) == 1.0
    assert scores[figures["best_epoch"] - 1] == max(scores)
    validation = utterances[utterances.split == "validation"].reset_index(drop=True)
    text = text_features.TextFeatures(clap, EMOTIONS, CONFIG)
    labels = validation.emotion.map({e: n for n, e in enumerate(EMOTIONS)}).to_numpy()
    assert clep.zero_shot_uars(clap, text, validation, labels) == {"one": 1.0, "two": 1.0}
    assert figures["validation_uar_one"][figures["best_epoch"] - 1] == 1.0


def test_the_first_of_the_best_epochs_on_validation_is_kept_wherever_it_stands(
    micro_factory, utterances, tmp_path, monkeypatch
):
    script, weights, asked = [0.5, 0.75, 0.75, 0.25], [], []

    def score(clap, text, table, labels, *_):
        weights.append({name: tensor.clone() for name, tensor in clap.model.state_dict().items()})
        asked.append(dict(zip(table.utterance_id, labels, strict=True)))
        mean = script[len(weights) - 1]
        return {"one": mean - 0.25, "two": mean + 0.25}

    monkeypatch.setattr(clep, "zero_shot_uars", score)
    clap = micro_factory()
    figures = fit(clap, utterances, tmp_path / "a", replace(CONFIG, epochs=4))
    assert (figures["validation_uar"], figures["best_epoch"]) == (script, 2)
    assert figures["validation_uar_one"] == [score - 0.25 for score in script]
    kept = clap.model.state_dict()
    equal = [all(torch.equal(tensor, kept[name]) for name, tensor in epoch.items()) for epoch in weights]
    assert equal == [False, True, False, False]
    validation = utterances[utterances.split == "validation"]
    expected = {row.utterance_id: EMOTIONS.index(row.emotion) for row in validation.itertuples()}
    assert asked == [expected] * 4


def test_the_score_of_an_epoch_counts_each_corpus_once_over_the_emotions_that_it_has(micro, utterances, monkeypatch):
    """Corpus one: 4 utterances, half of them right; two: one, of one emotion, right."""
    table = utterances[utterances.split == "validation"]
    table = table[(table.corpus == "one") | (table.emotion == "sad")].iloc[:5].reset_index(drop=True)
    assert table.corpus.tolist() == ["one"] * 4 + ["two"]
    text = text_features.TextFeatures(micro, EMOTIONS, CONFIG)
    prototypes = torch.eye(2, micro.model.config.projection_dim)
    monkeypatch.setattr(text, "with_prototypes", lambda texts: (None, prototypes))
    monkeypatch.setattr(micro, "encode_waveforms", lambda waveforms: prototypes[[1] * len(list(waveforms))])
    labels = table.emotion.map({e: n for n, e in enumerate(EMOTIONS)}).to_numpy()
    assert clep.zero_shot_uars(micro, text, table, labels) == {"one": 0.5, "two": 1.0}


@pytest.mark.parametrize(
    ("killed_after", "best", "config"),
    [
        (1, "whole", CONFIG),
        (3, "whole", SCRATCH),
        (5, "whole", CONFIG),
        (5, "gone", CONFIG),
        (5, "torn", CONFIG),
        (3, "whole", replace(CONFIG, chunk=3)),
    ],
    ids=["1", "3-scratch", "5", "5-gone", "5-torn", "3-chunks"],
)
def test_a_killed_training_goes_on_bit_for_bit(
    micro_factory, utterances, tmp_path, ticking, killed_after, best, config
):
    whole = micro_factory()
    figures = fit(whole, utterances, tmp_path / "whole", config)

    class Killed(Exception):
        pass

    def kill(done, total):
        if done == killed_after:
            raise Killed

    broken = micro_factory()
    with pytest.raises(Killed):
        fit(
            broken,
            utterances,
            tmp_path / "broken",
            config,
            reporting=Reporting(progress=kill),
            checkpointing=ticking(2),
        )
    assert (tmp_path / "broken" / "training.resume").exists() == (killed_after >= 2)
    if best == "gone":
        (tmp_path / "broken" / clep.BEST).unlink()
    elif best == "torn":
        (tmp_path / "broken" / clep.BEST).write_bytes((tmp_path / "broken" / clep.BEST).read_bytes()[:99])
    resumed = micro_factory()
    assert fit(resumed, utterances, tmp_path / "broken", config) == figures
    assert resumed.digest() == whole.digest()


def test_another_seed_gives_another_model(micro_factory, utterances, tmp_path):
    models = [micro_factory(), micro_factory()]
    for seed, clap in enumerate(models):
        fit(clap, utterances, tmp_path / str(seed), replace(CONFIG, epochs=1, steps_per_epoch=1), seed)
    assert models[0].digest() != models[1].digest()


def test_logit_scale_is_clamped_in_place(micro_factory, utterances, tmp_path):
    clap = micro_factory()
    with torch.no_grad():
        clap.logit_scale.fill_(50.0)
    fit(clap, utterances, tmp_path / "a", replace(CONFIG, epochs=1))
    assert 0 <= clap.logit_scale.item() <= np.log(100.0) + 1e-6


def test_unlabelled_utterances_are_not_trained_on(micro_factory, utterances, tmp_path):
    extra = utterances.head(1).assign(utterance_id="one/x", emotion=None)
    figures = fit(micro_factory(), pd.concat([utterances, extra]), tmp_path / "a", replace(CONFIG, epochs=1))
    assert figures["train_utterances"] == 16


def test_config_refuses_few_templates():
    with pytest.raises(ValueError, match="templates"):
        ClepConfig(target="instance", templates=("{emotion} speech",))
