"""Find faults of decoded audio: its size, its level."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from clepdg.config.schema import IndexConfig

LOWEST_RATE: Final = 8_000  # Hz
HIGHEST_RATE: Final = 192_000
MOST_BYTES: Final = 1 << 29  # of decoded samples
# Lossy codecs decode speech at full scale to peaks of up to 1.4. Samples at the scale of 16-bit integers exceed 2 even
# where they are nearly silent: at the lowest rms that is no silence (1e-4) theirs is 3.3.
MOST_PEAK: Final = 2.0


def find_size_fault(frames: int, channels: int, rate: float, max_seconds: float) -> str | None:
    """Return why audio of this size can't be used, or None.

    Args:
        frames: samples of one channel.
        rate: in Hz.
    """
    if not rate >= LOWEST_RATE:
        return f"rate too low: {rate} Hz, at least {LOWEST_RATE} Hz"
    if not rate <= HIGHEST_RATE:
        return f"rate too high: {rate} Hz, at most {HIGHEST_RATE} Hz"
    if frames > max_seconds * rate:
        return f"too long: {frames / rate:.1f} s, at most {max_seconds} s"
    size = 4 * frames * channels
    return f"too large: {size} bytes once decoded, at most {MOST_BYTES}" if size > MOST_BYTES else None


def find_fault(
    samples: NDArray[np.float32], rate: float, config: IndexConfig, max_peak: float = MOST_PEAK
) -> str | None:
    """Return why decoded samples (T, C) can't be used, or None."""
    if not samples.size:
        return "holds no samples"
    if fault := find_size_fault(len(samples), samples.shape[1], rate, config.max_seconds):
        return fault
    peak = float(max(samples.max(), -samples.min()))  # NaN where a sample is
    if not np.isfinite(peak):
        return "holds samples that are not finite (NaN or infinity)"
    if (seconds := len(samples) / rate) < config.min_seconds:
        return f"too short: {seconds:.3f} s, at least {config.min_seconds} s"
    if peak > max_peak:
        return f"beyond full scale: its peak is {peak:.5g}, at most {max_peak} (full scale is 1)"
    return f"silent: rms below {config.silence_rms}" if rms(samples) < config.silence_rms else None


def rms(samples: NDArray[np.float32]) -> float:
    """Return the rms of the mono mix of samples (T, C) about its mean.

    Opposite channels cancel in the mix, as in shards; a constant offset is silent.
    """
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)
    return float(np.std(mono, dtype=np.float64))
