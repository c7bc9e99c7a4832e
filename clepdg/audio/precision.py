"""Precision of arithmetic on a device."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Let a GPU multiply float32 matrices as TF32 meanwhile, or not."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = enabled
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextlib.contextmanager
def float32_only(device_type: str) -> Iterator[None]:
    """Turn autocast and TF32 off: decibels of quiet bands need float32."""
    with torch.autocast(device_type, enabled=False), tf32(False):
        yield
