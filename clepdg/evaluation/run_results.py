"""Read the predictions and cells of a run from the store, without knowing its keys."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.errors import ConfigError
from clepdg.evaluation.blocks import TEXTS
from clepdg.store.opening import open_store
from clepdg.store.readers import read_frame
from clepdg.store.run_files import is_run_file

if TYPE_CHECKING:
    import pandas as pd


def read_results(run: str, store: str | Path | None = None) -> "dict[str, pd.DataFrame]":
    """Return "predictions" and "cells" of a run, over all of its folds.

    Args:
        run: a preset, for its newest run with an evaluation, or a run's name.
        store: address of the store; None: CLEPDG_STORE, else the folder store in CLEPDG_HOME or var.

    Raises:
        ConfigError: no such run has evaluated a fold.
        StoreError: its outputs are damaged.
    """
    import pandas as pd

    home = os.environ.get("CLEPDG_HOME", "var")
    opened = open_store(
        str(store or os.environ.get("CLEPDG_STORE") or Path(home) / "store"), cache=Path(home) / "cache"
    )
    for name, said, _ in opened.documents.newest("runs", 100):
        known = is_run_file(said) and run in (Path(name).stem, said["config"].get("preset"))
        keys = _evaluations(said) if known else []
        folders = [opened.local("evaluate", key) for key in keys]
        if folders and all(folder.is_dir() for folder in folders):
            found = {
                part: pd.concat([read_frame(folder / f"{part}.parquet", ()) for folder in folders], ignore_index=True)
                for part in ("predictions", "cells")
            }
            texts = [name for name in TEXTS if name in found["predictions"]]
            return {**found, "predictions": found["predictions"].astype(dict.fromkeys(texts, "str"))}  # not categories
    raise ConfigError(
        "There is no evaluated run of that name or preset.", got=run, where=opened.url, do="clep-dg run --preset demo"
    )


def _evaluations(said: Mapping[str, Any]) -> list[str]:
    """Return the keys of a run's evaluations."""
    stages = said["stages"].items()
    return [facts["key"] for node, facts in stages if node.startswith("evaluate/") and facts.get("key")]
