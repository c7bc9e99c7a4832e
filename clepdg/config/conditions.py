"""Names of the conditions of an evaluation: clean speech, and corruptions.

A condition is "clean" or parts joined by "+": a room ("room-short"), a noise at an SNR ("babble-10dB"), a channel
("telephone" or "clipping"). clepdg.audio.corruptions makes them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from clepdg.errors import ConfigError, unknown_name

CLEAN: Final = "clean"
SNRS: Final = (20, 15, 10, 5, 0)  # dB, over active speech
GENERATED: Final = ("white", "pink", "hum")
OWN: Final = "own"  # recordings of the user
NOISES: Final = (*GENERATED, "babble", OWN)
ROOMS: Final = ("short", "medium", "long")  # by reverberation time
CHANNELS: Final = ("telephone", "clipping")
MAX_SNR: Final = 60  # dB; beyond +-60 dB, 16 bits hold nothing of the weaker signal
SWEEP_NAME: Final = "sweep"
SWEEP: Final = (
    *(f"{noise}-{snr}dB" for noise in (*GENERATED, "babble") for snr in SNRS),
    *(f"room-{band}" for band in ROOMS),
    *CHANNELS,
)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A corruption of an utterance; snr is in dB."""

    name: str
    room: str | None = None
    noise: str | None = None
    snr: float = 0.0
    channel: str | None = None

    @property
    def uses_babble(self) -> bool:
        """True if the noise is babble, which needs recordings of speech."""
        return self.noise == "babble"

    @property
    def curve(self) -> str:
        """The condition's name without its SNR, shared by one curve."""
        return re.sub(r"--?\d+dB", "", self.name)

    @property
    def family(self) -> str:
        """Noise, rooms, lines or clipping; " + " joins them, "" is clean."""
        channel = {"telephone": "lines", "clipping": "clipping"}.get(self.channel or "", "")
        return " + ".join(filter(None, ("rooms" if self.room else "", "noise" if self.noise else "", channel)))


def parse(name: str) -> Condition:
    """Parse a condition, such as "room-short+babble-5dB+telephone".

    Raises:
        ConfigError: there is no such condition; the message lists the known ones.
    """
    pattern = rf"(?:room-({'|'.join(ROOMS)}))?\+?(?:({'|'.join(NOISES)})-(-?\d+)dB)?\+?({'|'.join(CHANNELS)})?"
    found = re.fullmatch(pattern, name)
    parts = [part for part in found.groups() if part] if found else []
    if name == CLEAN:
        return Condition(name=CLEAN)
    joined = name.split("+")
    if found is None or not parts or "" in joined or len(joined) != sum(map(bool, (found[1], found[2], found[4]))):
        known = (CLEAN, SWEEP_NAME, *SWEEP, f"{OWN}-10dB", "a room + a noise")
        raise unknown_name("condition", name, known, "docs/method.md#conditions")
    if abs(snr := int(found[3] or 0)) > MAX_SNR:
        raise ConfigError("The SNR is out of range.", got=name, expected=f"{-MAX_SNR} to {MAX_SNR} dB")
    return Condition(name=name, room=found[1], noise=found[2], snr=float(snr), channel=found[4])


def family_weights(names: Sequence[str]) -> dict[str, float]:
    """Return condition -> its weight in the mean over families.

    Conditions of a family weigh the same, and so do families. Clean is a family of its own.
    """
    families = [parse(name).family for name in names]
    return {name: 1 / len(set(families)) / families.count(family) for name, family in zip(names, families, strict=True)}


def conditions(names: Sequence[str]) -> list[Condition]:
    """Parse a run's conditions besides clean.

    "sweep" stands for all of SWEEP.

    Raises:
        ConfigError: there is no such condition, or one is clean.
    """
    spelt = [each for name in names for each in (SWEEP if name == SWEEP_NAME else (name,))]
    found = [parse(name) for name in dict.fromkeys(spelt)]
    if CLEAN in spelt:
        raise ConfigError(
            "clean is always evaluated: name only other conditions.", got=names, where="evaluate.conditions"
        )
    return found
