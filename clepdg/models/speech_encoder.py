"""Speech encoders of transformers: WavLM, HuBERT, Whisper and others.

They are baselines without a text encoder. Shapes: T samples, F frames, D the encoder's hidden size. A model folder
holds config.json, weights and preprocessor_config.json.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clepdg.audio.io import Waveform, resample
from clepdg.audio.noise import FRAME, is_active
from clepdg.errors import BackboneError
from clepdg.models.loading import check_weights, explain_load_errors, load_weights
from clepdg.models.tensors import digest_tensors

MIN_SAMPLES = 400  # at 16 kHz: the receptive field of one frame of wav2vec 2.0
LONGEST_SECONDS = 30  # of audio in training, where the front end has no window
FRAMES = "pooled_frames"  # the front end's own setting, beside those of transformers
UNUSED = {"masked_spec_embed"}  # replaces masked frames in pretraining; fine-tuned models often lack it


class SpeechEncoder:
    """A speech encoder with its front end."""

    def __init__(self, model: Any, extractor: Any) -> None:
        self.model = model
        self.extractor = extractor

    @property
    def encoder(self) -> Any:
        """The module that computes hidden states, without a decoder."""
        return self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model

    @property
    def active_only(self) -> bool:
        """True where pooling leaves out pauses, as the front end's file says."""
        return getattr(self.extractor, FRAMES, "all") == "active"

    @property
    def window(self) -> int | None:
        """Samples that the front end pads audio to; None: it does not pad."""
        samples: int | None = getattr(self.extractor, "n_samples", None)
        return samples

    def prepare(self, waveform: Waveform, rate: int) -> Waveform:
        """Resample a waveform (T,) to the front end's rate; repeat a tiny one."""
        waveform = resample(waveform, rate, self.extractor.sampling_rate)
        return waveform if len(waveform) >= MIN_SAMPLES else np.resize(waveform, MIN_SAMPLES)

    def crop(self, waveform: Waveform, rate: int, draw: float) -> Waveform:
        """Prepare a waveform (T,) for training, at most one window long.

        Args:
            draw: in [0, 1): the position of the crop in a long waveform.
        """
        waveform = self.prepare(waveform, rate)
        size = self.window or LONGEST_SECONDS * self.extractor.sampling_rate
        start = int(draw * max(0, len(waveform) - size))
        return waveform[start : start + size]

    @torch.no_grad()
    def states(self, waveform: Waveform, rate: int) -> torch.Tensor:
        """Return the hidden states (P, F, D) of a waveform (T,).

        P - 1 layers, and the first layer's input. Utterances are encoded one at a time, without padding: padding
        changes the output of encoders with group norm over time (such as wav2vec 2.0 base) despite a mask. Where the
        front end pads by itself (Whisper: to 30 s), padded frames are left out, and longer audio is encoded in parts.
        The padding is encoded all the same: with positions cut to the clip, Whisper-base's standard deviations over
        time had cosines as low as .4 to these.
        """
        waveform = self.prepare(waveform, rate)
        size = self.window or len(waveform)
        parts = [self._hidden([waveform[start : start + size]]) for start in range(0, len(waveform), size)]
        return torch.cat([states for part in parts for states in part], dim=1)

    def _hidden(self, waveforms: Sequence[Waveform]) -> list[torch.Tensor]:
        """Return the hidden states (P, F, D) of prepared waveforms (T,).

        They are one batch, which only a front end that pads by itself takes if they differ in length.
        """
        rate = self.extractor.sampling_rate
        with torch.autocast("cpu", enabled=False):  # the front end works in float32, whatever the encoder does
            inputs = self.extractor(
                list(waveforms), sampling_rate=rate, return_attention_mask=True, return_tensors="pt"
            )
        found = self.encoder(**inputs.to(self.model.device), output_hidden_states=True)
        hidden = torch.stack([*found.hidden_states[:-1], found.last_hidden_state], dim=1)  # (B, P, F, D)
        shares = inputs["attention_mask"].float().mean(dim=1).tolist()
        frames = [math.ceil(round(share * hidden.shape[2], 3)) for share in shares]
        return [states[:, :count].float() for states, count in zip(hidden, frames, strict=True)]

    def pool_with_gradients(self, waveforms: Sequence[Waveform]) -> torch.Tensor:
        """Pool prepared waveforms of at most one window to (B, P, 2 D).

        They are one batch where the front end pads by itself.
        """
        batches = [waveforms] if self.window else [[waveform] for waveform in waveforms]
        found = [states for batch in batches for states in self._hidden(batch)]
        return torch.stack([self._pool(states, waveform) for states, waveform in zip(found, waveforms, strict=True)])

    def linear_layers(self) -> list[str]:
        """Return the names of the blocks' linear layers that LoRA can adapt.

        WavLM reads the weights of its attention's projections without calling them, so adapters there would not learn.
        """
        called: set[str] = set()
        linear = {n: m for n, m in self.model.named_modules() if isinstance(m, torch.nn.Linear) and ".layers." in n}
        hooks = [m.register_forward_hook(lambda *_, name=name: called.add(name)) for name, m in linear.items()]
        self.states(np.sin(np.arange(8000), dtype=np.float32), self.extractor.sampling_rate)
        for hook in hooks:
            hook.remove()
        return sorted(called)

    def encode(self, waveform: Waveform, rate: int) -> NDArray[np.float32]:
        """Encode a waveform (T,) as its mean last hidden state (D,) over time."""
        mean: NDArray[np.float32] = self.states(waveform, rate)[-1].mean(dim=0).cpu().numpy()
        return mean

    def pool(self, waveform: Waveform, rate: int) -> NDArray[np.float32]:
        """Return mean and deviation over time of hidden states (P, 2 D)."""
        pooled = self._pool(self.states(waveform, rate), self.prepare(waveform, rate))
        numbers: NDArray[np.float32] = pooled.cpu().numpy()
        return numbers

    def _pool(self, states: torch.Tensor, waveform: Waveform) -> torch.Tensor:
        """Pool states (P, F, D) of a prepared waveform (T,) to (P, 2 D)."""
        if self.active_only:
            active = is_active(waveform)
            centres = (np.arange(states.shape[1]) + 0.5) / states.shape[1] * len(waveform)
            heard = active[np.minimum(centres.astype(int) // FRAME, len(active) - 1)]
            if heard.any():
                states = states[:, torch.from_numpy(heard).to(states.device)]
        return torch.cat([states.mean(dim=1), states.std(dim=1, correction=0)], dim=-1)

    def save(self, folder: Path) -> None:
        """Write a model folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)

    def digest(self) -> str:
        """Return a digest of weights, architecture and front end."""
        origin = ("_name_or_path", "transformers_version", "dtype", "architectures")
        settings = [
            {name: value for name, value in part.to_dict().items() if name not in origin}
            for part in (self.model.config, self.extractor)
        ]
        parts = [digest_tensors(self.model.state_dict()), json.dumps(settings, sort_keys=True)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_encoder(folder: Path | str, *, device: str = "cpu", allow_unknown: bool = False) -> SpeechEncoder:
    """Load a speech encoder of transformers from a folder.

    Args:
        allow_unknown: read pickled weights even if their sha256 is not in the list of known models.

    Raises:
        BackboneError: the model is incomplete or no speech encoder, its weights are not finite or an unknown pickle, or
            it needs code of its own.
    """
    from transformers import AutoFeatureExtractor

    where = str(folder)
    expected = "a folder with config.json, weights and preprocessor_config.json"
    with explain_load_errors("speech encoder", expected, where):
        model, info = load_weights(Path(where), allow_unknown=allow_unknown, kind="AutoModel")
        extractor = AutoFeatureExtractor.from_pretrained(where, trust_remote_code=False)
    missing = [name for name in info["missing_keys"] if name.rpartition(".")[2] not in UNUSED]
    check_weights(model, missing, "speech encoder", where)
    encoder = SpeechEncoder(model.to(device).eval(), extractor)
    try:
        encoder.encode(np.sin(np.arange(8000), dtype=np.float32), 16000)
    except Exception as error:  # models of other kinds fail in many ways
        raise BackboneError(
            "This model is not a speech encoder: it can't encode half a second of a tone.",
            got=f"{type(model).__name__}: {' '.join(str(error).split())[:200]}",
            expected="a model that takes audio and returns a last hidden state",
            where=where,
        ) from error
    return encoder
