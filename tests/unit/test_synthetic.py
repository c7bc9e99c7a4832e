"""Protects the synthetic corpora: read by the real parsers, equal bytes every time, emotion learnable, not trivial."""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clepdg.audio.io import decode, resample, to_mono
from clepdg.config.schema import IndexConfig, SyntheticConfig
from clepdg.corpora import CORPORA, synthetic
from clepdg.corpora.cards import Card, load_card
from clepdg.corpora.parsing import Utterance
from clepdg.dataset.index import build_index
from clepdg.dataset.validate import check
from clepdg.errors import ConfigError

NAMES = tuple(f"synthetic-{n}" for n in range(1, 6))
RATE = 16000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    for name in NAMES:
        synthetic.write(load_card(name), SyntheticConfig(), root / name)
    return root


def spoken(card: Card, root: Path) -> list[Utterance]:
    items = list(CORPORA[card.grammar](root))
    assert all(isinstance(item, Utterance) for item in items)
    return [item for item in items if isinstance(item, Utterance)]


def audio(root: Path, item: Utterance) -> NDArray[np.float32]:
    samples, rate = decode(root / item.path)
    return resample(to_mono(samples), rate, RATE)


@pytest.mark.parametrize("name", NAMES)
def test_a_corpus_is_what_its_card_says_without_error_or_note(name: str, root: Path) -> None:
    card = load_card(name)
    utterances, quarantine, figures = build_index(root / name, {}, card, IndexConfig())
    check(figures, card, allow_partial=False)
    assert quarantine.empty
    assert figures["notes"] == {}
    seconds = utterances.num_samples / utterances.sample_rate
    assert seconds.between(1.2, 2.2).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [16, 60, 200])
def test_every_part_has_all_emotions_in_equal_number_and_unseen_speakers(name: str, size: int, tmp_path: Path) -> None:
    card = synthetic.with_size(load_card(name), SyntheticConfig(utterances=size))
    plan = synthetic._plan(card, SyntheticConfig(utterances=size))
    parts: dict[str, Counter[str]] = defaultdict(Counter)
    for item in plan:
        parts[card.split.part(item.speaker, item.text)][card.labels[item.raw_label]] += 1
    assert set(parts) == {"train", "validation", "test"}
    for counts in parts.values():
        assert set(counts) == {"angry", "happy", "neutral", "sad"}
        assert len(set(counts.values())) == 1
    assert len({item.speaker for item in plan if item.speaker in card.split.test}) == len(card.split.test)
    assert len({item.name for item in plan}) == len(plan) == card.expected.utterances
    assert len(plan) == pytest.approx(size, abs=max(4, 0.1 * size))


def test_the_card_of_the_default_size_is_the_card() -> None:
    for name in NAMES:
        assert synthetic.with_size(load_card(name), SyntheticConfig()) == load_card(name)


def test_more_utterances_than_a_grammar_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 768"):
        synthetic.with_size(load_card("synthetic-1"), SyntheticConfig(utterances=5000))


def test_an_edited_label_map_changes_no_audio(root: Path, tmp_path: Path) -> None:
    card = load_card("synthetic-4")
    edited = replace(card, labels={"SAD": "", "HAP": "excited"})
    synthetic.write(edited, SyntheticConfig(utterances=20), tmp_path)
    for item in spoken(card, tmp_path):
        assert (tmp_path / item.path).read_bytes() == (root / card.name / item.path).read_bytes()


def test_bytes_are_the_same_in_every_run_and_size_and_differ_by_seed(root: Path, tmp_path: Path) -> None:
    card = load_card("synthetic-3")
    synthetic.write(card, SyntheticConfig(utterances=20), tmp_path / "small")
    synthetic.write(card, SyntheticConfig(utterances=20, seed=1), tmp_path / "other")
    for item in spoken(card, tmp_path / "small"):
        small = (tmp_path / "small" / item.path).read_bytes()
        assert small == (root / card.name / item.path).read_bytes()
        assert small != (tmp_path / "other" / item.path).read_bytes()


def test_corpora_of_one_grammar_do_not_share_audio(root: Path) -> None:
    item = spoken(load_card("synthetic-1"), root / "synthetic-1")[0]
    assert not np.array_equal(audio(root / "synthetic-1", item)[:8000], audio(root / "synthetic-5", item)[:8000])


def pitch(waveform: NDArray[np.float32]) -> float:
    """Return the median f0 in Hz by autocorrelation over voiced frames."""
    found = []
    for start in range(0, len(waveform) - 800, 400):
        frame = waveform[start : start + 800] - waveform[start : start + 800].mean()
        correlation = np.correlate(frame, frame, "full")[799:]
        lag = 30 + int(np.argmax(correlation[30:230]))
        if correlation[lag] > 0.5 * correlation[0] > 0:
            found.append(RATE / lag)
    return float(np.median(found))


def test_the_voice_follows_the_emotion_and_the_noise_does_not(root: Path) -> None:
    voice: dict[tuple[str, str], list[float]] = defaultdict(list)
    level: dict[str, list[float]] = defaultdict(list)
    noise: dict[str, list[float]] = defaultdict(list)
    for name in NAMES:
        card = load_card(name)
        for item in spoken(card, root / name):
            emotion, waveform = card.labels[item.raw_label], audio(root / name, item)
            voice[f"{name}/{item.speaker}", emotion].append(pitch(waveform))
            level[emotion].append(10 * np.log10(np.mean(waveform**2)))
            noise[emotion].append(10 * np.log10(np.mean(waveform[160:1200] ** 2)) - card.acoustics["noise_db"])
    speakers = {speaker for speaker, _ in voice}
    higher = [np.mean(voice[speaker, "happy"]) > np.mean(voice[speaker, "sad"]) for speaker in speakers]
    assert np.mean(higher) > 0.85
    assert np.mean(level["angry"]) > np.mean(level["neutral"]) > np.mean(level["sad"])
    floors = [float(np.mean(noise[emotion])) for emotion in noise]
    assert max(floors) - min(floors) < 1.0  # dB


def features(waveform: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return mean, deviation and change of 40 bands of the normalised log spectrogram (120,)."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 1024)[::256] * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = np.unique(np.geomspace(3, 512, 41).astype(int))
    bands = np.log(np.stack([power[:, a:b].mean(1) for a, b in zip(edges, edges[1:], strict=False)]) + 1e-8)
    bands = (bands - bands.mean()) / bands.std()
    return np.concatenate([bands.mean(1), bands.std(1), np.diff(bands, axis=1).std(1)])


def test_an_unseen_corpus_can_be_classified_but_not_perfectly(root: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import recall_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = [
        (name, load_card(name).labels[item.raw_label], features(audio(root / name, item)))
        for name in NAMES
        for item in spoken(load_card(name), root / name)
    ]
    corpus, emotion, inputs = (np.array(column) for column in zip(*rows, strict=True))
    recalls = []
    for name in NAMES:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000))
        model.fit(inputs[corpus != name], emotion[corpus != name])
        recalls.append(recall_score(emotion[corpus == name], model.predict(inputs[corpus == name]), average="macro"))
    assert np.mean(recalls) > 0.45  # chance is 0.25
    assert max(recalls) < 0.98
