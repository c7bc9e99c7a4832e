"""Front ends: turn waveforms into windows and log-mel spectrograms.

Shapes: T samples, B batch, W windows of one utterance. Only `log_mel` and its kin need torch.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.io import Waveform, resample

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """Settings of the log-mel spectrogram, saved with the model trained on it.

    Attributes:
        fill: how a short waveform is padded: "repeatpad" (whole repeats, then zeros; LAION) or "repeat" (repeats, then
            cut).
        normalise: standardise each spectrogram by its mean and standard deviation.
    """

    sample_rate: int  # Hz
    hop: int  # samples
    frames: int
    high_hz: float
    seconds: float  # of one window
    fill: Literal["repeatpad", "repeat"]
    normalise: bool
    n_fft: int = 1024
    mels: int = 64
    low_hz: float = 50.0

    @property
    def samples(self) -> int:
        """Number of samples in a window."""
        return round(self.seconds * self.sample_rate)


LAION_FRONT_END = FrontEnd(
    sample_rate=48000, hop=480, frames=1001, high_hz=14000.0, seconds=10.0, fill="repeatpad", normalise=False
)
MICRO_FRONT_END = FrontEnd(
    sample_rate=16000, hop=250, frames=256, high_hz=8000.0, seconds=4.0, fill="repeat", normalise=True
)


def pad(waveform: Waveform, front_end: FrontEnd) -> Waveform:
    """Pad a waveform (T,) of at most one window to one window (samples,)."""
    size = front_end.samples
    if front_end.fill == "repeat":
        return np.resize(waveform, size)
    repeated = np.tile(waveform, max(1, size // len(waveform)))[:size]
    return np.pad(repeated, (0, size - len(repeated)))


def windows(waveform: Waveform, rate: int, front_end: FrontEnd) -> Waveform:
    """Split a waveform (T,) into half-overlapping windows (W, samples).

    The last window ends where the waveform ends.
    """
    waveform = resample(waveform, rate, front_end.sample_rate)
    size = front_end.samples
    if len(waveform) <= size:
        return pad(waveform, front_end)[None]
    starts = [*range(0, len(waveform) - size, size // 2), len(waveform) - size]
    return np.stack([waveform[start : start + size] for start in starts])


def crop(waveform: Waveform, rate: int, front_end: FrontEnd, draw: float) -> Waveform:
    """Crop or pad a waveform (T,) to one window (samples,).

    Args:
        draw: in [0, 1): the position of the crop in a long waveform.
    """
    size = front_end.samples
    needed = math.ceil(size * rate / front_end.sample_rate) + 1
    if len(waveform) > needed:  # cut before resampling, which is slow for long waveforms
        start = int(draw * (len(waveform) - needed))
        waveform = waveform[start : start + needed]
    waveform = resample(waveform, rate, front_end.sample_rate)[:size]
    return pad(waveform, front_end)


@cache
def mel_filters(n_fft: int, low_hz: float, high_hz: float, mels: int, sample_rate: int) -> "torch.Tensor":
    """Return mel filters (n_fft // 2 + 1, mels) with Slaney's scale and norm."""
    import torchaudio

    filters: torch.Tensor = torchaudio.functional.melscale_fbanks(
        n_freqs=n_fft // 2 + 1,
        f_min=low_hz,
        f_max=high_hz,
        n_mels=mels,
        sample_rate=sample_rate,
        norm="slaney",
        mel_scale="slaney",
    )
    return filters


def log_mel(waveforms: "torch.Tensor", front_end: FrontEnd) -> "torch.Tensor":
    """Return log-mels (B, 1, frames, mels) in dB of waveforms.

    Waveforms are (B, samples); the result is on their device, in float32 whatever the caller's autocast. As in LAION
    CLAP's training: periodic Hann window, centred frames, reflected edges, power 2, Slaney scale and norm,
    10 log10(max(x, 1e-10)). Tests compare it with transformers' ClapFeatureExtractor.
    """
    import torch

    with torch.autocast(waveforms.device.type, enabled=False):
        return _log_mel(waveforms.float(), front_end)


def _log_mel(waveforms: "torch.Tensor", front_end: FrontEnd) -> "torch.Tensor":
    import torch

    spectrum = torch.stft(
        waveforms,
        front_end.n_fft,
        hop_length=front_end.hop,
        window=torch.hann_window(front_end.n_fft, device=waveforms.device),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    power = spectrum.abs().square().transpose(1, 2)[:, : front_end.frames]  # (B, frames, n_fft // 2 + 1)
    filters = mel_filters(front_end.n_fft, front_end.low_hz, front_end.high_hz, front_end.mels, front_end.sample_rate)
    decibels = 10.0 * torch.log10((power @ filters.to(power.device)).clamp_min(1e-10))
    return (standardise(decibels) if front_end.normalise else decibels)[:, None]


def standardise(log_mels: "torch.Tensor") -> "torch.Tensor":
    """Standardise every log-mel (..., frames, mels)."""
    mean, std = log_mels.mean(dim=(-2, -1), keepdim=True), log_mels.std(dim=(-2, -1), keepdim=True)
    return (log_mels - mean) / (std + 1e-5)


def whole_log_mel(waveform: Waveform, rate: int, front_end: FrontEnd) -> "torch.Tensor":
    """Return the log-mel (F, mels) in dB of a whole waveform (T,).

    F is at least front_end.frames: a waveform shorter than a window is padded to one.
    """
    import torch

    waveform = resample(waveform, rate, front_end.sample_rate)
    if len(waveform) < front_end.samples:
        waveform = pad(waveform, front_end)
    whole = replace(front_end, frames=max(front_end.frames, len(waveform) // front_end.hop), normalise=False)
    return log_mel(torch.from_numpy(waveform)[None], whole)[0, 0]


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
