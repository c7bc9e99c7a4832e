"""Measure the cost of averaging gradients: two ranks, one core each, train HTSAT-tiny's audio encoder over gloo.

Ours is compared with torch's DistributedDataParallel, which averages while backward still runs.
"""

import statistics
import tempfile
import time
from pathlib import Path
from queue import Queue
from typing import Any, Final

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from clepdg.training import distributed

RANKS: Final = 2
WINDOWS: Final = 2  # of 10 s, a rank
STEPS: Final = 4  # the first one counts for nothing


class AudioSide(nn.Module):
    """The audio encoder of a CLAP with its projection."""

    def __init__(self, clap: Any) -> None:
        super().__init__()
        self.encoder, self.projection = clap.model.audio_model, clap.model.audio_projection

    def forward(self, log_mels: Tensor) -> Tensor:
        """Return audio features (B, D)."""
        features: Tensor = self.projection(self.encoder(input_features=log_mels).pooler_output)
        return features


def measure(folder: Path) -> dict[str, float]:
    """Return seconds of a step by `ours` and by `ddp`, and of `averaging` alone; medians."""
    context = mp.get_context("spawn")
    found = context.SimpleQueue()
    mp.spawn(_rank, (str(folder), found), nprocs=RANKS)  # type: ignore[no-untyped-call]
    figures: dict[str, float] = found.get()
    return figures


def _rank(rank: int, folder: str, found: "Queue[dict[str, float]]") -> None:
    from clepdg_tasks.host.liveness import die_with_parent
    from tests.gpu.clap import build_clap

    die_with_parent()
    torch.set_num_threads(1)
    distributed.start(rank, RANKS, "cpu", Path(folder) / "rendezvous")
    with tempfile.TemporaryDirectory() as own:
        clap = build_clap(Path(own), small=False)
    side, fe = AudioSide(clap).train(), clap.front_end
    parameters = list(side.parameters())
    log_mels = torch.randn(WINDOWS, 1, fe.frames, fe.mels, generator=torch.Generator().manual_seed(rank))
    ddp = DistributedDataParallel(side, find_unused_parameters=True)
    spent: dict[str, list[float]] = {"ours": [], "averaging": [], "ddp": []}
    for _ in range(STEPS):
        for module in (side, ddp):
            side.zero_grad(set_to_none=True)
            distributed.barrier()
            start = time.perf_counter()
            module(log_mels).square().mean().backward()
            if module is side:
                computed = time.perf_counter()
                distributed.average_gradients(parameters)
                spent["averaging"].append(time.perf_counter() - computed)
            spent["ours" if module is side else "ddp"].append(time.perf_counter() - start)
    distributed.barrier()
    if rank == 0:
        found.put({name: statistics.median(seconds[1:]) for name, seconds in spent.items()})
    distributed.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        print(measure(Path(root)))
