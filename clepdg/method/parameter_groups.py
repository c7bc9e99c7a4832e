"""The parameters that CLEP trains, with their learning rates; the rest is frozen."""

from typing import Any

from clepdg.config.schema import ClepConfig
from clepdg.models.clap import Clap


def trainable_groups(clap: Clap, config: ClepConfig) -> list[dict[str, Any]]:
    """Freeze all parameters but the trained ones; return the optimiser's groups.

    The configuration chooses the trained encoders and whether the text projection is trained; the audio projection and
    one logit scale always are. Adapters replace the audio encoder's weights and have the projections' learning rate.
    The audio BatchNorm is frozen. Biases, norms and the scale have no weight decay.
    """
    model = clap.model
    model.requires_grad_(False)
    whole_audio = config.train_audio_encoder and not config.lora_rank
    encoders = [
        *([model.audio_model] if whole_audio else []),
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
        for parameters, decay in (
            ([p for p in kept if p.ndim >= 2], config.weight_decay),
            ([p for p in kept if p.ndim < 2], 0.0),
        ):
            if parameters:
                groups.append({"params": parameters, "lr": rate, "weight_decay": decay})
    groups.append({"params": [clap.logit_scale], "lr": config.logit_scale_learning_rate, "weight_decay": 0.0})
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    return groups


def train_mode(clap: Clap, config: ClepConfig) -> None:
    """Set trained parts to training mode; frozen encoders and the audio BatchNorm to eval."""
    clap.model.train()
    if not config.train_audio_encoder:
        clap.model.audio_model.eval()
    if not config.train_text_encoder:
        clap.model.text_model.eval()
    clap.model.audio_model.audio_encoder.batch_norm.eval()
