"""Random generators that are a pure function of what they are for."""

from typing import Any

import numpy as np

from clepdg.store import digest


def generator(*purpose: Any) -> np.random.Generator:
    """Seed a generator by plain values, for example ("room", "test", 3)."""
    return np.random.default_rng(int(digest(purpose)[:16], 16))
