"""Low-rank adapters in CLEP's audio encoder (LoRA: Hu et al., ICLR 2022), by peft; merged at the end."""

from typing import Any

import torch

from clepdg.models.clap import Clap
from clepdg.training.loop import step_seed


@torch.no_grad()
def interpolate(clap: Clap, clep: Clap, clap_share: float) -> None:
    """Move clep's weights in place to clap_share of clap's and the rest of its own; 0 leaves it, 1 makes it clap.

    Counters, which are no weights, stay clep's.
    """
    start = clap.model.state_dict()
    for name, tensor in clep.model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(clap_share * start[name].to(tensor.device) + (1 - clap_share) * tensor)


LINEAR = r".*layers\..*\.(query|key|value|dense)"  # of the Swin blocks' attention and feed-forward parts


def add_adapters(clap: Clap, rank: int, seed: int) -> Any:
    """Put adapters into the audio encoder in place, and return what merges them; at first they change nothing.

    Their first weights are drawn from the seed.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    torch.manual_seed(step_seed(seed, -1))
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=LINEAR)
    return LoraModel(clap.model.audio_model, config, "default")


def merge_adapters(adapters: Any) -> None:
    """Add what the adapters learnt to the weights they stand beside, in place: the model is a plain one again."""
    adapters.merge_and_unload()
