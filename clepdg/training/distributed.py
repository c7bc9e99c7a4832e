"""Data-parallel training: gather features, average gradients.

Shapes: B global batch, R ranks, D joint embedding. Every rank encodes B/R utterances and computes the loss of the whole
batch; the parameters follow the mean of the ranks' losses. With one rank, every function here does nothing.

Gradients are averaged here, not by torch's DistributedDataParallel, which reorders its buckets after its first step:
with three or more ranks, a resumed training would sum in another order than an uninterrupted one.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET_ELEMENTS: Final = 1 << 24  # 64 MB of float32, averaged in one call
TIMEOUT: Final = timedelta(minutes=10)  # then the other ranks give a rank up


def start(rank: int, ranks: int, device: str, rendezvous: Path) -> None:
    """Join the process group over the loopback interface.

    The backend is gloo on a CPU and NCCL on GPUs.

    Args:
        rendezvous: a file that the first rank creates; it must not exist before. No port is opened for it.
    """
    loopback = "lo" if sys.platform == "linux" else "lo0"
    os.environ.update(GLOO_SOCKET_IFNAME=loopback, NCCL_SOCKET_IFNAME=loopback)
    gpu = device.startswith("cuda")
    if gpu:
        torch.cuda.set_device(device)
    store = dist.FileStore(str(rendezvous), ranks)  # type: ignore[attr-defined]
    dist.init_process_group(
        "nccl" if gpu else "gloo",
        store=store,
        rank=rank,
        world_size=ranks,
        timeout=TIMEOUT,
        device_id=torch.device(device) if gpu else None,  # NCCL then connects now, not in the first step
    )


def stop() -> None:
    """Leave the process group."""
    dist.destroy_process_group()


def _initialised() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return this process's rank; rank 0 writes files and reports."""
    return dist.get_rank() if _initialised() else 0


def world_size() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if _initialised() else 1


def rank_slice(count: int) -> slice:
    """Return this rank's slice of `count` items."""
    return slice(count * rank() // world_size(), count * (rank() + 1) // world_size())


class _Gather(torch.autograd.Function):
    """Concatenate over ranks; backward sums the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        parts = [torch.empty_like(features) for _ in range(world_size())]
        dist.all_gather(parts, features.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)  # the sum over R losses; average_gradients divides by R
        return gradient[rank_slice(len(gradient))]


def gather(features: Tensor) -> Tensor:
    """Gather every rank's features (B/R, D) as (B, D), with gradients."""
    if world_size() == 1:
        return features
    gathered: Tensor = _Gather.apply(features)  # type: ignore[no-untyped-call]
    return gathered


def average_gradients(parameters: Sequence[Tensor]) -> None:
    """Replace every gradient by its mean over ranks.

    The order of summation depends on the parameters alone.
    """
    if world_size() == 1:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        flat /= world_size()
        for gradient, part in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _buckets(gradients: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket = []
        bucket.append(gradient)
    yield bucket


def gather_lists(part: list[int]) -> list[int]:
    """Concatenate the ranks' lists, in the ranks' order."""
    if world_size() == 1:
        return part
    parts: list[list[int]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, part)
    return [number for numbers in parts for number in numbers]


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()
