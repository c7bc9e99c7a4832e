"""Low-rank adapters in CLEP's audio encoder (LoRA: Hu et al., ICLR 2022), by peft; merged at the end."""

from typing import Any

import torch

from clepdg.clap import Clap
from clepdg.training import step_seed

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
