"""CLEP's weights: trained groups, LoRA adapters, interpolation.

LoRA: Hu et al., ICLR 2022.
"""

from collections.abc import Iterable
from typing import Any

import torch

from clepdg.config.schema import ClepConfig
from clepdg.models.clap import Clap
from clepdg.models.dual import Dual
from clepdg.training.loop import step_seed


def trainable_groups(clap: Clap, config: ClepConfig) -> list[dict[str, Any]]:
    """Return the optimiser's groups; freeze all other parameters.

    The configuration chooses the trained encoders and whether the text projection is trained; the audio projection and
    one logit scale always are. Adapters replace the audio encoder's weights and have the projections' learning rate.
    The audio BatchNorm is frozen. Biases, norms and the scale have no weight decay.
    """
    model = clap.model
    model.requires_grad_(False)
    whole_audio = config.train_audio_encoder and not config.lora_rank
    encoders = [
        *([clap.audio_encoder] if whole_audio else []),
        *([model.text_model] if config.train_text_encoder else []),
    ]
    projections = [model.audio_projection, *([model.text_projection] if config.train_text_projection else [])]
    adapted = [model.audio_model] if config.lora_rank else []
    groups: list[dict[str, Any]] = []
    for modules, part, rate in (
        (encoders, "", config.learning_rate),
        (projections, "", config.projection_learning_rate),
        (adapted, "lora_", config.projection_learning_rate),
    ):
        kept = [
            parameter
            for module in modules
            for name, parameter in module.named_parameters()
            if "batch_norm" not in name and part in name
        ]
        groups += decay_groups(kept, rate, config.weight_decay)
    groups.append({"params": [clap.logit_scale], "lr": config.logit_scale_learning_rate, "weight_decay": 0.0})
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    return groups


def decay_groups(parameters: Iterable[torch.nn.Parameter], rate: float, decay: float) -> list[dict[str, Any]]:
    """Return the optimiser's groups of parameters, by weight decay.

    Biases, norms and scales have none.
    """
    kept = list(parameters)
    parts = (([p for p in kept if p.ndim >= 2], decay), ([p for p in kept if p.ndim < 2], 0.0))
    return [{"params": part, "lr": rate, "weight_decay": of_part} for part, of_part in parts if part]


def train_mode(clap: Clap, config: ClepConfig) -> None:
    """Set the trained parts to training mode.

    Frozen encoders and the audio BatchNorm stay in eval mode, and so does a dual backbone's speech encoder: it masks
    audio and skips layers at random otherwise, not by torch's seed alone.
    """
    clap.model.train()
    if not config.train_audio_encoder or isinstance(clap, Dual):
        clap.model.audio_model.eval()
    if not config.train_text_encoder:
        clap.model.text_model.eval()
    for module in clap.model.audio_model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


def add_adapters(clap: Clap, rank: int, seed: int) -> Any:
    """Add LoRA adapters to the linear layers of the audio encoder's blocks.

    It changes in place. Their initial weights depend on the seed and leave the encoder's output unchanged.

    Returns:
        The adapters, for `merge_adapters`.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    torch.manual_seed(step_seed(seed, -1))
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=clap.linear_layers())
    return LoraModel(clap.model.audio_model, config, "default")


def merge_adapters(adapters: Any) -> None:
    """Merge adapters into the encoder's weights in place, and remove them."""
    adapters.merge_and_unload()


@torch.no_grad()
def interpolate(clap: Clap, clep: Clap, clap_share: float) -> None:
    """Interpolate between the weights of clap and clep, in clep.

    clep becomes clap_share * clap + (1 - clap_share) * clep. Integer counters stay clep's, and so do the statistics of
    a dual backbone's audio head. Equal weights stay as they are, since sums would round them.
    """
    start = clap.model.state_dict()
    kept = {f"audio_projection.{name}" for name, _ in clep.model.audio_projection.named_buffers()}
    for name, tensor in clep.model.state_dict().items():
        before = start[name].to(tensor.device)
        if tensor.is_floating_point() and name not in kept and not torch.equal(tensor, before):
            tensor.copy_(clap_share * before + (1 - clap_share) * tensor)
