"""Protects eGeMAPS: openSMILE's own functionals, and a clear word, with the licence, where it is not installed."""

import importlib.util

import numpy as np
import pytest

from clepdg.errors import ConfigError
from clepdg.models import egemaps

NEEDS = pytest.mark.skipif(
    importlib.util.find_spec("opensmile") is None,
    reason="openSMILE is not installed (extra egemaps, non-commercial use)",
)


@NEEDS
@pytest.mark.parametrize("seconds", [0.25, 1.0, 4.0])
def test_functionals_are_opensmiles_own(tone, seconds):
    import opensmile

    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    waveform = tone(seconds, 16000)
    expected = smile.process_signal(waveform, 16000)
    assert list(expected.columns[:1]) == ["F0semitoneFrom27.5Hz_sma3nz_amean"]
    np.testing.assert_array_equal(egemaps.functionals(waveform, 16000), expected.to_numpy(np.float32)[0])


@NEEDS
def test_pitch_is_heard(tone):
    low, high = (egemaps.functionals(tone(1.0, 16000, pitch=p), 16000) for p in (110, 220))
    assert low.shape == (egemaps.FEATURES,)
    assert high[0] - low[0] == pytest.approx(12, abs=0.5)  # an octave in semitones


@NEEDS
@pytest.mark.parametrize("samples", [20, 400, 1600])
def test_functionals_of_very_short_audio_are_finite(tone, samples):
    assert np.isfinite(egemaps.functionals(tone(1.0, 16000)[:samples], 16000)).all()


def test_without_opensmile_the_extra_and_its_licence_are_named(monkeypatch):
    monkeypatch.setattr(egemaps, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"non-commercial[\s\S]*clep-dg\[egemaps\]"):
        egemaps.require()
