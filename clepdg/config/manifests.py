"""Folders of cards and tables: data_manifests, and the user's own folder."""

import os
from pathlib import Path
from typing import Final

from clepdg.errors import ConfigError

MANIFESTS = Path(__file__).resolve().parents[2] / "data_manifests"
OWN: Final = "CLEPDG_CARDS"  # in the environment: a folder of the user's own cards


def folders() -> tuple[Path, ...]:
    """Return the folders of cards: the user's own, then data_manifests.

    Raises:
        ConfigError: the user's own folder does not exist.
    """
    named = os.environ.get(OWN)
    if not named:
        return (MANIFESTS,)
    own = Path(os.path.expanduser(named)).absolute()
    if not own.is_dir():
        where = f"{OWN}, or cards in settings.toml"
        raise ConfigError("The folder of your own cards is not there.", got=own, expected="a folder", where=where)
    return own, MANIFESTS


def find(name: str) -> Path:
    """Return the path of a card or table, existing or not."""
    paths = [folder / name for folder in folders()]
    return next((path for path in paths if path.exists()), paths[-1])
