"""Simulated room impulse responses, by reverberation time.

They are computed by pyroomacoustics. A room is a pure function of its bank, band and number. Sabine's and Eyring's
formulas do not predict the decay of a shoebox, so the reverberation time is measured, and rooms are drawn until one
lies in its band.
"""

import math
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from clepdg.hashing import generator

if TYPE_CHECKING:
    from clepdg.audio.io import Waveform

RATE: Final = 16000  # Hz
BANDS: Final[dict[str, tuple[float, float]]] = {
    "short": (0.1, 0.5),
    "medium": (0.5, 1.0),
    "long": (1.0, 1.5),
}  # RT60, s
ROOMS_PER_BAND: Final = 30
SIZES: Final = {  # smallest and largest (length, width, height) in m
    "short": ((2.5, 2.5, 2.3), (6.0, 5.0, 3.0)),
    "medium": ((5.0, 4.0, 2.6), (10.0, 8.0, 4.0)),
    "long": ((8.0, 7.0, 4.0), (16.0, 14.0, 8.0)),
}
MAX_REFLECTIONS: Final = 60  # of one image source
WALL: Final = 0.5  # least distance in m of source and microphone from the walls


@cache
def impulse_response(bank: str, band: str, number: int) -> "Waveform":
    """Return a room's impulse response (T,) at 16 kHz.

    It starts with the direct sound.

    Args:
        bank: "test" or "training", which share no room.
        band: a key of BANDS.
        number: 0 ... ROOMS_PER_BAND - 1.
    """
    from pyroomacoustics.experimental import measure_rt60

    rng = generator("room", bank, band, number)
    low, high = BANDS[band]
    while True:
        response = _draw(rng, band)
        if low <= measure_rt60(response, fs=RATE, decay_db=30) <= high:
            return response


def _draw(rng: np.random.Generator, band: str) -> "Waveform":
    import pyroomacoustics as pra

    low, high = BANDS[band]
    size = rng.uniform(*SIZES[band])
    surface = 2 * (size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    wanted = rng.uniform(0.6 * low, 0.9 * high)  # most rooms have a longer RT60 than Eyring's formula predicts
    absorption = float(np.clip(1 - math.exp(-0.161 * size.prod() / (surface * wanted)), 0.05, 0.95))
    reflections = min(MAX_REFLECTIONS, math.ceil(pra.constants.get("c") * high / size.min() / 2))
    room = pra.ShoeBox(size, fs=RATE, materials=pra.Material(absorption), max_order=reflections)
    speaker, listener = rng.uniform(WALL, size - WALL), rng.uniform(WALL, size - WALL)
    room.add_source(speaker)
    room.add_microphone(listener)
    room.compute_rir()
    way = float(np.linalg.norm(speaker - listener)) / pra.constants.get("c") * RATE
    start = int(way) + pra.constants.get("frac_delay_length") // 2
    return np.asarray(room.rir[0][0][start:], np.float32)
