"""Choose a model's files; check pickled weights.

Weights in safetensors are preferred. Of pickled weights only the tensors are read (clepdg.models.pickles), and only if
their sha256 is known or the user allows it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from clepdg.config.model_pins import pins
from clepdg.errors import BackboneError

SAFE: Final = ("model.safetensors", "model.safetensors.index.json")
PICKLED: Final = ("pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZER: Final = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # either of them
FRONT_END: Final = (("preprocessor_config.json",),)
ALLOW: Final = "--allow-pickle-weights (a deployment's parameter allow_pickle_weights)"

Choose = Callable[[Collection[str]], list[str]]  # names of a repository's files -> the chosen ones, weights last


def model_files(beside: tuple[tuple[str, ...], ...]) -> Choose:
    """Return a function that chooses a model's files, weights last.

    Args:
        beside: sets of files, such as TOKENIZER, of which one must be complete.
    """

    def choose(names: Collection[str]) -> list[str]:
        here = {name for name in names if "/" not in name}
        main = next((name for name in (*SAFE, *PICKLED) if name in here), None)
        missing = [] if "config.json" in here else ["config.json"]
        missing += [] if any(here.issuperset(each) for each in beside) else [" and ".join(beside[0])]
        if missing or main is None:
            missing += [] if main else ["weights (model.safetensors or pytorch_model.bin, whole or in parts)"]
            raise BackboneError("The model is incomplete.", got=f"no {', no '.join(missing)}")
        small = sorted(name for name in here if name.endswith((".json", ".txt")) and name not in (*SAFE, *PICKLED))
        if not main.endswith(".json"):
            return [*small, main]
        stem, _, suffix = main.removesuffix(".index.json").rpartition(".")
        return [*small, main, *sorted(n for n in here if re.fullmatch(rf"{re.escape(stem)}-.*\.{suffix}", n))]

    return choose


def file_named(name: str) -> Choose:
    """Return a function that chooses the file of this name."""

    def choose(names: Collection[str]) -> list[str]:
        if name not in names:
            raise BackboneError("The repository does not hold the file.", got=f"no {name}")
        return [name]

    return choose


def tokenizer_files(names: Collection[str]) -> list[str]:
    """Choose a tokenizer's files."""
    found = [name for name in ("tokenizer_config.json", *(n for each in TOKENIZER for n in each)) if name in names]
    if not any(set(each) <= set(found) for each in TOKENIZER):
        raise BackboneError("The repository holds no tokenizer.", got=f"no {', no '.join(TOKENIZER[0])}")
    return found


def weight_files(folder: Path) -> list[str]:
    """Return the names of a folder's weight files.

    Safetensors are preferred to pickles.

    Raises:
        BackboneError: there are none, or an index names files that are missing or outside the folder.
    """
    names = {path.name for path in folder.iterdir() if path.is_file()}
    main = next((name for name in (*SAFE, *PICKLED) if name in names), None)
    if main is None:
        expected = "model.safetensors or pytorch_model.bin, whole or in parts with their index"
        raise BackboneError("The model's folder holds no weights.", expected=expected, where=folder)
    if not main.endswith(".json"):
        return [main]
    suffix = f".{main.removesuffix('.index.json').rpartition('.')[2]}"
    try:
        parts = sorted(set(json.loads((folder / main).read_text())["weight_map"].values()))
        wrong = [part for part in parts if part not in names or not part.endswith(suffix)] if parts else ["no part"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackboneError("The index of the weights can't be read.", got=error, where=folder / main) from error
    if wrong:
        raise BackboneError("Parts of the weights are missing.", got=wrong[:3], expected=main, where=folder)
    return parts


def is_pickled(files: Collection[str]) -> bool:
    """Return whether weight files are pickles."""
    return any(name.endswith((".bin", ".pt")) for name in files)


def check_pickles(where: object, sums: Collection[str | None], *, allow: bool) -> None:
    """Check that pickled weights are known or allowed by the user.

    Known weights are those with the sha256 of a pinned model.

    Raises:
        BackboneError: they are neither.
    """
    known = {sha256 for pin in pins().values() for _, sha256 in pin.files.values()} - {None}
    if not allow and not set(sums) <= known:
        raise BackboneError(
            "The weights are a pickle (.bin) that is not in the list of known models.",
            got=[f"sha256 {each}" for each in sums if each not in known],
            expected="safetensors, or the published file of a known model",
            where=where,
            do=f"if you trust its author, add {ALLOW}. Only tensors are read (torch's weights_only), and files with "
            "other objects are refused; a flaw in that reader could still let a hostile file run code",
        )


def require_weights(path: Path) -> None:
    """Reject what servers send in place of weights.

    Raises:
        BackboneError: the file is a git LFS pointer or a web page.
    """
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    kinds = {b"version https://git-lfs": "a git LFS pointer", b"<": "a web page"}
    for begins, kind in kinds.items():
        if start.startswith(begins):
            do = "run git lfs pull in the clone, or download the file itself"
            raise BackboneError("A file of weights is not weights.", got=kind, where=path, do=do)


def sha256(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


CLAP_FILES: Final = model_files(TOKENIZER)
ENCODER_FILES: Final = model_files(FRONT_END)
TEXT_FILES: Final = model_files(TOKENIZER)
