"""Load a backbone of any kind from its folder."""

from pathlib import Path

from clepdg.models.clap import Clap, load_clap
from clepdg.models.dual import DUAL, load_dual
from clepdg.models.micro import MICRO, load_micro


def load_model(
    folder: Path | str, *, device: str = "cpu", allow_unknown: bool = False, audio_only: bool = False
) -> Clap:
    """Load a dual backbone, a micro backbone or a CLAP from its folder.

    Args:
        allow_unknown: read pickled weights whose bytes no pin names.
        audio_only: load no text encoder: less to read, and the model can only encode audio.

    Raises:
        BackboneError: the folder is not whole.
    """
    if (Path(folder) / DUAL).is_file():
        return load_dual(Path(folder), device=device, audio_only=audio_only)
    if (Path(folder) / MICRO).is_file():
        return load_micro(Path(folder), device=device, audio_only=audio_only)
    return load_clap(folder, device=device, allow_unknown=allow_unknown, audio_only=audio_only)
