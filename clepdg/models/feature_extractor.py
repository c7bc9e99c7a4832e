"""Write a front end as transformers' ClapFeatureExtractor, so that its pipelines load a model's folder."""

from pathlib import Path
from typing import Any

from clepdg.audio.frontend import FrontEnd


def extractor_settings(front_end: FrontEnd) -> dict[str, Any] | None:
    """Return the settings of ClapFeatureExtractor; None where it has none.

    It neither standardises log-mels nor repeats a part of a waveform. Audio that is longer than a window it crops at
    random, where this library takes the mean over windows.
    """
    whole = front_end.seconds == int(front_end.seconds) and front_end.frames == 1 + front_end.samples // front_end.hop
    if front_end.normalise or front_end.fill != "repeatpad" or not whole:
        return None
    return {
        "feature_size": front_end.mels,
        "sampling_rate": front_end.sample_rate,
        "hop_length": front_end.hop,
        "max_length_s": int(front_end.seconds),
        "fft_window_size": front_end.n_fft,
        "frequency_min": front_end.low_hz,
        "frequency_max": front_end.high_hz,
        "padding": front_end.fill,
        "truncation": "rand_trunc",
    }


def save_feature_extractor(front_end: FrontEnd, folder: Path) -> None:
    """Write preprocessor_config.json, if ClapFeatureExtractor can be used."""
    settings = extractor_settings(front_end)
    if settings is not None:
        from transformers import ClapFeatureExtractor

        ClapFeatureExtractor(**settings).save_pretrained(folder)
