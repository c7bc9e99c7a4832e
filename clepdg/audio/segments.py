"""Cut a long recording into pieces, for `clep-dg predict --segments`.

Shapes: T samples of a recording. Pieces that could not be an utterance, such as silent ones, are left out.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from clepdg.audio.faults import find_fault
from clepdg.audio.io import Waveform, resample
from clepdg.config.schema import IndexConfig
from clepdg.errors import ConfigError, IndexingError

LONGEST: Final = 3600.0  # seconds of a recording
MOST_SPEECH: Final = 10.0  # seconds of a piece that is found by its speech
VAD_RATE: Final = 16_000  # Hz
FORM: Final = r"fixed:(\d+(?:\.\d+)?)s(?:/(\d+(?:\.\d+)?)s)?"

Span = tuple[int, int]  # first sample of a piece, and the first behind it
Cut = Callable[[Waveform, int], list[Span]]  # waveform (T,) and its rate in Hz -> its pieces


def parse_segments(text: str) -> Cut:
    """Return the function that cuts recordings: "fixed:5s/2.5s" or "vad".

    Args:
        text: "fixed:LENGTH/STEP" (without STEP: pieces that do not overlap), or "vad" (pieces of speech).

    Raises:
        ConfigError: it is neither, out of range, or needs a package that is missing.
    """
    limits = IndexConfig()
    if text == "vad":
        _voice_detector()
        return _find_speech
    found = re.fullmatch(FORM, text)
    length, step = (float(found[1]), float(found[2] or found[1])) if found else (0.0, 0.0)
    if not (limits.min_seconds <= length <= limits.max_seconds and limits.min_seconds <= step <= length):
        raise ConfigError(
            "Recordings can't be cut like this.",
            got=text,
            expected=(
                f"fixed:5s/2.5s: a length of {limits.min_seconds} to {limits.max_seconds} s, and a step of "
                f"{limits.min_seconds} s to the length",
                "vad",
            ),
            where="--segments",
        )
    return lambda waveform, rate: _fixed(len(waveform), round(length * rate), round(step * rate))


def cut_pieces(waveform: Waveform, rate: int, cut: Cut) -> list[Span]:
    """Return the pieces of a recording (T,) that can be classified.

    Raises:
        IndexingError: it has none.
    """
    spans = [(a, b) for a, b in cut(waveform, rate) if find_fault(waveform[a:b, None], rate, IndexConfig()) is None]
    if not spans:
        raise IndexingError("no piece of it can be classified: all are silent or too short")
    return spans


def _fixed(total: int, length: int, step: int) -> list[Span]:
    """Return pieces of one length; the last one ends with the recording."""
    if total <= length:
        return [(0, total)]
    starts = [*range(0, total - length, step), total - length]
    return [(start, start + length) for start in starts]


def _find_speech(waveform: Waveform, rate: int) -> list[Span]:
    """Return the pieces of speech, by Silero's voice activity detector."""
    import torch
    from silero_vad import get_speech_timestamps

    audio = torch.from_numpy(resample(waveform, rate, VAD_RATE))
    limits = {"sampling_rate": VAD_RATE, "max_speech_duration_s": MOST_SPEECH}
    spans = get_speech_timestamps(audio, _voice_detector(), **limits)
    scale = rate / VAD_RATE
    return [(round(span["start"] * scale), min(round(span["end"] * scale), len(waveform))) for span in spans]


@cache
def _voice_detector() -> Any:
    """Load the detector, which the package silero-vad holds."""
    import torch

    threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad
    except ImportError as error:
        do = "install the extra vad: pip install 'clep-dg[vad]'"
        raise ConfigError("Finding speech needs the package silero-vad.", where="--segments vad", do=do) from error
    model = load_silero_vad()
    torch.set_num_threads(threads)  # its import sets 1
    return model
