"""Weights between CLAP's and CLEP's (WiSE-FT: Wortsman et al., CVPR 2022)."""

import torch

from clepdg.clap import Clap


@torch.no_grad()
def interpolate(clap: Clap, clep: Clap, clap_share: float) -> None:
    """Move clep's weights in place to clap_share of clap's and the rest of its own; 0 leaves it, 1 makes it clap.

    Counters, which are no weights, stay clep's.
    """
    start = clap.model.state_dict()
    for name, tensor in clep.model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(clap_share * start[name].to(tensor.device) + (1 - clap_share) * tensor)
