"""Corruptions: what a microphone, a room or a line does to speech, for the evaluation and for training.

A condition is "clean" or parts joined by "+", applied in this order: a room ("room-short"), a noise at an SNR over
active speech ("babble-10dB"), a channel ("telephone" or "clipping"). It is applied at 16 kHz before windowing; length
and RMS are kept, and the direct sound stays where it was. What is drawn is a function of the condition (whatever its
SNR) and the utterance's id, so every row hears the same. Training hears other kinds of noise, and other rooms.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clepdg.audio import rooms
from clepdg.audio.io import Waveform, resample
from clepdg.audio.noise import COLOURS, GENERATED, NOISES, OWN, RATE, TRAINING_NOISES, active_power, float32, make_noise
from clepdg.errors import ConfigError
from clepdg.hashing import generator

CLEAN: Final = "clean"
SNRS: Final = (20, 15, 10, 5, 0)  # dB, over active speech
CLIPPED_SHARE: Final = 0.1  # of the samples
LINE_HZ: Final = (300.0, 3400.0)
CHANNELS: Final = ("telephone", "clipping")
LOUDEST: Final = 60  # dB, either way: beyond it 16 bits hold nothing of the weaker one
SWEEP_NAME: Final = "sweep"
SWEEP: Final = (
    *(f"{noise}-{snr}dB" for noise in (*GENERATED, "babble") for snr in SNRS),
    *(f"room-{band}" for band in rooms.BANDS),
    *CHANNELS,
)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is done to an utterance; snr is in dB."""

    name: str
    room: str | None = None
    noise: str | None = None
    snr: float = 0.0
    channel: str | None = None

    @property
    def uses_babble(self) -> bool:
        """Whether it is made of what speakers of the source corpora say."""
        return self.noise == "babble"

    @property
    def family(self) -> str:
        """The condition without its SNR: one curve of a picture."""
        return re.sub(r"--?\d+dB", "", self.name)


def parse(name: str) -> Condition:
    """Return the condition of a name, such as "pink-10dB", "room-long" or "room-short+babble-5dB+telephone".

    Raises:
        ConfigError: there is no such condition; the message lists what there is.
    """
    room = "|".join(rooms.BANDS)
    pattern = rf"(?:room-({room}))?\+?(?:({'|'.join(NOISES)})-(-?\d+)dB)?\+?({'|'.join(CHANNELS)})?"
    found = re.fullmatch(pattern, name)
    parts = [part for part in found.groups() if part] if found else []
    if name == CLEAN:
        return Condition(name=CLEAN)
    joined = name.split("+")
    if found is None or not parts or "" in joined or len(joined) != sum(map(bool, (found[1], found[2], found[4]))):
        raise ConfigError(
            "There is no such condition.",
            got=name,
            expected=(CLEAN, SWEEP_NAME, *SWEEP, f"{OWN}-10dB", "a room + a noise"),
        )
    if abs(snr := int(found[3] or 0)) > LOUDEST:
        raise ConfigError("No such SNR is heard.", got=name, expected=f"{-LOUDEST} to {LOUDEST} dB")
    return Condition(name=name, room=found[1], noise=found[2], snr=float(snr), channel=found[4])


def conditions(names: Sequence[str]) -> list[Condition]:
    """Return the conditions that a run hears beside clean, in their order; "sweep" stands for all of SWEEP.

    Raises:
        ConfigError: there is no such condition, or clean is named.
    """
    spelt = [each for name in names for each in (SWEEP if name == SWEEP_NAME else (name,))]
    found = [parse(name) for name in dict.fromkeys(spelt)]
    if CLEAN in spelt:
        raise ConfigError("clean is always heard: name the other conditions.", got=names, where="evaluate.conditions")
    return found


def corrupt(
    waveform: Waveform, rate: int, utterance_id: str, condition: Condition, recordings: Sequence[Waveform] = ()
) -> Waveform:
    """Return an utterance (T,), recorded at `rate` Hz, as it sounds at 16 kHz in a condition.

    Args:
        recordings: at 16 kHz: what a babble's talkers say, or the user's own noises.

    Raises:
        ConfigError: the noise is made of recordings, and there is none.
    """
    waveform = resample(waveform, rate, RATE)
    rng = generator("corruption", condition.family, utterance_id)
    heard = waveform
    if condition.room:
        heard = in_room(heard, "test", condition.room, int(rng.integers(rooms.IN_BANK)))
    if condition.noise:
        heard = add_noise(heard, make_noise(condition.noise, len(heard), recordings, rng), condition.snr)
    if condition.channel:
        heard = telephone(heard) if condition.channel == "telephone" else clip(heard)
    return match_rms(waveform, heard)


def augment(waveform: Waveform, rate: int, rng: np.random.Generator) -> Waveform:
    """Return an utterance (T,) as training hears it: at 16 kHz, in a room or not, in a noise or not, at 0 to 20 dB."""
    waveform = resample(waveform, rate, RATE)
    heard = waveform
    if rng.random() < 0.5:
        heard = in_room(heard, "training", str(rng.choice(list(rooms.BANDS))), int(rng.integers(rooms.IN_BANK)))
    if rng.random() < 0.75:
        noise = COLOURS[str(rng.choice(TRAINING_NOISES))](len(heard), rng)
        heard = add_noise(heard, noise, float(rng.uniform(0, 20)))
    return match_rms(waveform, heard)


def in_room(waveform: Waveform, bank: str, band: str, number: int) -> Waveform:
    """Return a waveform (T,) as it arrives in a room: its direct sound in place, its tail cut at T."""
    from scipy.signal import fftconvolve

    response = rooms.impulse_response(bank, band, number)
    return float32(fftconvolve(waveform, response)[: len(waveform)])


def add_noise(waveform: Waveform, noise: Waveform, snr: float) -> Waveform:
    """Add a noise (T,) so that active speech is `snr` dB above it."""
    speech, power = active_power(waveform), float(np.mean(np.square(noise, dtype=np.float64)))
    if speech <= 0 or power <= 0:
        return waveform
    gain = np.sqrt(speech / power / 10 ** (snr / 10))
    return float32(waveform + gain * noise)


def telephone(waveform: Waveform) -> Waveform:
    """Return a waveform (T,) at 16 kHz after a telephone line: 300 to 3,400 Hz, 8 kHz, G.711 mu-law."""
    import soundfile
    from scipy.signal import butter, sosfiltfilt

    band = butter(4, LINE_HZ, "bandpass", fs=RATE, output="sos")
    line = resample(sosfiltfilt(band, waveform).astype(np.float32), RATE, RATE // 2)
    peak = max(1.0, float(np.abs(line).max()))
    buffer = io.BytesIO()
    soundfile.write(buffer, line / peak, RATE // 2, format="WAV", subtype="ULAW")
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float32")
    return np.resize(resample(decoded * peak, RATE // 2, RATE), len(waveform))


def clip(waveform: Waveform) -> Waveform:
    """Return a waveform (T,) whose loudest tenth of samples is cut off."""
    limit = float(np.quantile(np.abs(waveform), 1 - CLIPPED_SHARE))
    return np.clip(waveform, -limit, limit)


def match_rms(waveform: Waveform, heard: Waveform) -> Waveform:
    """Return what is heard (T,) at the RMS of the waveform (T,)."""
    before, after = (float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) for x in (waveform, heard))
    return float32(heard * (before / after)) if after > 0 else heard
