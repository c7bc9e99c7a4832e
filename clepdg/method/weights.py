"""Interpolate weights; add low-rank adapters (LoRA, Hu et al., ICLR 2022) and merge them."""

from typing import Any

import torch

from clepdg.models.clap import Clap
from clepdg.training.loop import step_seed

LINEAR = r".*layers\..*\.(query|key|value|dense)"  # the linear layers of the Swin blocks


@torch.no_grad()
def interpolate(clap: Clap, clep: Clap, clap_share: float) -> None:
    """Set clep's weights to clap_share * clap + (1 - clap_share) * clep, in place.

    Integer counters stay clep's.
    """
    start = clap.model.state_dict()
    for name, tensor in clep.model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(clap_share * start[name].to(tensor.device) + (1 - clap_share) * tensor)


def add_adapters(clap: Clap, rank: int, seed: int) -> Any:
    """Add adapters to the audio encoder in place; return them for `merge_adapters`.

    Their initial weights depend on the seed and leave the encoder's output unchanged.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    torch.manual_seed(step_seed(seed, -1))
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=LINEAR)
    return LoraModel(clap.model.audio_model, config, "default")


def merge_adapters(adapters: Any) -> None:
    """Merge adapters into the encoder's weights in place, and remove them."""
    adapters.merge_and_unload()
