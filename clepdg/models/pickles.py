"""Read tensors, and nothing else, from pickled weights (.bin, .pt).

torch.load with weights_only refuses everything but tensors, numbers, text and plain containers. The checks around it
refuse files that would take much more memory than their size.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from clepdg.errors import BackboneError

PICKLE_BYTES: Final = 4_000_000  # the limit of names and shapes; a full training state takes 0.5 MB
NUMPY_NUMBERS: Final = ("dtype", "core.multiarray.scalar", "_core.multiarray.scalar")


class _Nothing:
    """Replaces numpy numbers in checkpoints; numpy is never called."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file's tensors by name, memory-mapped where the format allows it.

    A training checkpoint may hold them under "state_dict".

    Raises:
        BackboneError: the file is damaged or not of torch, holds other objects than tensors and plain containers (they
            are refused before they are created), holds no tensors by name, or tensors that are not dense or larger than
            the file.
    """
    names: Any = [_Nothing, *((_Nothing, f"numpy.{name}") for name in NUMPY_NUMBERS)]
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(names):
            found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except BackboneError:
        raise
    except Exception as error:  # broken or hostile files fail in many ways
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise BackboneError(
            "The checkpoint can't be read as weights only.",
            got=f"it holds {named[1]}, which is no tensor" if named else "damaged, incomplete, or not a file of torch",
            expected="a file of torch.save that holds tensors, numbers and text",
            where=path,
            do="download it again from its authors' site; never load it in another way",
        ) from None
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        got, expected = type(found).__name__, "tensors by name, as torch.save writes a model's state_dict"
        raise BackboneError("The checkpoint holds no state_dict of tensors.", got=got, expected=expected, where=path)
    _check_dense(state, path)
    return {str(name): tensor for name, tensor in state.items()}


def _check_archive(path: Path) -> None:
    """Refuse files whose reading would take much more memory than their size."""
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
    raise BackboneError("The checkpoint is not a file of torch.save.", got=got, where=path)


def _check_dense(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are expanded, sparse, or share their bytes."""
    odd = [n for n, t in state.items() if t.layout != torch.strided or t.is_meta or t.is_quantized or t.is_complex()]
    taken = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if odd or taken > path.stat().st_size:
        got = f"{odd[:3]}, not dense" if odd else f"{taken} bytes of tensors in a file of {path.stat().st_size}"
        expected = "tensors that lie in the file once each"
        raise BackboneError("The checkpoint's tensors are not dense.", got=got, expected=expected, where=path)
