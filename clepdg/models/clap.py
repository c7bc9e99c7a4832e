"""CLAP model, tokenizer and front end: load, encode audio and text, save.

Shapes: B batch, D joint embedding (512 for LAION, 128 for micro), H text hidden size (768, 128), L tokens.
A model folder holds config.json, model.safetensors, the tokenizer and front_end.json, and is loaded from these alone.
With LAION's front end it also holds preprocessor_config.json, and transformers' classes and pipelines load it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clepdg import prompts
from clepdg.audio.frontend import LAION_FRONT_END, FrontEnd, log_mel, split
from clepdg.audio.io import Waveform, resample
from clepdg.audio.pieces import log_mel_of, pack
from clepdg.errors import BackboneError
from clepdg.models.feature_extractor import save_feature_extractor
from clepdg.models.loading import check_weights, explain_load_errors, load_weights
from clepdg.models.pooling import mean_over_windows
from clepdg.models.tensors import digest_tensors
from clepdg.store.readers import read_facts

MAX_LOGIT_SCALE = float(np.log(100.0))  # in log space, as CLIP and CLAP clamp it
FRONT_END = "front_end.json"


class Clap:
    """A CLAP model (transformers' ClapModel) with its tokenizer and front end."""

    def __init__(self, model: Any, tokenizer: Any, front_end: FrontEnd) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.front_end = front_end
        if tokenizer is not None:  # None: a model of audio only
            tokenizer.padding_side = "right"  # left padding would give inputs_embeds other positions than input_ids

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def logit_scale(self) -> torch.nn.Parameter:
        """The trained logit scale, in log space."""
        scale: torch.nn.Parameter = self.model.logit_scale_a
        return scale

    @property
    def word_embeddings(self) -> torch.nn.Embedding:
        """The token embedding table (vocabulary, H)."""
        table: torch.nn.Embedding = self.model.text_model.embeddings.word_embeddings
        return table

    @property
    def audio_encoder(self) -> torch.nn.Module:
        """The encoder of audio, without its projection."""
        encoder: torch.nn.Module = self.model.audio_model
        return encoder

    def linear_layers(self) -> list[str] | str:
        """Return the linear layers of the Swin blocks, as a pattern."""
        return r".*layers\..*\.(query|key|value|dense)"

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return input_ids and attention_mask (B, L), padded on the right.

        Raises:
            BackboneError: a text holds words outside a fixed vocabulary, or is too long for the model.
        """
        if self.tokenizer.unk_token is None:
            if unknown := prompts.unknown_words(texts, self.tokenizer.get_vocab()):
                raise BackboneError(
                    "A prompt holds words that this backbone does not know.",
                    got=unknown,
                    do="use words of the module clepdg.prompts, or a backbone that was pretrained on text",
                )
        encoded = self.tokenizer([" ".join(prompts.words(t)) for t in texts] if self._micro else list(texts),
                                 padding=True, return_tensors="pt")  # fmt: skip
        longest = self.model.config.text_config.max_position_embeddings - 2
        if encoded.input_ids.shape[1] > longest:
            raise BackboneError("A prompt is too long.", got=f"{encoded.input_ids.shape[1]} tokens", expected=longest)
        return {
            "input_ids": encoded.input_ids.to(self.device),
            "attention_mask": encoded.attention_mask.to(self.device),
        }

    @property
    def _micro(self) -> bool:
        return self.tokenizer.unk_token is None

    def pool_text(self, attention_mask: Tensor, **tokens: Tensor) -> Tensor:
        """Return the pooled text (B, H) of tokens or their embeddings.

        Args:
            attention_mask: (B, L).
            tokens: input_ids (B, L) or inputs_embeds (B, L, H).
        """
        pooled: Tensor = self.model.text_model(attention_mask=attention_mask, **tokens).pooler_output
        return pooled

    def project_text(self, pooled: Tensor) -> Tensor:
        """Project pooled text (B, H) to normalised text features (B, D)."""
        return F.normalize(self.model.text_projection(pooled).float(), dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as normalised text features (B, D)."""
        return self.project_text(self.pool_text(**self.tokenize(texts)))

    def encode_log_mel(self, log_mels: Tensor) -> Tensor:
        """Encode log-mels (B, 1, frames, mels) as audio features (B, D)."""
        pooled = self.model.audio_model(input_features=log_mels.to(self.device)).pooler_output
        return F.normalize(self.model.audio_projection(pooled).float(), dim=-1)

    def encode_inputs(self, windows: Tensor) -> Tensor:
        """Encode windows (B, samples) of audio as audio features (B, D)."""
        return self.encode_log_mel(log_mel(windows.to(self.device), self.front_end))

    def encode_pieces(self, pieces: Sequence[Tensor]) -> Tensor:
        """Encode pieces (B x (T,)) of at most a window as audio features (B, D)."""
        return self.encode_log_mel(log_mel_of([piece.to(self.device) for piece in pieces], self.front_end))

    @torch.no_grad()
    def encode_waveforms(self, waveforms: Iterable[tuple[Waveform, int]], batch_size: int | None = None) -> Tensor:
        """Encode waveforms as audio features (B, D), over their windows.

        A feature is the normalised mean of the features of a waveform's windows. Waveforms are taken as they are
        needed, so that memory does not grow with their number.

        Args:
            waveforms: B pairs of a waveform (T,) and its rate in Hz.
            batch_size: number of windows encoded at once; None: 32, on a GPU 256.
        """
        on_gpu = self.device.type == "cuda"
        pieces = self._on_device(waveforms) if on_gpu else map(self._resampled, waveforms)
        cut = (split(piece, self.front_end) for piece in pieces)
        return mean_over_windows(cut, self.encode_pieces, batch_size or (256 if on_gpu else 32))

    def _resampled(self, heard: tuple[Waveform, int]) -> Tensor:
        return torch.from_numpy(resample(*heard, self.front_end.sample_rate))

    def _on_device(self, waveforms: Iterable[tuple[Waveform, int]]) -> Iterator[Tensor]:
        """Yield waveforms (T,) that the device resampled, a few at a time."""
        left = iter(waveforms)
        while part := list(islice(left, 32)):
            yield from pack(part).at(self.front_end.sample_rate, self.device)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Clamp the logit scale in place, after a training step.

        A clamp in the forward pass has no gradient beyond the limit, so the scale would stay there.
        """
        self.logit_scale.clamp_(0.0, MAX_LOGIT_SCALE)

    def save(self, folder: Path) -> None:
        """Write a model folder; both of its logit scales are the trained one."""
        with torch.no_grad():
            self.model.logit_scale_t.copy_(self.model.logit_scale_a)
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder)
        save_tokenizer(self.tokenizer, folder)
        (folder / FRONT_END).write_text(json.dumps(asdict(self.front_end), indent=1, sort_keys=True))
        save_feature_extractor(self.front_end, folder)

    def digest(self) -> str:
        """Return a digest of weights, vocabulary and front end."""
        vocabulary = json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        front_end = json.dumps(asdict(self.front_end), sort_keys=True)
        parts = [digest_tensors(self.model.state_dict()), vocabulary, front_end]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer without transformers' notes on how it was loaded.

    So equal models have equal bytes.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text())
    kept = {name: value for name, value in said.items() if name not in ("local_files_only", "is_local")}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def load_clap(
    folder: Path | str, *, device: str = "cpu", allow_unknown: bool = False, audio_only: bool = False
) -> Clap:
    """Load a CLAP from a model folder of this project or of transformers.

    Args:
        folder: holds config.json, a tokenizer, and weights: safetensors or pytorch_model.bin (only its tensors are
            read).
        allow_unknown: read pickled weights even if their sha256 is not in the list of known models.
        audio_only: load no text encoder and no tokenizer.

    Raises:
        BackboneError: weights or tokenizer are missing or do not fit together, or the weights are not finite or an
            unknown pickle.
    """
    from transformers import AutoTokenizer

    where = str(folder)
    if not Path(where).is_dir():
        raise BackboneError("There is no such folder.", got=where, expected="a CLAP model's folder")
    with explain_load_errors("backbone", "a folder with config.json, a tokenizer and weights of a CLAP", where):
        kind = "ClapAudioModelWithProjection" if audio_only else "ClapModel"
        model, info = load_weights(Path(where), allow_unknown=allow_unknown, kind=kind)
        tokenizer = None if audio_only else AutoTokenizer.from_pretrained(where)
    check_weights(model, info["missing_keys"], "backbone", where)
    front_end = LAION_FRONT_END
    if (Path(where) / FRONT_END).is_file():
        facts = read_facts(Path(where) / FRONT_END, dict)
        kinds = {name: type(value) for name, value in asdict(LAION_FRONT_END).items()}
        if {name: type(value) for name, value in facts.items()} != kinds:
            raise BackboneError("The front end can't be read.", got=facts, expected=sorted(kinds), where=where)
        front_end = FrontEnd(**facts)
    if tokenizer is not None and model.config.text_config.vocab_size < len(tokenizer):
        raise BackboneError(
            "Tokenizer and weights do not fit together.",
            got=f"{len(tokenizer)} tokens",
            expected=f"at most {model.config.text_config.vocab_size}",
            where=where,
        )
    if (model.config if audio_only else model.config.audio_config).enable_fusion:
        raise BackboneError(
            "A fusion model is not supported: its front end is random.", got=where, expected="an unfused CLAP"
        )
    return Clap(model.to(device).eval(), tokenizer, front_end)
