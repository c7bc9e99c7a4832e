"""Load the weights of a model folder with a class of transformers."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from clepdg.errors import BackboneError, ClepError
from clepdg.models.files import check_pickles, is_pickled, require_weights, sha256, weight_files
from clepdg.models.pickles import read_tensors
from clepdg.models.tensors import check_finite


def load_weights(folder: Path, *, allow_unknown: bool, kind: str = "ClapModel") -> tuple[Any, dict[str, Any]]:
    """Load a folder's model; return it and transformers' loading information.

    Args:
        allow_unknown: read pickled weights even if their sha256 is not in the list of known models.
        kind: the name of a model class of transformers.

    Raises:
        BackboneError: there are no weights, or they are an unknown pickle.
    """
    import transformers

    files, model_class = weight_files(folder), getattr(transformers, kind)
    for file in files:
        require_weights(folder / file)
    if is_pickled(files):
        check_pickles(folder, [] if allow_unknown else [sha256(folder / name) for name in files], allow=allow_unknown)
        state = {name: tensor for file in files for name, tensor in read_tensors(folder / file).items()}
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if not hasattr(model_class, "config_class") or model_class.config_class is None:  # an Auto class
            model_class = model_class._model_mapping[type(config)]
        loaded = model_class.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, dtype=torch.float32
        )
    else:
        loaded = model_class.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, dtype=torch.float32, trust_remote_code=False
        )
    model, info = loaded
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()  # memory-mapped tensors are not aligned, which changes the rounding of sums
    return model, info


@contextmanager
def explain_load_errors(model: str, expected: str, where: str) -> Iterator[None]:
    """Raise a BackboneError where a broken folder makes transformers fail.

    Args:
        model: what is loaded: "backbone".
        expected: what the folder should hold.
    """
    try:
        yield
    except ClepError:
        raise
    except Exception as error:  # a broken folder fails in whatever way it likes
        got = " ".join(str(error).split())[:400]
        raise BackboneError(f"The {model} can't be loaded.", got=got, expected=expected, where=where) from error


def check_weights(loaded: Any, missing: Collection[str], model: str, where: str) -> None:
    """Raise a BackboneError where weights are missing or not finite.

    Args:
        missing: names of tensors that the folder lacks.
        model: what was loaded: "backbone".
    """
    if missing:
        got = f"{len(missing)} tensors missing, for example {sorted(missing)[:3]}"
        raise BackboneError(f"The {model}'s weights are incomplete.", got=got, where=where)
    check_finite(loaded.state_dict(), where)
