"""Speech encoders of transformers (WavLM, HuBERT, wav2vec 2.0, data2vec, Whisper, ...): a rival that hears no words.

Shapes: T samples, F frames, D the encoder's hidden size. A model folder holds config.json, *.safetensors and
preprocessor_config.json.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clepdg.audio.io import Waveform, resample
from clepdg.errors import BackboneError
from clepdg.models.loading import load_weights
from clepdg.models.tensors import check_finite, digest_tensors

SHORTEST = 400  # samples at 16 kHz: what one frame of wav2vec 2.0 and its kin hears
UNUSED = {"masked_spec_embed"}  # stands for masked frames in pretraining: fine-tuned models often lack it


class SpeechEncoder:
    """A speech encoder with its front end."""

    def __init__(self, model: Any, extractor: Any) -> None:
        self.model = model
        self.extractor = extractor

    @torch.no_grad()
    def encode(self, waveform: Waveform, rate: int) -> NDArray[np.float32]:
        """Return the mean (D,) over time of the last hidden state (F, D) of a waveform (T,).

        One utterance at a time and without padding: encoders with group norm over time (wav2vec 2.0 base and its kin)
        hear padding in spite of a mask. Where the front end pads by itself (Whisper: to 30 s), padded frames are left
        out, and what is longer is heard in parts.
        """
        waveform = resample(waveform, rate, self.extractor.sampling_rate)
        if len(waveform) < SHORTEST:
            waveform = np.resize(waveform, SHORTEST)
        encoder = self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model
        size = getattr(self.extractor, "n_samples", None) or len(waveform)
        kept: list[torch.Tensor] = []
        for start in range(0, len(waveform), size):
            inputs = self.extractor(
                waveform[start : start + size],
                sampling_rate=self.extractor.sampling_rate,
                return_attention_mask=True,
                return_tensors="pt",
            ).to(self.model.device)
            hidden = encoder(**inputs).last_hidden_state[0]  # (F, D)
            heard = inputs["attention_mask"][0].float().mean().item()
            kept.append(hidden[: math.ceil(round(heard * len(hidden), 3))])
        mean: NDArray[np.float32] = torch.cat(kept).float().mean(dim=0).cpu().numpy()
        return mean

    def save(self, folder: Path) -> None:
        """Write a model folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)

    def digest(self) -> str:
        """Return the digest of what the encoder computes: weights, architecture and front end."""
        origin = ("_name_or_path", "transformers_version", "dtype", "architectures")
        settings = [
            {name: value for name, value in part.to_dict().items() if name not in origin}
            for part in (self.model.config, self.extractor)
        ]
        parts = [digest_tensors(self.model.state_dict()), json.dumps(settings, sort_keys=True)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_encoder(folder: Path | str, *, device: str = "cpu", allow_unknown: bool = False) -> SpeechEncoder:
    """Load a speech encoder of transformers from its folder.

    Args:
        allow_unknown: read pickled weights whose bytes no pin names.

    Raises:
        BackboneError: it is no whole speech encoder, its weights are not finite or an unknown pickle, or it brings code
            of its own.
    """
    from safetensors import SafetensorError
    from transformers import AutoFeatureExtractor

    where = str(folder)
    try:
        model, info = load_weights(Path(where), allow_unknown=allow_unknown, kind="AutoModel")
        extractor = AutoFeatureExtractor.from_pretrained(where, trust_remote_code=False)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError) as error:
        raise BackboneError(
            "The speech encoder can't be loaded.",
            got=" ".join(str(error).split())[:400],
            expected="a folder with config.json, weights and preprocessor_config.json",
            where=where,
        ) from error
    missing = sorted(name for name in info["missing_keys"] if name.rpartition(".")[2] not in UNUSED)
    if missing:
        raise BackboneError(
            "The speech encoder's weights are not whole.",
            got=f"{len(missing)} tensors missing, for example {missing[:3]}",
            where=where,
        )
    check_finite(model.state_dict(), where)
    encoder = SpeechEncoder(model.to(device).eval(), extractor)
    try:
        encoder.encode(np.sin(np.arange(8000), dtype=np.float32), 16000)
    except Exception as error:  # a model of another kind fails in whatever way it likes
        raise BackboneError(
            "This model is no speech encoder: it does not hear half a second of a tone.",
            got=f"{type(model).__name__}: {' '.join(str(error).split())[:200]}",
            expected="a model that takes audio and gives a last hidden state",
            where=where,
        ) from error
    return encoder
