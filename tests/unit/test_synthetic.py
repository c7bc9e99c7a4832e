"""Protects the synthetic corpora: read by the real parsers, equal bytes every time, emotion in contours alone."""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from clepdg.audio.io import decode, resample, to_mono
from clepdg.config.presets import build
from clepdg.config.schema import IndexConfig, SyntheticConfig
from clepdg.corpora import CORPORA, synthetic
from clepdg.corpora.cards import Card, load_card
from clepdg.corpora.parsing import Utterance
from clepdg.dataset.index import build_index
from clepdg.dataset.validate import check
from clepdg.errors import ConfigError
from clepdg.models.log_mel_statistics import log_mel_statistics

NAMES = tuple(f"synthetic-{n}" for n in range(1, 6))
RATE, HOP = 16000, 160
SIZE = SyntheticConfig(utterances=40)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    for name in NAMES:
        synthetic.write(load_card(name), SIZE, root / name)
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
    card = synthetic.with_size(load_card(name), SIZE)
    utterances, quarantine, figures = build_index(root / name, {}, card, IndexConfig())
    check(figures, card, allow_partial=False)
    assert quarantine.empty
    assert figures["notes"] == {}
    seconds = utterances.num_samples / utterances.sample_rate
    assert seconds.between(1.2, 2.2).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [20, 60, 120, 200])
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
    assert len(plan) == pytest.approx(size, abs=0.1 * size)
    assert len({item.speaker for item in plan}) == min(10, max(5, size // 8))


def test_the_card_of_the_default_size_is_the_card() -> None:
    for name in NAMES:
        assert synthetic.with_size(load_card(name), SyntheticConfig()) == load_card(name)


def test_more_utterances_than_a_grammar_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 768"):
        synthetic.with_size(load_card("synthetic-1"), SyntheticConfig(utterances=5000))
    with pytest.raises(ConfigError, match="(?s)at least 20.*synthetic.utterances"):
        build("demo", overrides={"synthetic.utterances": 19})


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


def frames(waveform: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Return windowed frames (F, size), one each 10 ms."""
    return np.lib.stride_tricks.sliding_window_view(waveform, size)[::HOP] * np.hanning(size)


def skewness(changes: NDArray[np.float64]) -> float:
    """Return how abrupt rises are beside falls: above 0 where a contour rises fast and falls slowly."""
    changes = changes - changes.mean()
    return float(np.cbrt(np.mean(changes**3)) / changes.std())


def contours(waveform: NDArray[np.float32]) -> tuple[float, float]:
    """Return the skewness of the changes of pitch, by autocorrelation, and of energy, where there is a voice."""
    energy = 10 * np.log10(np.mean(frames(waveform, 640) ** 2, axis=1) + 1e-9)
    spectrum = np.abs(np.fft.rfft(frames(waveform, 960), 2048)) ** 2
    correlation = np.fft.irfft(spectrum)[:, :230]
    lag = 50 + np.argmax(correlation[:, 50:], axis=1)
    voiced = np.take_along_axis(correlation, lag[:, None], 1)[:, 0] > 0.3 * correlation[:, 0]
    rise, tone = np.diff(energy), np.diff(np.log(lag)) * -1
    kept = voiced[1:] & voiced[:-1] & (abs(tone) < 0.15)  # not an octave off
    return skewness(tone[kept]), skewness(rise[energy[1:] > energy.max() - 25])


@pytest.fixture(scope="module")
def measured(root: Path) -> pd.DataFrame:
    """Return every utterance's corpus, speaker, emotion, contours, level, noise and statistics."""
    rows = []
    for name in NAMES:
        card = load_card(name)
        for item in spoken(card, root / name):
            waveform = audio(root / name, item)
            pitch, energy = contours(waveform)
            rows.append(
                {
                    "speaker": f"{name}/{item.speaker}",
                    "emotion": card.labels[item.raw_label],
                    "pitch": pitch,
                    "energy": energy,
                    "level": 10 * np.log10(np.mean(waveform**2)),
                    "noise": 10 * np.log10(np.mean(waveform[160:1200] ** 2)) - card.acoustics["noise_db"],
                    "statistics": log_mel_statistics(waveform, RATE),
                }
            )
    return pd.DataFrame(rows)


def test_contours_follow_the_emotion_and_level_and_noise_do_not(measured: pd.DataFrame) -> None:
    mean = measured.groupby("emotion")[["pitch", "energy", "level", "noise"]].mean()
    assert min(mean.pitch["angry"], mean.pitch["sad"]) > mean.pitch["neutral"] > mean.pitch["happy"]
    assert mean.energy["angry"] > max(mean.energy["happy"], mean.energy["neutral"]) > mean.energy["sad"]
    assert np.ptp(mean.level) < 1.0 and np.ptp(mean.noise) < 1.0  # dB


def test_contours_tell_the_emotion_of_unseen_speakers_and_statistics_over_time_hardly_do(
    measured: pd.DataFrame,
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import recall_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def uar(inputs: NDArray[np.float64]) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        found = cross_val_predict(model, inputs, measured.emotion, groups=measured.speaker, cv=GroupKFold(5))
        return float(recall_score(measured.emotion, found, average="macro"))

    told, floor = uar(measured[["pitch", "energy"]].to_numpy()), uar(np.stack(list(measured.statistics)))
    assert told > floor + 0.2
    assert floor < 0.5  # chance is 0.25
