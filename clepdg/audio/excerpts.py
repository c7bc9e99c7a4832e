"""Short excerpts of utterances, as a page plays them."""

import base64
import io

import numpy as np
import soundfile

from clepdg.audio.io import Waveform, encode_flac, resample, to_pcm
from clepdg.audio.noise import FRAME, RATE, is_active

SECONDS = 4.0  # at most, of an excerpt
MARGIN = 5  # frames of 20 ms that stay before and after the active part
QUALITY = 0.6  # 0 best ... 1 smallest, of a variable bit rate: about 40 kbit/s of speech


def excerpt(waveform: Waveform, rate: int) -> Waveform:
    """Return the active part of a waveform (T,), at most 4 s at 16 kHz.

    Of a longer one, the 4 s with the most energy.
    """
    x = resample(waveform, rate, RATE)
    active = np.flatnonzero(is_active(x))
    start, end = max(0, active[0] - MARGIN) * FRAME, (active[-1] + 1 + MARGIN) * FRAME
    x = x[start:end]
    longest = int(SECONDS * RATE)
    if len(x) <= longest:
        return x
    energy = np.concatenate([[0.0], np.cumsum(np.square(x, dtype=np.float64))])
    places = np.arange(0, len(x) - longest + 1, FRAME)
    best = int(places[np.argmax(energy[places + longest] - energy[places])])
    return x[best : best + longest]


def as_data_uri(waveform: Waveform) -> str:
    """Encode a waveform (T,) at 16 kHz as a data URI.

    MP3, which every browser plays and which has the same bytes each time (streams of Ogg have random numbers); FLAC
    where libsndfile writes no MP3.
    """
    pcm = to_pcm(waveform)
    if "MP3" not in soundfile.available_formats():
        return f"data:audio/flac;base64,{base64.b64encode(encode_flac(pcm, RATE)).decode()}"
    file = io.BytesIO()
    soundfile.write(
        file, pcm, RATE, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=QUALITY
    )
    return f"data:audio/mpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
