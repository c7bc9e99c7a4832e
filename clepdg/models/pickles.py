"""Tensors from a pickle (.bin, .pt), and nothing else: no other object of a file is ever made.

torch.load with weights_only refuses what is no tensor, number, text or plain container. The checks around it refuse
files that would take much more memory than they have bytes.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from clepdg.errors import BackboneError

PICKLE_BYTES: Final = 4_000_000  # the most that names and shapes take; a whole training's state takes 0.5 MB
NUMPY_NUMBERS: Final = ("dtype", "core.multiarray.scalar", "_core.multiarray.scalar")


class _Nothing:
    """Stands for the numpy numbers that checkpoints keep beside the weights; numpy itself is never called."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file's tensors by name, mapped from the disk where its format allows that.

    A training's checkpoint may keep them under "state_dict".

    Raises:
        BackboneError: it is not a whole file of torch's, holds other objects than tensors and plain containers (those
            are refused before they are made), no tensors by name, or tensors that are not dense or larger than it.
    """
    names: Any = [_Nothing, *((_Nothing, f"numpy.{name}") for name in NUMPY_NUMBERS)]
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(names):
            found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except BackboneError:
        raise
    except Exception as error:  # a broken or hostile file fails in whatever way it likes
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise BackboneError(
            "The checkpoint can't be read as weights alone.",
            got=f"it asks for {named[1]}, which is no tensor" if named else "damaged, not whole, or no file of torch's",
            expected="a file of torch.save that holds tensors, numbers and text",
            where=path,
            do="download it again from where its authors publish it; never load it in another way",
        ) from None
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        got, expected = type(found).__name__, "tensors by name, as torch.save writes a model's state_dict"
        raise BackboneError("The checkpoint holds no state_dict of tensors.", got=got, expected=expected, where=path)
    _check_dense(state, path)
    return {str(name): tensor for name, tensor in state.items()}


def _check_archive(path: Path) -> None:
    """Raise where reading a file would take much more memory than it has bytes."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED or member.file_size > path.stat().st_size for member in members):
        got = "compressed, which torch.save never does"
    elif any(member.filename.endswith(".pkl") and member.file_size > PICKLE_BYTES for member in members):
        got = f"more than {PICKLE_BYTES} bytes of names and shapes"
    else:
        return
    raise BackboneError("The checkpoint is not as torch.save writes it.", got=got, where=path)


def _check_dense(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise where tensors are not plain arrays of their own: expanded, sparse, or the same bytes under many names."""
    odd = [n for n, t in state.items() if t.layout != torch.strided or t.is_meta or t.is_quantized or t.is_complex()]
    taken = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if odd or taken > path.stat().st_size:
        got = f"{odd[:3]}, not dense" if odd else f"{taken} bytes of tensors in a file of {path.stat().st_size}"
        expected = "tensors that lie in the file once each"
        raise BackboneError("The checkpoint's tensors are not dense.", got=got, expected=expected, where=path)
