"""eGeMAPS: 88 acoustic functionals, computed by openSMILE.

Eyben et al., IEEE TAC 2016. openSMILE is free for research and other non-commercial use only, so it is not a
dependency but the extra `egemaps`.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.io import Waveform
from clepdg.errors import ConfigError

FEATURES: Final = 88
SHORTEST: Final = 0.1  # s; openSMILE returns no values below about half of it


def require() -> None:
    """Check that openSMILE is installed.

    Raises:
        ConfigError: openSMILE is not installed; the message names the extra and the licence.
    """
    if find_spec("opensmile") is None:
        raise ConfigError(
            "Row egemaps needs openSMILE, which is not installed.",
            expected="research or other non-commercial use: openSMILE's licence allows no other without a contract",
            where="rows",
            do="pip install 'clep-dg[egemaps]' if the licence allows your use; or leave the row out",
        )


@cache
def _smile() -> Any:
    import opensmile

    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals
    )


def functionals(waveform: Waveform, rate: int) -> NDArray[np.float32]:
    """Return the eGeMAPSv02 functionals (88,) of a waveform (T,) at `rate` Hz.

    Waveforms shorter than 0.1 s are repeated.
    """
    require()
    if len(waveform) < SHORTEST * rate:
        waveform = np.resize(waveform, round(SHORTEST * rate))
    values: NDArray[np.float32] = _smile().process_signal(waveform, rate).to_numpy(np.float32)[0]
    return values
