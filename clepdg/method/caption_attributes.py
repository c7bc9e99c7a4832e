"""Measure gender, pitch and pace of utterances for captions.

Captions of target `attribute` use them. The thirds are computed from the source corpora's training utterances alone: of
pitch within each gender, of pace over all utterances with a transcript.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clepdg import prompts
from clepdg.audio.io import Waveform
from clepdg.dataset.shards import read_waveform

if TYPE_CHECKING:
    import pandas as pd

LOWEST_HZ, HIGHEST_HZ = 60.0, 500.0
FRAME_SECONDS, HOP_SECONDS = 0.05, 0.02
VOICED = 0.5  # least autocorrelation at the period of a voiced frame
LOUD_DB = 25.0  # frames weaker than the loudest by more than this are ignored
Attributes = dict[str, str]  # attribute -> value; unknown attributes are left out


def pitch_hz(waveform: Waveform, rate: int) -> float | None:
    """Return the median pitch of the voiced frames of a waveform, in Hz.

    None if no frame is voiced. The period is the first peak of the autocorrelation that is nearly as high as the
    highest one: a later peak may be a multiple of the period. The window's own autocorrelation is divided out (Boersma,
    IFA Proceedings 17, 1993).
    """
    size, hop = int(FRAME_SECONDS * rate), int(HOP_SECONDS * rate)
    if len(waveform) < size:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64), size)[::hop]
    power = np.square(frames).mean(axis=1)
    frames = frames[power > max(float(power.max()) / 10 ** (LOUD_DB / 10), 1e-12)]
    window = np.hanning(size)
    shape = 2 ** int(np.ceil(np.log2(2 * size)))
    taper = _autocorrelation(window[None], shape)[:, :size]
    correlation = _autocorrelation((frames - frames.mean(axis=1, keepdims=True)) * window, shape)[:, :size] / taper
    correlation /= correlation[:, :1] + 1e-12
    first, last = int(rate / HIGHEST_HZ), int(np.ceil(rate / LOWEST_HZ))
    found = [_period(row[first - 1 : last + 2]) for row in correlation]
    periods = [first - 1 + lag for lag in found if lag is not None]
    return float(rate / np.median(periods)) if periods else None


def _autocorrelation(frames: Any, shape: int) -> Any:
    return np.fft.irfft(np.abs(np.fft.rfft(frames, shape)) ** 2, shape)


def _period(correlation: Any) -> float | None:
    """Return the interpolated lag of the first high peak; None if not voiced."""
    inner = correlation[1:-1]
    peaks = 1 + np.flatnonzero((inner >= correlation[:-2]) & (inner > correlation[2:]))
    if not peaks.size or correlation[peaks].max() < VOICED:
        return None
    peak = peaks[correlation[peaks] >= 0.9 * correlation[peaks].max()][0]
    left, middle, right = correlation[peak - 1 : peak + 2]
    bend = left - 2 * middle + right
    return float(peak + (0.5 * (left - right) / bend if bend else 0.0))


def measure_attributes(train: "pd.DataFrame") -> list[Attributes]:
    """Return the known attributes of each training utterance.

    Args:
        train: gender, transcript, num_samples, sample_rate, and the audio's place: folder, tar, offset, bytes.
    """
    pitches, paces = [], []
    for row in train.to_dict("records"):
        waveform, rate = read_waveform(Path(row["folder"]), row["tar"], row["offset"], row["bytes"])
        pitches.append(pitch_hz(waveform, rate))
        said = row["transcript"] if isinstance(row["transcript"], str) else ""
        letters = sum(map(str.isalnum, said))
        paces.append(letters * row["sample_rate"] / row["num_samples"] if letters else None)
    genders = [gender if gender in prompts.ATTRIBUTE_PHRASES["gender"] else None for gender in train.gender]
    known = {
        "gender": genders,
        "pitch": thirds(pitches, genders, tuple(prompts.ATTRIBUTE_PHRASES["pitch"])),
        "pace": thirds(paces, [None] * len(paces), tuple(prompts.ATTRIBUTE_PHRASES["pace"])),
    }
    return [
        {name: value for name, values in known.items() if (value := values[place]) is not None}
        for place in range(len(train))
    ]


def thirds(values: Sequence[float | None], groups: Sequence[str | None], names: tuple[str, ...]) -> list[str | None]:
    """Return the third of each value within its group, by name.

    None stays None.

    Args:
        names: of the lowest, middle and highest third.
    """
    found: list[str | None] = [None] * len(values)
    for group in set(groups):
        mine = [place for place, value in enumerate(values) if groups[place] == group and value is not None]
        known = np.array([values[place] for place in mine], dtype=np.float64)
        if known.size:
            edges = np.quantile(known, [1 / 3, 2 / 3])
            for place, third in zip(mine, np.searchsorted(edges, known, side="left"), strict=True):
                found[place] = names[int(third)]
    return found


def draw_captions(
    texts: Sequence[str], known: Sequence[Attributes], rng: np.random.Generator
) -> tuple[list[str], Tensor]:
    """Add attributes to captions (B,), each with probability 0.5.

    Returns:
        The captions, and (B, B): whether all attributes in caption j are known to be true of utterance i.
    """
    said = [{name: value for name, value in own.items() if rng.random() < 0.5} for own in known]
    phrases = prompts.ATTRIBUTE_PHRASES
    captions = [
        ", ".join([text, *(phrases[name][value] for name, value in own.items())])
        for text, own in zip(texts, said, strict=True)
    ]
    return captions, torch.tensor([[claims.items() <= own.items() for claims in said] for own in known])
