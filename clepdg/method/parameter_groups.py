"""What of a CLAP learns when it becomes CLEP, and at which rate; the rest is frozen and in eval."""

from typing import Any

from clepdg.config.schema import ClepConfig
from clepdg.models.clap import Clap


def trainable_groups(clap: Clap, config: ClepConfig) -> list[dict[str, Any]]:
    """Choose what is trained and return the optimiser's groups; the rest is frozen: no gradient, no group.

    Both projections and one logit scale are trained, the encoders as the configuration says; adapters of the audio
    encoder stand in for its weights and learn at the projections' rate.
    The audio BatchNorm stays as it is, statistics and affine. No decay on biases, norms and the scale.
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
    """Put what is trained into training mode; frozen encoders and the audio BatchNorm stay in eval."""
    clap.model.train()
    if not config.train_audio_encoder:
        clap.model.audio_model.eval()
    if not config.train_text_encoder:
        clap.model.text_model.eval()
    clap.model.audio_model.audio_encoder.batch_norm.eval()
