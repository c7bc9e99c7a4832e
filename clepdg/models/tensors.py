"""Save, load, check and digest tensors, in safetensors only, never pickle.

Equal tensors give equal bytes and equal digests.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clepdg.errors import BackboneError, StoreError
from clepdg.hashing import NOT_FINITE

if TYPE_CHECKING:
    import torch


def save_tensors(path: Path, tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Write tensors to a safetensors file, in name order.

    Metadata is left out, since its keys would be written in random order.
    """
    from safetensors.torch import save_file

    save_file({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}, path)


def load_tensors(path: Path, shapes: Mapping[str, tuple[str, int]] | None = None) -> dict[str, "torch.Tensor"]:
    """Read a safetensors file onto the CPU.

    Args:
        shapes: name -> (dtype, such as float32; number of dimensions) of the expected tensors; None: not checked.

    Raises:
        StoreError: the file is missing, not safetensors or damaged, or holds other tensors or values that are not
            finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        # Memory-mapped tensors are not aligned, which changes the rounding of sums; copies are.
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, MemoryError) as error:
        raise StoreError("A file of tensors can't be read.", got=error, where=path) from error
    found = {name: (str(tensor.dtype).removeprefix("torch."), tensor.dim()) for name, tensor in tensors.items()}
    if shapes is not None and found != dict(shapes):
        raise StoreError("A file of tensors holds unexpected tensors.", got=found, expected=dict(shapes), where=path)
    wrong = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if wrong:
        raise StoreError("A file of tensors holds numbers that are not finite.", got=wrong, where=path, do=NOT_FINITE)
    return tensors


def check_finite(tensors: Mapping[str, "torch.Tensor"], where: object) -> None:
    """Check that a model's weights are finite.

    Raises:
        BackboneError: tensors hold NaN or infinite values; the message names them.
    """
    wrong = [name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    if wrong:
        raise BackboneError(
            "The model's weights are not finite: they hold NaN or infinite values.",
            got=f"{len(wrong)} tensors: {', '.join(sorted(wrong)[:5])}",
            expected="finite numbers",
            where=where,
            do="download the model again; if they are still not finite, its training failed",
        )


def digest_tensors(tensors: Mapping[str, "torch.Tensor"]) -> str:
    """Return the sha256 of tensors' names, dtypes, shapes and bytes."""
    import torch

    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
