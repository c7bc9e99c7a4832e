"""Front ends: turn waveforms into windows and log-mel spectrograms.

Shapes: T samples, B batch, W windows of one utterance. Only `log_mel` and its kin need torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.io import Waveform, resample

if TYPE_CHECKING:
    import torch

CHUNK: Final = 128  # frames that a CPU transforms at once: they stay in its cache


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


def split(waveform: Any, front_end: FrontEnd) -> list[Any]:
    """Split a waveform (T,) into half-overlapping pieces of at most a window.

    The last piece ends where the waveform ends; a shorter waveform is one piece.

    Args:
        waveform: array or tensor at front_end.sample_rate.
    """
    size, length = front_end.samples, len(waveform)
    starts = [*range(0, length - size, size // 2), length - size] if length > size else [0]
    return [waveform[start : start + size] for start in starts]


def windows(waveform: Waveform, rate: int, front_end: FrontEnd) -> Waveform:
    """Split a waveform (T,) into half-overlapping windows (W, samples)."""
    pieces = split(resample(waveform, rate, front_end.sample_rate), front_end)
    return np.stack([pad(piece, front_end) for piece in pieces])


def cut(waveform: Any, rate: int, front_end: FrontEnd, draw: float) -> Any:
    """Cut at most a window and two samples from a waveform (T,) at `rate` Hz.

    It comes before resampling, which is slow for long waveforms.

    Args:
        draw: in [0, 1): the position in a long waveform.
    """
    needed = math.ceil(front_end.samples * rate / front_end.sample_rate) + 1
    start = int(draw * (len(waveform) - needed)) if len(waveform) > needed else 0
    return waveform[start : start + needed]


def crop(waveform: Waveform, rate: int, front_end: FrontEnd, draw: float) -> Waveform:
    """Crop or pad a waveform (T,) to one window (samples,); `draw` as in cut."""
    part = resample(cut(waveform, rate, front_end, draw), rate, front_end.sample_rate)
    return pad(part[: front_end.samples], front_end)


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


def log_mel(waveforms: "torch.Tensor", front_end: FrontEnd, lengths: Sequence[int] | None = None) -> "torch.Tensor":
    """Return log-mels (B, 1, frames, mels) in dB of waveforms.

    Waveforms are (B, samples); the result is on their device, in float32 whatever the caller's autocast. As in LAION
    CLAP's training: periodic Hann window, centred frames, reflected edges, power 2, Slaney scale and norm,
    10 log10(max(x, 1e-10)). Tests compare it with transformers' ClapFeatureExtractor.

    Args:
        lengths: of the pieces that `pad` or `fill_windows` made the waveforms of. Frames with equal samples are then
            transformed once, and silent ones not at all; a GPU, where that is no gain, transforms all.
    """
    from clepdg.audio.precision import float32_only

    with float32_only(waveforms.device.type):
        decibels = _decibels(waveforms.float(), front_end, lengths)
        return (standardise(decibels) if front_end.normalise else decibels)[:, None]


def _decibels(waveforms: "torch.Tensor", front_end: FrontEnd, lengths: Sequence[int] | None) -> "torch.Tensor":
    """Return log-mels (B, frames, mels) in dB; `lengths` as in log_mel."""
    import torch

    size, half = waveforms.shape[1], front_end.n_fft // 2
    count = min(front_end.frames, 1 + size // front_end.hop)

    def frames(part: torch.Tensor) -> torch.Tensor:  # (b, frames, n_fft), a view
        padded = torch.nn.functional.pad(part[:, None], (half, half), mode="reflect").flatten(1)
        return padded.unfold(1, front_end.n_fft, front_end.hop)[:, :count]

    if waveforms.device.type != "cpu":
        return _transform(frames(waveforms), front_end)
    silence = _transform(torch.zeros(1, front_end.n_fft), front_end)
    found = torch.empty(len(waveforms), count, front_end.mels)
    for place, own, length in zip(found, waveforms, lengths or [size] * len(waveforms), strict=True):
        distinct, row = distinct_frames(length, size, count, front_end)
        every, chunks = frames(own[None])[0], torch.split(torch.from_numpy(distinct), CHUNK)
        parts = [_transform(every.index_select(0, chosen), front_end) for chosen in chunks]
        torch.index_select(torch.cat([*parts, silence]), 0, torch.from_numpy(row), out=place)
    return found


def _transform(frames: "torch.Tensor", front_end: FrontEnd) -> "torch.Tensor":
    """Return the log-mels (..., mels) in dB of frames (..., n_fft)."""
    import torch

    window, bins, filters = _bank(front_end, frames.device)
    squares = torch.view_as_real(torch.fft.rfft(frames * window)[..., bins]).square_()
    decibels: torch.Tensor = ((squares[..., 0] + squares[..., 1]) @ filters).clamp_min_(1e-10).log10_().mul_(10.0)
    return decibels


@cache
def _bank(front_end: FrontEnd, device: "torch.device") -> "tuple[torch.Tensor, slice, torch.Tensor]":
    """Return the window, the bins that a filter takes, and the filters."""
    import torch

    filters = mel_filters(front_end.n_fft, front_end.low_hz, front_end.high_hz, front_end.mels, front_end.sample_rate)
    taken = filters.any(dim=1).nonzero()
    bins = slice(int(taken[0]), int(taken[-1]) + 1)
    return torch.hann_window(front_end.n_fft).to(device), bins, filters[bins].contiguous().to(device)


@lru_cache(maxsize=1024)
def distinct_frames(
    length: int, size: int, count: int, front_end: FrontEnd
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the frames of a padded waveform that differ from one another.

    A frame within the repeats depends on its place in the waveform alone: frames i and j are equal if their distance in
    samples is a multiple of `length`. Frames that reach over an edge of the window, or into the zeros behind the last
    repeat, count as different.

    Args:
        length: of the waveform, in samples.
        size: of the window, in samples.
        count: number of frames.

    Returns:
        The frames to transform, and for each frame its row among these; the row behind the last is silence.
    """
    filled = size if front_end.fill == "repeat" else max(1, size // length) * length
    centre = np.arange(count) * front_end.hop
    first, end = centre - front_end.n_fft // 2, centre + front_end.n_fft // 2
    lowest = np.minimum(first, np.where(end > size, 2 * size - 1 - end, size))  # the right edge is reflected
    kind = np.where((first >= 0) & (end <= filled), centre % length, length + centre)
    kind[lowest >= filled] = -1
    kinds, distinct, row = np.unique(kind, return_index=True, return_inverse=True)
    if kinds[0] == -1:
        distinct, row = distinct[1:], (row - 1) % len(kinds)
    return distinct, row


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
    length = len(waveform)
    if length < front_end.samples:
        waveform = pad(waveform, front_end)
    whole = replace(front_end, frames=max(front_end.frames, length // front_end.hop), normalise=False)
    return log_mel(torch.from_numpy(waveform)[None], whole, [length])[0, 0]
