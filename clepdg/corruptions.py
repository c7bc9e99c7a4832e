"""Corruptions: what a microphone, a room or a line does to speech, for the evaluation and for training.

A condition is "clean" or parts joined by "+", applied in this order: a room ("room-short"), a noise at an SNR over
active speech ("babble-10dB"), a channel ("telephone" or "clipping"). It is applied at 16 kHz before windowing; length
and RMS are kept, and the direct sound stays where it was. What is drawn is a function of the condition (whatever its
SNR) and the utterance's id, so every row hears the same. Training hears other kinds of noise, and other rooms.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from clepdg import rooms
from clepdg.audio import Waveform, decode, resample, to_mono
from clepdg.corpora.grammar import AUDIO_SUFFIXES
from clepdg.errors import ConfigError
from clepdg.seeds import generator

RATE: Final = 16000  # Hz
CLEAN: Final = "clean"
SNRS: Final = (20, 15, 10, 5, 0)  # dB, over active speech
TALKERS: Final = 6  # voices of a babble
MOST_TALK: Final = 240  # utterances that they say
FRAME: Final = 320  # samples: 20 ms
ACTIVE_DB: Final = 30.0  # frames that are not weaker than the loud ones by more are speech
CLIPPED_SHARE: Final = 0.1  # of the samples
LINE_HZ: Final = (300.0, 3400.0)
CHANNELS: Final = ("telephone", "clipping")
GENERATED: Final = ("white", "pink", "hum")
OWN: Final = "own"  # from files that the user names
NOISES: Final = (*GENERATED, "babble", OWN)
TRAINING_NOISES: Final = ("brown", "blue", "rumble")  # none of the evaluation's

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
    def of_babble(self) -> bool:
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
    return as_loud_as(waveform, heard)


def augment(waveform: Waveform, rate: int, rng: np.random.Generator) -> Waveform:
    """Return an utterance (T,) as training hears it: at 16 kHz, in a room or not, in a noise or not, at 0 to 20 dB."""
    waveform = resample(waveform, rate, RATE)
    heard = waveform
    if rng.random() < 0.5:
        heard = in_room(heard, "training", str(rng.choice(list(rooms.BANDS))), int(rng.integers(rooms.IN_BANK)))
    if rng.random() < 0.75:
        noise = COLOURS[str(rng.choice(TRAINING_NOISES))](len(heard), rng)
        heard = add_noise(heard, noise, float(rng.uniform(0, 20)))
    return as_loud_as(waveform, heard)


def in_room(waveform: Waveform, bank: str, band: str, number: int) -> Waveform:
    """Return a waveform (T,) as it arrives in a room: its direct sound in place, its tail cut at T."""
    from scipy.signal import fftconvolve

    response = rooms.impulse_response(bank, band, number)
    return _float(fftconvolve(waveform, response)[: len(waveform)])


def add_noise(waveform: Waveform, noise: Waveform, snr: float) -> Waveform:
    """Add a noise (T,) so that active speech is `snr` dB above it."""
    speech, power = active_power(waveform), float(np.mean(np.square(noise, dtype=np.float64)))
    if speech <= 0 or power <= 0:
        return waveform
    gain = np.sqrt(speech / power / 10 ** (snr / 10))
    return _float(waveform + gain * noise)


def active_power(waveform: Waveform) -> float:
    """Return the mean power of the 20-ms frames that are speech: within 30 dB of the 95th percentile of their power."""
    whole = len(waveform) // FRAME * FRAME
    if whole == 0:
        return float(np.mean(np.square(waveform, dtype=np.float64)))
    power = np.square(waveform[:whole], dtype=np.float64).reshape(-1, FRAME).mean(axis=1)
    return float(power[power >= np.quantile(power, 0.95) / 10 ** (ACTIVE_DB / 10)].mean())


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


def as_loud_as(waveform: Waveform, heard: Waveform) -> Waveform:
    """Return what is heard (T,) at the RMS of the waveform (T,)."""
    before, after = (float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) for x in (waveform, heard))
    return _float(heard * (before / after)) if after > 0 else heard


def talkers(shard_folders: Sequence[Path], most: int = MOST_TALK) -> list[Waveform]:
    """Return training utterances of the source corpora at 16 kHz, as many of each, spread over its speakers.

    Args:
        shard_folders: the sources' shards; nothing but their training part is read.
        most: utterances in all.
    """
    from clepdg.shards import read_offsets, read_some

    voices: list[Waveform] = []
    for folder in shard_folders:
        offsets = read_offsets(folder)
        training = offsets[offsets.split == "train"].sort_values("utterance_id")  # so, speaker by speaker
        places = np.linspace(0, len(training) - 1, min(len(training), -(-most // len(shard_folders)))).astype(int)
        voices += [resample(waveform, rate, RATE) for _, waveform, rate in read_some(folder, training.iloc[places])]
    return voices


def find_noises(folder: str | None) -> list[Path]:
    """Return the recordings below the folder of noise "own", by name.

    Raises:
        ConfigError: there are none.
    """
    below = Path(folder).expanduser().rglob("*") if folder else []
    paths = sorted(path for path in below if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    if not paths:
        raise ConfigError(
            f"The noise {OWN!r} needs a folder of recordings.",
            got=f"none in {folder}" if folder else "no folder",
            expected=AUDIO_SUFFIXES,
            where="evaluate.noise_folder",
        )
    return paths


def read_noises(folder: str) -> list[Waveform]:
    """Return the recordings (T,) at 16 kHz of noise "own".

    Raises:
        ConfigError: there are none.
        IndexingError: one can't be read.
    """
    heard = []
    for path in find_noises(folder):
        samples, rate = decode(path)
        heard.append(resample(to_mono(samples), rate, RATE))
    return heard


def make_noise(kind: str, length: int, recordings: Sequence[Waveform], rng: np.random.Generator) -> Waveform:
    """Return a noise (T,) at 16 kHz of a kind of NOISES.

    Raises:
        ConfigError: it is made of recordings, and there is none.
    """
    if kind in COLOURS:
        return COLOURS[kind](length, rng)
    if not recordings:
        raise ConfigError("This noise is made of recordings, and there is none.", got=kind)
    if kind == OWN:
        return _excerpt(recordings[int(rng.integers(len(recordings)))], length, rng)
    voices = rng.choice(len(recordings), size=TALKERS, replace=len(recordings) < TALKERS)
    talk = [_excerpt(recordings[int(voice)], length, rng) for voice in voices]
    return _float(np.sum([voice / np.sqrt(active_power(voice) + 1e-12) for voice in talk], axis=0))


def _excerpt(recording: Waveform, length: int, rng: np.random.Generator) -> Waveform:
    """Return `length` samples of a recording from a random place on, going round at its end."""
    start = int(rng.integers(len(recording)))
    return np.resize(np.roll(recording, -start), length)


def _coloured(length: int, rng: np.random.Generator, slope: float) -> Waveform:
    """Return a noise (T,) whose power falls by f^-slope above 20 Hz: 1 is pink, 2 brown, -1 blue."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 20.0)
    return _float(np.fft.irfft(spectrum * frequency ** (-slope / 2), length))


def _hum(length: int, rng: np.random.Generator) -> Waveform:
    """Return a mains hum (T,): 50 or 60 Hz and its harmonics up to 1 kHz, falling by 1/k, in random phases."""
    mains = float(rng.choice([50.0, 60.0]))
    k = np.arange(1, int(1000 / mains) + 1)[:, None]
    phases = rng.uniform(0, 2 * np.pi, k.shape)
    waves = np.sin(2 * np.pi * mains * k * np.arange(length) / RATE + phases) / k
    return _float(waves.sum(axis=0))


def _rumble(length: int, rng: np.random.Generator) -> Waveform:
    """Return the noise of an engine (T,): brown, swelling and fading a few times a second."""
    time, speed, phase = np.arange(length) / RATE, rng.uniform(2, 8), rng.uniform(0, 2 * np.pi)
    swell = 1 + 0.8 * np.sin(2 * np.pi * speed * time + phase)
    return _float(_coloured(length, rng, 2.0) * swell)


def _float(values: Any) -> Waveform:
    narrowed: Waveform = np.asarray(values, np.float32)
    return narrowed


COLOURS: Final[dict[str, Callable[[int, np.random.Generator], Waveform]]] = {
    "white": lambda length, rng: _float(rng.standard_normal(length)),
    "pink": lambda length, rng: _coloured(length, rng, 1.0),
    "hum": _hum,
    "brown": lambda length, rng: _coloured(length, rng, 2.0),
    "blue": lambda length, rng: _coloured(length, rng, -1.0),
    "rumble": _rumble,
}
