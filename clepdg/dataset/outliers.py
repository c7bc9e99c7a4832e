"""Find what alters a whole corpus, and utterances that are unlike the others of theirs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from clepdg.audio.io import Waveform, to_mono

LEAST: Final = 20  # utterances; of fewer nothing is said
MOST: Final = 0.5  # share of utterances that is "most"
FULL_SCALE: Final = 0.999
END_SECONDS: Final = 0.1  # recordings end in fewer zeros
END_SHARE: Final = 0.1  # of utterances with such an end
OUTLYING: Final = 3.5  # robust deviations from the median, after Iglewicz and Hoaglin (1993)
LEAST_DISTANCE: Final = 0.5  # of logarithms: less than a factor of 1.65 from the median is usual
FRAME_SECONDS: Final = 0.032
FRAMES: Final = 2000  # of a long file, evenly spread


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Figures of one file that are compared within its corpus."""

    seconds: float
    peak: float  # over all channels; full scale = 1
    centre: float  # of the spectrum's power, in Hz
    zeros: float  # seconds at the end


def measure(samples: Waveform, rate: int) -> Measures:
    """Measure samples (T, C) that are not all zero."""
    mono = to_mono(samples)
    size = min(len(mono), round(FRAME_SECONDS * rate))
    frames = mono[: len(mono) // size * size].reshape(-1, size)
    frames = frames[:: -(-len(frames) // FRAMES)]
    power = (np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2).mean(axis=0)
    power[0] = 0.0  # a constant offset is no sound
    return Measures(
        seconds=len(mono) / rate,
        peak=float(np.abs(samples).max()),
        centre=float(power @ np.fft.rfftfreq(size, 1 / rate) / max(power.sum(), np.finfo(float).tiny)),
        zeros=(len(mono) - 1 - int(np.flatnonzero(mono)[-1])) / rate,
    )


def find_alterations(files: Mapping[str, Measures]) -> dict[str, int]:
    """Return {what many files share that recordings do not: number of files}."""
    if len(files) < LEAST:
        return {}
    ((seconds, same),) = Counter(round(each.seconds, 3) for each in files.values()).most_common(1)
    loud = sum(each.peak >= FULL_SCALE for each in files.values())
    padded = sum(each.zeros > END_SECONDS for each in files.values())
    return {
        what: count
        for what, count, share in (
            (f"of one length, {seconds:g} s", same, MOST),
            ("with a peak at full scale", loud, MOST),
            (f"ending in more than {END_SECONDS:g} s of zeros", padded, END_SHARE),
        )
        if count > share * len(files)
    }


def find_outliers(files: Mapping[str, Measures]) -> dict[str, list[str]]:
    """Return {utterance_id: notes} on unusual length, peak and spectrum.

    A value is unlike where its logarithm lies more than `OUTLYING` robust standard deviations (1.4826 times the median
    absolute deviation), and `LEAST_DISTANCE`, from the corpus's median.
    """
    notes: dict[str, list[str]] = {key: [] for key in files}
    if len(files) < LEAST:
        return notes
    altered = " ".join(find_alterations(files))
    for name, text, values in (
        ("length", "{:.2f} s", [each.seconds for each in files.values()]),
        ("peak", "{:.2g} of full scale", [each.peak for each in files.values()]),
        ("spectrum", "{:.0f} Hz at its centre", [each.centre for each in files.values()]),
    ):
        logarithms = np.log(np.maximum(values, 1e-9))
        distances = np.abs(logarithms - np.median(logarithms))
        usual = max(OUTLYING * 1.4826 * float(np.median(distances)), LEAST_DISTANCE)
        for key, value, distance in zip(files, values, distances, strict=True):
            if distance > usual and name not in altered:
                notes[key].append(f"unusual {name}: {text.format(value)}")
    return notes
