"""Protects start-up: a model that only encodes audio is loaded without its text encoder, and encodes the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clepdg.models.folder import load_model
from tests.clap import build_small_clap


@pytest.mark.parametrize("kind", ["micro", "clap"])
def test_audio_is_encoded_alike_without_the_text_encoder(kind: str, micro_factory, tmp_path: Path) -> None:
    whole = micro_factory() if kind == "micro" else build_small_clap()
    whole.save(tmp_path)
    audio = load_model(tmp_path, audio_only=True)
    waveforms = [(np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32), 16_000) for n in (9_000, 80_000)]
    assert torch.equal(audio.encode_waveforms(waveforms), whole.encode_waveforms(waveforms))
    assert audio.tokenizer is None and not any(name.startswith("text_") for name in audio.model.state_dict())


def test_micro_encodes_audio_without_transformers_mlflow_and_pandas(micro, tmp_path: Path) -> None:
    micro.save(tmp_path)
    code = f"""
import sys, numpy
from pathlib import Path
from clepdg_flows.cli import main
from clepdg.models.folder import load_model
from clepdg.method import emotion_classifier, heads
load_model(Path({str(tmp_path)!r}), audio_only=True).encode_waveforms([(numpy.ones(9000, "float32"), 16000)])
print(sorted({{"transformers", "mlflow", "pandas", "sklearn", "scipy", "prefect"}} & {{*sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
