"""eGeMAPS: 88 functionals of acoustic features made for voice research (Eyben et al., IEEE TAC 2016), by openSMILE.

openSMILE is free for research and other non-commercial purposes only, so it is no dependency: whoever may use it
installs the extra `egemaps`.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.io import Waveform
from clepdg.errors import ConfigError

FEATURES: Final = 88
SHORTEST: Final = 0.1  # s; openSMILE gives no numbers for less than about half of it


def require() -> None:
    """Raise where openSMILE is not installed.

    Raises:
        ConfigError: it is not; the message names the extra and the licence.
    """
    if find_spec("opensmile") is None:
        raise ConfigError(
            "Row egemaps needs openSMILE, which is not installed.",
            expected="research or other non-commercial use: openSMILE's licence allows no other without a contract",
            where="rows",
            do="pip install 'clep-dg[egemaps]' if your use is such; or leave the row out",
        )


@cache
def _smile() -> Any:
    import opensmile

    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals
    )


def functionals(waveform: Waveform, rate: int) -> NDArray[np.float32]:
    """Return eGeMAPSv02's functionals (88,) of a waveform (T,); one of less than 0.1 s is repeated."""
    require()
    if len(waveform) < SHORTEST * rate:
        waveform = np.resize(waveform, round(SHORTEST * rate))
    values: NDArray[np.float32] = _smile().process_signal(waveform, rate).to_numpy(np.float32)[0]
    return values
