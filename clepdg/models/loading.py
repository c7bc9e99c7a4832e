"""Load the weights of a model folder with a class of transformers."""

from pathlib import Path
from typing import Any

import torch

from clepdg.models.files import check_pickles, is_pickled, require_weights, sha256, weight_files
from clepdg.models.pickles import read_tensors


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
