"""Protects the notes on a whole corpus: what altered it is found, odd files are noted, usual ones are not."""

from typing import Any

import numpy as np
import pytest

from clepdg.dataset.outliers import Measures, find_alterations, find_outliers, measure

RATE = 16000
RNG = np.random.default_rng(3)


def corpus(files: int = 200, **changes: Any) -> dict[str, Measures]:
    """Return the measures of a corpus as recordings have them; of each file the last columns are given by changes."""
    usual = {
        "seconds": np.exp(RNG.normal(1.0, 0.3, files)),
        "peak": np.exp(RNG.normal(-2.0, 0.7, files)).clip(0, 0.95),
        "centre": np.exp(RNG.normal(6.7, 0.4, files)),
        "zeros": np.zeros(files),
    }
    columns = usual | {name: change(usual[name]) for name, change in changes.items()}
    return {str(n): Measures(**{name: float(values[n]) for name, values in columns.items()}) for n in range(files)}


def kinds(files: dict[str, Measures]) -> dict[str, list[str]]:
    return {key: [note.partition(":")[0] for note in notes] for key, notes in find_outliers(files).items() if notes}


def test_recordings_are_not_altered_and_few_of_them_are_unusual() -> None:
    files = corpus(2000)
    assert find_alterations(files) == {}
    assert len(kinds(files)) <= 8  # of 6000 normal values beyond 3.5 deviations 3 are expected


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"seconds": lambda seconds: np.full_like(seconds, 2.0)}, {"of one length, 2 s": 200}),
        ({"peak": lambda peak: np.where(np.arange(200) < 120, 1.0, peak)}, {"with a peak at full scale": 120}),
        (
            {"zeros": lambda zeros: np.where(np.arange(200) < 30, 0.3, zeros)},
            {"ending in more than 0.1 s of zeros": 30},
        ),
    ],
)
def test_what_alters_a_corpus_is_found_and_makes_nothing_unusual(
    changes: dict[str, Any], found: dict[str, int]
) -> None:
    files = corpus(**changes)
    assert find_alterations(files) == found
    assert len(kinds(files)) <= 3


@pytest.mark.parametrize(
    ("column", "value", "note"),
    [
        ("seconds", 12.0, "unusual length"),
        ("seconds", 0.4, "unusual length"),
        ("peak", 0.001, "unusual peak"),
        ("centre", 60.0, "unusual spectrum"),
        ("centre", 7000.0, "unusual spectrum"),
    ],
)
def test_an_odd_file_is_noted_with_its_value(column: str, value: float, note: str) -> None:
    files = corpus(**{column: lambda values: np.where(np.arange(200) == 7, value, values)})
    assert kinds(files)["7"] == [note]


def test_files_that_are_nearly_alike_are_usual() -> None:
    files = corpus(seconds=lambda seconds: 2.0 + 0.01 * np.arange(200) % 0.3, peak=lambda peak: 0.9 + 0.0 * peak)
    assert not {"unusual length", "unusual peak"} & {kind for notes in kinds(files).values() for kind in notes}


def test_of_a_few_files_nothing_is_said() -> None:
    files = corpus(19, seconds=lambda seconds: np.full_like(seconds, 2.0))
    assert find_alterations(files) == {} and not kinds(files)


def test_measures_are_those_of_the_samples() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    padded = np.concatenate([tone, np.zeros(RATE // 2, np.float32)])
    got = measure(np.stack([padded, padded], 1), RATE)
    assert got.seconds == 1.5 and got.peak == pytest.approx(0.5, abs=0.01)
    assert got.centre == pytest.approx(1000, abs=20) and got.zeros == pytest.approx(0.5, abs=0.001)
    assert measure(np.ones((4000, 1), np.float32), RATE).centre < 100  # a constant offset has no sound
    assert measure(np.tile(padded[:, None], (100, 1)), RATE).centre == pytest.approx(1000, abs=20)
