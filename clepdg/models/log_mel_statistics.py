"""Statistics of the log-mel over time: the embedding of row `log-mel`, the floor of the table."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.frontend import MICRO_FRONT_END, FrontEnd, log_mel
from clepdg.audio.io import Waveform, resample


def log_mel_statistics(waveform: Waveform, rate: int, front_end: FrontEnd = MICRO_FRONT_END) -> NDArray[np.float32]:
    """Return log-mel statistics (4 * mels,) of a waveform (T,).

    Mean, standard deviation, standard deviation of differences, and 90th percentile, over time.
    """
    import torch

    waveform = resample(waveform, rate, front_end.sample_rate)
    if len(waveform) < front_end.n_fft:  # the reflected edges need half a frame of audio
        waveform = np.resize(waveform, front_end.n_fft)
    frames = 1 + len(waveform) // front_end.hop
    whole = replace(front_end, frames=frames, normalise=False)
    spectrogram = log_mel(torch.from_numpy(waveform)[None], whole)[0, 0].numpy()  # (frames, mels)
    parts = [
        spectrogram.mean(axis=0),
        spectrogram.std(axis=0),
        np.diff(spectrogram, axis=0).std(axis=0),
        np.percentile(spectrogram, 90, axis=0),
    ]
    return np.concatenate(parts).astype(np.float32)
