"""The micro backbone: a small CLAP with random weights, trained from scratch.

Shapes: B batch, C channels, D joint embedding. A model folder holds micro.json, model.safetensors and the tokenizer.
"""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clepdg import prompts
from clepdg.audio.frontend import MICRO_FRONT_END
from clepdg.errors import BackboneError
from clepdg.models.clap import Clap, save_tokenizer
from clepdg.models.loading import explain_load_errors
from clepdg.models.tensors import load_tensors, save_tensors
from clepdg.store.readers import read_facts

MICRO: Final = "micro.json"
WEIGHTS: Final = "model.safetensors"
DIMENSION: Final = 128  # D, and the text encoder's width
CHANNELS: Final = (64, 96, 128)  # of the blocks; each halves the frames
HIDDEN: Final = 512
NORM_GROUPS: Final = 8
CONVOLVED_DROPOUT, HIDDEN_DROPOUT = 0.5, 0.2
LEAST_VARIANCE: Final = 1e-5
INITIAL_SCALE: Final = float(np.log(1 / 0.07))  # in log space, as CLIP's and CLAP's


class Block(nn.Module):
    """Two convolutions over time and a residual; frames are halved."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, width, 5, stride=2, padding=2)
        self.second = nn.Conv1d(width, width, 3, padding=1)
        self.residual = nn.Conv1d(channels, width, 1, stride=2)
        self.norms = nn.ModuleList([nn.GroupNorm(NORM_GROUPS, width) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, C, frames)."""
        inner = F.gelu(self.norms[0](self.first(x)))
        return F.gelu(self.norms[1](self.second(inner)) + self.residual(x))


class AudioTower(nn.Module):
    """A residual network over time, beside statistics of the log-mel.

    The network is pooled by mean and standard deviation over time. The statistics are the same of the log-mel, and the
    standard deviation of its differences: what learns from few speakers generalises best from these, while contours and
    rhythm are in the network alone. Its dropout is high, so that it does not stand in for them.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Block(a, b) for a, b in zip((bands, *CHANNELS), CHANNELS, strict=False)))
        convolved, statistics = 2 * CHANNELS[-1], 3 * bands
        self.norms = nn.ModuleList([nn.LayerNorm(convolved), nn.LayerNorm(statistics), nn.LayerNorm(HIDDEN)])
        self.dropouts = nn.ModuleList([nn.Dropout(CONVOLVED_DROPOUT), nn.Dropout(HIDDEN_DROPOUT)])
        self.linear1, self.linear2 = nn.Linear(convolved + statistics, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, input_features: Tensor) -> Any:
        """Return an object with `pooler_output` (B, HIDDEN), as CLAP's does.

        Args:
            input_features: log-mels (B, 1, frames, bands).
        """
        x = input_features.squeeze(1).transpose(1, 2).contiguous()  # (B, bands, frames)
        convolved = torch.cat(_mean_and_deviation(self.layers(x)), dim=1)
        statistics = torch.cat([*_mean_and_deviation(x), _mean_and_deviation(x.diff(dim=2))[1]], dim=1)
        pooled = torch.cat([self.dropouts[0](self.norms[0](convolved)), self.norms[1](statistics)], dim=1)
        hidden = F.gelu(self.linear1(pooled))
        hidden = hidden + self.dropouts[1](F.gelu(self.linear2(hidden)))
        return SimpleNamespace(pooler_output=self.norms[2](hidden))


def _mean_and_deviation(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(dim=2), (x.var(dim=2, correction=0) + LEAST_VARIANCE).sqrt()


class Projection(nn.Module):
    """Linear, ReLU, linear, as CLAP's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, DIMENSION), nn.Linear(DIMENSION, DIMENSION)

    def forward(self, pooled: Tensor) -> Tensor:
        """Project pooled features (B, width) to (B, D)."""
        projected: Tensor = self.linear2(F.relu(self.linear1(pooled)))
        return projected


class MicroModel(nn.Module):
    """Encoders and projections, under the names of CLAP's parts."""

    def __init__(self, tokenizer: Any | None) -> None:
        super().__init__()
        self.audio_model, text = AudioTower(MICRO_FRONT_END.mels), None
        if tokenizer is not None:
            self.text_model, text = _text_model(tokenizer)
        self.audio_projection = Projection(HIDDEN)
        if tokenizer is not None:
            self.text_projection = Projection(DIMENSION)
        self.logit_scale_a = nn.Parameter(torch.tensor(INITIAL_SCALE))
        self.config = SimpleNamespace(text_config=text, projection_dim=DIMENSION)


def _text_model(tokenizer: Any) -> tuple[Any, Any]:
    """Return a text encoder with random weights, and its configuration."""
    from transformers import ClapTextConfig
    from transformers.models.clap.modeling_clap import ClapTextModel

    text = ClapTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=DIMENSION,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=66,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return ClapTextModel(text), text


class Micro(Clap):
    """A micro model and its tokenizer, with the fixed front end."""

    model: MicroModel

    def linear_layers(self) -> list[str]:
        """Return the names of the blocks' convolutions for LoRA."""
        return [f"layers.{n}.{name}" for n in range(len(CHANNELS)) for name in ("first", "second")]

    def save(self, folder: Path) -> None:
        """Write a model folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(folder / WEIGHTS, self.model.state_dict())
        save_tokenizer(self.tokenizer, folder)
        (folder / MICRO).write_text(json.dumps(asdict(self.front_end), indent=1, sort_keys=True))


def build_micro(seed: int, *, device: str = "cpu") -> Micro:
    """Build the micro backbone with random weights and a fixed vocabulary.

    Args:
        seed: of the initial weights.
    """
    tokenizer = _word_tokenizer(prompts.vocabulary())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MicroModel(tokenizer).eval()
    return Micro(model.to(device), tokenizer, MICRO_FRONT_END)


def load_micro(folder: Path, *, device: str = "cpu", audio_only: bool = False) -> Micro:
    """Load a model folder that `Micro.save` wrote.

    Args:
        audio_only: load no text encoder and no tokenizer; transformers is not imported.

    Raises:
        BackboneError: the folder is not whole.
    """
    if (facts := read_facts(folder / MICRO, dict)) != asdict(MICRO_FRONT_END):
        got = {name: value for name, value in facts.items() if asdict(MICRO_FRONT_END).get(name) != value}
        raise BackboneError("The front end is not micro's.", got=got, expected=asdict(MICRO_FRONT_END), where=folder)
    tokenizer = None if audio_only else _load_tokenizer(folder)
    weights = load_tensors(folder / WEIGHTS)
    if audio_only:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("text_")}
    model = MicroModel(tokenizer).eval()
    shapes = [{name: tuple(t.shape) for name, t in tensors.items()} for tensors in (weights, model.state_dict())]
    if shapes[0] != shapes[1]:
        wrong = sorted(name for name in {*shapes[0], *shapes[1]} if shapes[0].get(name) != shapes[1].get(name))
        raise BackboneError("The weights do not fit micro.", got=wrong, where=folder / WEIGHTS)
    model.load_state_dict(weights)
    return Micro(model.to(device), tokenizer, MICRO_FRONT_END)


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with explain_load_errors("micro backbone", "a folder that Micro.save wrote", str(folder)):
        return AutoTokenizer.from_pretrained(folder)


def _word_tokenizer(words: list[str]) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="right"
    )
