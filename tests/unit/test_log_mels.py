"""Protects the log-mels that training keeps: those of the front end, computed once, within a bound."""

import numpy as np
import pandas as pd
import pytest
import torch

from clepdg.audio.frontend import MICRO_FRONT_END, log_mel, windows
from clepdg.method.inputs import log_mels
from clepdg.method.inputs.log_mels import LogMels

SECONDS = (1.0, 4.0, 9.0)
TABLE = pd.DataFrame({"name": range(len(SECONDS))})


@pytest.fixture
def read(tone, monkeypatch):
    """Replace the shards by tones of SECONDS; return the positions that were read."""
    positions = []

    class Reader:
        def __init__(self, table):
            self.names = table.name.tolist()

        def waveform(self, position):
            name = self.names[position]
            positions.append(name)
            return tone(SECONDS[name], 16000, 120.0 + 40 * name, seed=name), 16000

    monkeypatch.setattr(log_mels, "UtteranceReader", Reader)
    return positions


@pytest.mark.parametrize("position", range(len(SECONDS)))
def test_windows_are_those_of_the_waveform(read, tone, position):
    waveform = tone(SECONDS[position], 16000, 120.0 + 40 * position, seed=position)
    expected = log_mel(torch.from_numpy(windows(waveform, 16000, MICRO_FRONT_END)), MICRO_FRONT_END)
    found = LogMels(TABLE, MICRO_FRONT_END).windows(position)
    assert found.shape == expected.shape and found.dtype == torch.float32
    inner = slice(3, -3)  # without the reflected edges
    assert float((found - expected)[:, :, inner].abs().max()) < 0.02


def test_a_crop_lies_where_it_is_drawn_and_is_standardised(read):
    kept = LogMels(TABLE, MICRO_FRONT_END)
    cuts = kept.windows(2)
    torch.testing.assert_close(kept.crop(2, 0.0), cuts[0])
    torch.testing.assert_close(kept.crop(2, np.nextafter(1.0, 0.0)), cuts[-1])
    assert not torch.equal(kept.crop(2, 0.3), kept.crop(2, 0.6))
    crop = kept.crop(2, 0.5)
    assert abs(float(crop.mean())) < 1e-4 and abs(float(crop.std()) - 1) < 1e-3


def test_each_utterance_is_read_once_as_long_as_they_fit(read):
    kept = LogMels(TABLE, MICRO_FRONT_END)
    short = MICRO_FRONT_END.frames * MICRO_FRONT_END.mels * 2  # bytes
    bounded = LogMels(TABLE, MICRO_FRONT_END, most_bytes=short)
    for position in (0, 1, 2, 0, 1, 2):
        assert torch.equal(kept.crop(position, 0.4), bounded.crop(position, 0.4))
    assert sorted(read) == [0, 0, 1, 1, 1, 2, 2, 2]
    assert sum(whole.nbytes for whole in bounded.kept.values()) == short
