"""Load a backbone of any kind from its folder."""

from pathlib import Path

from clepdg.models.clap import Clap, load_clap
from clepdg.models.dual import DUAL, load_dual
from clepdg.models.micro import MICRO, load_micro


def load_model(folder: Path | str, *, device: str = "cpu", allow_unknown: bool = False) -> Clap:
    """Load a dual backbone, a micro backbone or a CLAP from its folder.

    Raises:
        BackboneError: the folder is not whole.
    """
    if (Path(folder) / DUAL).is_file():
        return load_dual(Path(folder), device=device)
    if (Path(folder) / MICRO).is_file():
        return load_micro(Path(folder), device=device)
    return load_clap(folder, device=device, allow_unknown=allow_unknown)
