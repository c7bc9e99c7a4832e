"""Stand in for soundfile where it is not installed: reads 16-bit mono WAV files by the standard library."""

import os
import wave
from typing import IO, Any

import numpy as np


class LibsndfileError(RuntimeError):
    """Never raised."""


class SoundFile:
    """An open WAV file."""

    format = "WAV"

    def __init__(self, file: IO[bytes] | int, closefd: bool = True) -> None:
        self._wave = wave.open(os.fdopen(file, "rb", closefd=closefd) if isinstance(file, int) else file)
        self.frames, self.samplerate = self._wave.getnframes(), self._wave.getframerate()
        self.channels = self._wave.getnchannels()

    def __enter__(self) -> "SoundFile":
        return self

    def __exit__(self, *exception: Any) -> None:
        self._wave.close()

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, frame: int) -> None:
        """Move to a frame."""
        self._wave.setpos(frame)

    def read(self, frames: int = -1, dtype: str = "float64", always_2d: bool = False) -> np.ndarray:
        """Return samples, as soundfile does."""
        count = self.frames if frames < 0 else frames
        pcm = np.frombuffer(self._wave.readframes(count), np.int16)
        samples = pcm if dtype == "int16" else (pcm / np.float32(32768)).astype(dtype)
        return samples[:, None] if always_2d else samples
