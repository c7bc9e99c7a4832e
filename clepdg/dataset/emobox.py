"""Read the published folds of EmoBox (Ma et al., Interspeech 2024): which utterance is in which part.

A fold is a folder data/<dataset>/fold_<k> of its repository with <dataset>_train_fold_<k>.jsonl, ..._test_..., and for
some ..._valid_...; a line is a JSON object with `key` and `dataset`, such as "ravdess-03-01-07-02-02-02-11". Keys are
file names with other separators; MELD's end in their part.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from clepdg.config.manifests import find
from clepdg.errors import CorpusError

FILES: Final = {"train": "train", "valid": "validation", "test": "test"}  # as EmoBox names parts -> as we do
VALIDATION: Final = 0.2  # share of the training part where a fold has no file for validation, as in EmoBox
ENDS: Final = ("train", "dev", "test")  # of MELD's keys
EXAMPLES: Final = 3


def folder_of(corpus: str, folder: str) -> Path:
    """Return a fold's folder; relative ones lie beside the corpus's card."""
    return find(f"{corpus}.toml").parent / os.path.expanduser(folder)


def read_fold(folder: Path) -> dict[str, str]:
    """Return {key: part} of a fold, with keys as `_plain` makes them.

    Raises:
        CorpusError: a file is missing or malformed, or a key is in two parts.
    """
    found: dict[str, str] = {}
    for name, part in FILES.items():
        paths = sorted(folder.glob(f"*_{name}_fold_*.jsonl"))
        if len(paths) > 1 or not paths and name != "valid":
            expected = f"one file *_{name}_fold_*.jsonl of EmoBox"
            raise CorpusError("This is no fold of EmoBox.", got=paths or "none", expected=expected, where=folder)
        for path in paths:
            for key in _keys(path):
                if found.setdefault(key, part) != part:
                    raise CorpusError("An utterance is in two parts of a fold.", got=key, where=path)
    if "validation" not in found.values():
        found |= {key: "validation" for key, part in found.items() if part == "train" and _draw(key) < VALIDATION}
    return found


def _keys(path: Path) -> Iterable[str]:
    try:
        entries = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        return [_plain(str(entry["key"]).removeprefix(f"{entry['dataset']}-")) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorpusError("A file of EmoBox can't be read.", got=repr(error), where=path) from error


def _plain(name: str) -> str:
    """Return a name in lower case, with "-" between its pieces.

    MELD's part comes first.
    """
    pieces = re.findall(r"[0-9a-z]+", name.casefold())
    return "-".join([pieces[-1], *pieces[:-1]] if pieces[-1] in ENDS and len(pieces) > 1 else pieces)


def _draw(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def parts_of(names: Iterable[str], fold: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return {name: part} of the utterances that a fold lists.

    Others are not of its protocol.

    Args:
        names: of a corpus's utterances.
        fold: of `read_fold`.

    Raises:
        CorpusError: the corpus lacks utterances that the fold lists.
    """
    own = {_plain(name): name for name in names}
    if missing := sorted({*fold} - {*own}):
        raise CorpusError(
            f"EmoBox lists {len(fold)} utterances, and {len(missing)} of them are not in the corpus.",
            got=missing[:EXAMPLES],
            expected=f"names such as {', '.join(sorted(own)[:EXAMPLES]) or 'none'}",
            where=folder,
            do="use a whole copy of the corpus, and the folder of its own dataset",
        )
    return {own[key]: part for key, part in fold.items()}
