"""The dual backbone: a speech encoder and a text encoder of transformers, with a projection head each.

The shape is ParaCLAP's (Jing et al., Interspeech 2024). The encoders stay frozen; layer weights, heads and scale learn.
Shapes: B batch, T samples, P hidden states (layers and their input), A and H the encoders' hidden sizes, D joint
embedding. A model folder holds audio/ and text/ (folders of transformers), heads.safetensors and dual.json.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from clepdg.audio.io import Waveform
from clepdg.errors import BackboneError, ClepError
from clepdg.models.clap import Clap, save_tokenizer
from clepdg.models.dual_heads import DIMENSION, TEXT_DROPOUT, AudioHead, Head
from clepdg.models.loading import load_weights
from clepdg.models.speech_encoder import FRAMES, SpeechEncoder, load_encoder
from clepdg.models.tensors import check_finite, digest_tensors, load_tensors, save_tensors
from clepdg.store.readers import read_facts

DUAL: Final = "dual.json"
HEADS: Final = "heads.safetensors"
MOST_STATES: Final = 100
INITIAL_SCALE: Final = float(np.log(1 / 0.07))  # in log space, as CLIP's and CLAP's


class TextEncoder(nn.Module):
    """A text encoder of transformers; a text is the mean over its tokens."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, attention_mask: Tensor, **tokens: Tensor) -> Any:
        """Return an object with `pooler_output` (B, H), as CLAP's does."""
        hidden = self.encoder(attention_mask=attention_mask, **tokens).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return SimpleNamespace(pooler_output=(hidden * mask).sum(1) / mask.sum(1))


class DualModel(nn.Module):
    """Encoders and heads, under the names of CLAP's parts."""

    def __init__(self, audio: Any, text: Any | None, states: int) -> None:
        super().__init__()
        self.audio_model = audio
        if text is not None:  # None: a model of audio only
            self.text_model = TextEncoder(text)
        self.audio_projection = AudioHead(states, 2 * audio.config.hidden_size)
        if text is not None:
            self.text_projection = Head(text.config.hidden_size, TEXT_DROPOUT)
        self.logit_scale_a = nn.Parameter(torch.tensor(INITIAL_SCALE))
        self.config = SimpleNamespace(text_config=text and text.config, projection_dim=DIMENSION)

    def heads(self) -> dict[str, Tensor]:
        """Return all tensors but the encoders'."""
        encoders = ("audio_model.", "text_model.")
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(encoders)}


class Dual(Clap):
    """A dual model, its tokenizer and its speech encoder's front end."""

    def __init__(self, model: DualModel, tokenizer: Any, encoder: SpeechEncoder) -> None:
        self.model, self.tokenizer, self.encoder = model, tokenizer, encoder  # and no log-mel front end
        if tokenizer is not None:
            tokenizer.padding_side = "right"

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The token embedding table (vocabulary, H)."""
        table: nn.Embedding = self.model.text_model.encoder.get_input_embeddings()
        return table

    @property
    def audio_encoder(self) -> nn.Module:
        """The encoder of audio, without a decoder."""
        encoder: nn.Module = self.encoder.encoder
        return encoder

    def linear_layers(self) -> list[str]:
        """Return the names of the speech encoder's layers for LoRA."""
        return self.encoder.linear_layers()

    def pool(self, waveforms: Iterable[tuple[Waveform, int]]) -> NDArray[np.float32]:
        """Pool waveforms (T,) with their rates in Hz to (B, P, 2 A)."""
        return np.stack([self.encoder.pool(waveform, rate) for waveform, rate in waveforms])

    def encode_inputs(self, pooled: Tensor) -> Tensor:
        """Encode pooled states (B, P, 2 A) as audio features (B, D)."""
        return F.normalize(self.model.audio_projection(pooled.to(self.device)).float(), dim=-1)

    @torch.no_grad()
    def encode_waveforms(self, waveforms: Iterable[tuple[Waveform, int]], batch_size: int | None = None) -> Tensor:
        """Encode waveforms (T,) with their rates in Hz to (B, D)."""
        return self.encode_inputs(torch.from_numpy(self.pool(waveforms)))

    def save(self, folder: Path) -> None:
        """Write a model folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.save(folder / "audio")
        self.model.text_model.encoder.save_pretrained(folder / "text")
        save_tokenizer(self.tokenizer, folder / "text")
        save_tensors(folder / HEADS, self.model.heads())
        facts = {"states": len(self.model.audio_projection.layers)}
        (folder / DUAL).write_text(json.dumps(facts, indent=1, sort_keys=True))

    def digest(self) -> str:
        """Return a digest of weights, vocabulary and front end."""
        vocabulary = json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        parts = [digest_tensors(self.model.state_dict()), vocabulary, self.encoder.digest()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def build_dual(
    audio: Path | str,
    text: Path | str,
    seed: int,
    *,
    frames: str = "active",
    device: str = "cpu",
    allow_unknown: bool = False,
) -> Dual:
    """Join a speech encoder and a text encoder by heads with random weights.

    Args:
        audio: a folder of transformers with a speech encoder.
        text: a folder of transformers with a text encoder and its tokenizer.
        seed: of the heads' initial weights.
        frames: that states are pooled over: "active" ones of speech, or "all".
        allow_unknown: read pickled weights even if their sha256 is not in the list of known models.

    Raises:
        BackboneError: a folder holds no such encoder, or its weights are incomplete, not finite or an unknown pickle.
    """
    encoder = load_encoder(audio, allow_unknown=allow_unknown)
    setattr(encoder.extractor, FRAMES, frames)
    words, tokenizer = _load_text(Path(text), allow_unknown=allow_unknown)
    states = len(encoder.pool(np.sin(np.arange(8000), dtype=np.float32), 16000))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DualModel(encoder.model, words, states).eval()
    return Dual(model.to(device), tokenizer, encoder)


def load_dual(folder: Path, *, device: str = "cpu", audio_only: bool = False) -> Dual:
    """Load a model folder that `Dual.save` wrote.

    Args:
        audio_only: load no text encoder and no tokenizer.

    Raises:
        BackboneError: the folder is not whole.
    """
    states = read_facts(folder / DUAL, dict).get("states")
    encoder = load_encoder(folder / "audio")
    words, tokenizer = (None, None) if audio_only else _load_text(folder / "text", allow_unknown=False)
    if not isinstance(states, int) or not 1 <= states <= MOST_STATES:
        raise BackboneError("The dual backbone can't be read.", got=f"states {states!r}", where=folder / DUAL)
    model = DualModel(encoder.model, words, states).eval()
    heads, expected = load_tensors(folder / HEADS), model.heads()
    if audio_only:
        heads = {name: tensor for name, tensor in heads.items() if not name.startswith("text_")}
    shapes = [{name: tuple(t.shape) for name, t in tensors.items()} for tensors in (heads, expected)]
    if shapes[0] != shapes[1]:
        wrong = sorted(name for name in {*heads, *expected} if shapes[0].get(name) != shapes[1].get(name))
        raise BackboneError(
            "The heads do not fit the encoders.",
            got=wrong,
            where=folder / HEADS,
            do="use the folder as it was saved: heads, speech encoder and text encoder belong together",
        )
    model.load_state_dict(heads, strict=False)
    return Dual(model.to(device), tokenizer, encoder)


def _load_text(folder: Path, *, allow_unknown: bool) -> tuple[Any, Any]:
    """Load a text encoder and its tokenizer."""
    from transformers import AutoTokenizer

    try:
        model, info = load_weights(folder, allow_unknown=allow_unknown, kind="AutoModel")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model.get_input_embeddings().weight.shape  # noqa: B018 (a model without words has none)
    except ClepError:
        raise
    except Exception as error:  # a broken folder fails in whatever way it likes
        raise BackboneError(
            "The text encoder can't be loaded.",
            got=" ".join(str(error).split())[:400],
            expected="a folder with config.json, weights and a tokenizer",
            where=folder,
        ) from error
    if missing := sorted(name for name in info["missing_keys"] if "pooler" not in name):
        got = f"{len(missing)} tensors missing, for example {missing[:3]}"
        raise BackboneError("The text encoder's weights are incomplete.", got=got, where=folder)
    check_finite(model.state_dict(), folder)
    return model, tokenizer
