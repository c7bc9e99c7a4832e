"""Precision and optimiser of a training on its device."""

from collections.abc import Iterable
from typing import Any

import torch

from clepdg.config.schema import ComputeConfig


def uses_bf16(compute: ComputeConfig, device: torch.device) -> bool:
    """Return whether encoders run in bfloat16 on a device.

    Other float32 products are TF32 then.
    """
    return compute.precision == "bf16" or (compute.precision == "auto" and device.type == "cuda")


def adamw(groups: Iterable[dict[str, Any]], device: torch.device) -> torch.optim.AdamW:
    """Return AdamW, on a GPU as one kernel for all parameters."""
    return torch.optim.AdamW([*groups], fused=True if device.type == "cuda" else None)
