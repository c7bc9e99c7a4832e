"""Protects the dual backbone: its encoders stay frozen, its folder keeps it whole, pooled states are audio's own."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from clepdg.callbacks import Reporting
from clepdg.config.model_pins import dual_parts
from clepdg.config.presets import build
from clepdg.config.schema import ClepConfig, ComputeConfig
from clepdg.errors import BackboneError, ClepError
from clepdg.method import clep
from clepdg.method.audio_embeddings import AudioEmbeddings, select
from clepdg.method.weights import interpolate
from clepdg.models.dual import build_dual, load_dual
from clepdg_tasks.host.model_checks import check_backbone
from tests.encoders import save_encoders

EMOTIONS = ("angry", "sad")
CONFIG = ClepConfig(epochs=2, steps_per_epoch=5, batch_size=8, train_audio_encoder=False, projection_learning_rate=1e-3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture
def dual(folders):
    return build_dual(*folders, seed=0)


def test_a_folder_keeps_it_whole(dual, tone, tmp_path):
    dual.save(tmp_path)
    again, speech = load_dual(tmp_path), [(tone(0.5, 16000), 16000), (tone(0.8, 22050), 22050)]
    assert again.digest() == dual.digest()
    assert torch.equal(again.encode_waveforms(speech), dual.encode_waveforms(speech))
    assert torch.equal(again.encode_text(["angry speech"]), dual.encode_text(["angry speech"]))


def test_states_are_means_and_deviations_of_every_layer(dual, folders, tone):
    from transformers import AutoFeatureExtractor, AutoModel

    waveform = tone(0.7, 16000)
    inputs = AutoFeatureExtractor.from_pretrained(folders[0])(waveform, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        found = AutoModel.from_pretrained(folders[0]).eval()(inputs.input_values, output_hidden_states=True)
    states = torch.cat([*found.hidden_states[:-1], found.last_hidden_state])  # (P, F, A)
    expected = torch.cat([states.mean(1), states.std(1, correction=0)], dim=-1)
    np.testing.assert_allclose(dual.pool([(waveform, 16000)])[0], expected, atol=1e-5)


def test_a_text_is_the_mean_over_its_tokens_and_takes_vectors_for_words(dual):
    tokens = dual.tokenize(["angry speech", "sad"])
    hidden = dual.model.text_model.encoder(**tokens).last_hidden_state
    pooled = dual.pool_text(**tokens)
    torch.testing.assert_close(pooled[0], hidden[0].mean(0))
    torch.testing.assert_close(pooled[1], hidden[1, :3].mean(0))  # [CLS] sad [SEP], and no padding
    vectors = dual.word_embeddings(tokens["input_ids"])
    torch.testing.assert_close(dual.pool_text(inputs_embeds=vectors, attention_mask=tokens["attention_mask"]), pooled)


def speech(number: int = 100) -> tuple[pd.DataFrame, AudioEmbeddings]:
    """Return utterances of two corpora that lie apart, and states that tell their emotions."""
    rng = np.random.default_rng(0)
    emotion, corpus = np.arange(number) % 2, np.arange(number) // 2 % 2
    states = rng.normal(0, 1, (number, 3, 32)).astype(np.float32)
    states[:, 1, :4] += 4 * (emotion[:, None] * 2 - 1)
    states[:, 1, 4:8] += 2 * corpus[:, None]
    names = [f"u{n}" for n in range(number)]
    table = pd.DataFrame({
        "utterance_id": names, "corpus": np.array(["one", "two"])[corpus], "emotion": np.array(EMOTIONS)[emotion],
        "split": ["validation" if n % 5 == 0 else "train" for n in range(number)],
    })  # fmt: skip
    return table.sort_values("utterance_id"), AudioEmbeddings(utterance_ids=tuple(names), embeddings=states)


def fit(dual, folder, config=CONFIG):
    table, states = speech()
    folder.mkdir(exist_ok=True)
    compute, reporting = ComputeConfig(threads=1), Reporting()
    return clep.fit(dual, table, EMOTIONS, config, compute, 0, folder, reporting, states=[states])


@pytest.mark.parametrize("standardise", ["none", "source"])
def test_heads_learn_and_encoders_keep_their_bytes(dual, tmp_path, standardise):
    before = {name: tensor.clone() for name, tensor in dual.model.state_dict().items()}
    found = fit(dual, tmp_path, replace(CONFIG, steps_per_epoch=40, standardise=standardise))
    changed = {name for name, t in dual.model.state_dict().items() if not torch.equal(t, before[name])}
    assert changed == {*dual.model.heads()} - {"audio_projection.read"}
    assert max(found["validation_uar"]) > 0.75


def test_halfway_back_to_the_backbone_it_keeps_the_sources_statistics_and_its_encoders_bytes(dual, folders, tmp_path):
    before = build_dual(*folders, seed=0)
    fit(dual, tmp_path)
    learnt = {name: tensor.clone() for name, tensor in dual.model.state_dict().items()}
    interpolate(before, dual, 0.3)
    for name, tensor in dual.model.state_dict().items():
        start = before.model.state_dict()[name]
        mixed = name in dual.model.heads() and not name.endswith((".centre", ".spread", ".read"))
        assert torch.equal(tensor, 0.3 * start + (1 - 0.3) * learnt[name] if mixed else learnt[name]), name


def test_each_source_has_its_own_statistics_where_it_is_asked(dual):
    table, states = speech()
    x, corpora = select([states], table.utterance_id), table.corpus.to_numpy()
    for how in ("none", "source"):
        head = dual.model.audio_projection
        given = head.set_statistics(x, corpora, replace(CONFIG, standardise=how))
        standardised = (given - head.centre.numpy()) / head.spread.numpy()
        means = [np.abs(standardised[corpora == corpus].mean(axis=0)).max() for corpus in ("one", "two")]
        assert (max(means) < 1e-3) == (how == "source")
    assert np.array_equal(x, select([states], table.utterance_id))  # a copy was changed


def test_a_targets_states_take_the_sources_statistics(dual):
    table, states = speech()
    head = dual.model.audio_projection
    sources = select([states], table.utterance_id)
    head.set_statistics(sources, table.corpus.to_numpy(), CONFIG)
    target = sources * 3 + 5  # another microphone
    found = head.standardise(target[:10], target)
    by_source = (sources - sources.mean(axis=0)) / sources.std(axis=0)
    expected = head.centre.numpy() + head.spread.numpy() * by_source[:10]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("setting", "ignored"),
    [({"layers": "last"}, np.s_[:, :-1]), ({"pooling": "mean"}, np.s_[:, :, 16:])],
)
def test_the_head_reads_only_what_is_asked(dual, setting, ignored):
    table, states = speech()
    x = select([states], table.utterance_id)
    dual.model.audio_projection.set_statistics(x, table.corpus.to_numpy(), replace(CONFIG, **setting))
    changed, same = x.copy(), x.copy()
    same[ignored] += 1
    changed[:, -1, :16] += 1
    with torch.no_grad():
        before, after, other = (dual.encode_inputs(torch.from_numpy(each)) for each in (x, same, changed))
    assert torch.equal(before, after) and not torch.allclose(before, other)


@pytest.mark.parametrize("broken", ["audio", "text", "heads.safetensors", "dual.json"])
def test_a_broken_folder_is_one_error(dual, tmp_path, broken):
    import shutil

    dual.save(tmp_path)
    place = tmp_path / broken
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(ClepError):
        load_dual(tmp_path)


@pytest.mark.parametrize("name", ["dual:a", "dual:a+", "dual:a+b+c"])
def test_a_dual_backbone_has_two_encoders(name):
    with pytest.raises(BackboneError, match="two encoders"):
        dual_parts(name)


def test_the_encoders_are_checked_before_work_starts(folders, tmp_path):
    check_backbone(build("open", backbone="dual:" + "+".join(map(str, folders))))
    for pair in ((folders[1], folders[1]), (folders[0], folders[0]), (tmp_path, folders[1])):
        with pytest.raises(BackboneError):
            check_backbone(build("open", backbone="dual:" + "+".join(map(str, pair))))
