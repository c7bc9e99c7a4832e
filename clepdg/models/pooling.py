"""Pool the features of an utterance's windows.

Shapes: B batch, W windows of one utterance, D joint embedding.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def mean_over_windows(
    utterances: Iterable[Iterable[Tensor]], encode: Callable[[list[Tensor]], Tensor], batch_size: int = 32
) -> Tensor:
    """Return the normalised mean (B, D) of the features of windows.

    Args:
        utterances: an utterance's windows each, B in all.
        encode: encodes windows (b x (...)) as features (b, D).
        batch_size: number of windows encoded at once.
    """
    counts: list[int] = []  # of windows, by utterance

    def every_window() -> Iterator[Tensor]:
        for cut in utterances:
            counts.append(0)
            for window in cut:
                counts[-1] += 1
                yield window

    left, features = every_window(), []
    while part := list(islice(left, batch_size)):
        features.append(encode(part))
    means = [part.mean(dim=0) for part in torch.split(torch.cat(features), counts)]
    return F.normalize(torch.stack(means), dim=-1)
