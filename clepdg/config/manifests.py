"""Folders of cards and tables: data_manifests, and the user's own folder."""

import os
from pathlib import Path
from typing import Final

from clepdg.errors import ConfigError

_INSTALLED: Final = Path(__file__).resolve().parents[1] / "data_manifests"  # where a wheel has it
CHECKOUT: Final = None if _INSTALLED.is_dir() else Path(__file__).resolve().parents[2]
MANIFESTS = CHECKOUT / "data_manifests" if CHECKOUT else _INSTALLED
OWN: Final = "CLEPDG_CARDS"  # in the environment: a folder of the user's own cards


def folders() -> tuple[Path, ...]:
    """Return the folders of cards: the user's own, then the product's.

    The user's own is CLEPDG_CARDS, or else data_manifests of the working folder.

    Raises:
        ConfigError: the folder that CLEPDG_CARDS names does not exist.
    """
    named = os.environ.get(OWN)
    if not named:
        beside = working_folder()
        return (beside, MANIFESTS) if beside else (MANIFESTS,)
    own = Path(os.path.expanduser(named)).absolute()
    if not own.is_dir():
        where = f"{OWN}, or cards in settings.toml"
        raise ConfigError("The folder of your own cards is not there.", got=own, expected="a folder", where=where)
    return own, MANIFESTS


def working_folder() -> Path | None:
    """Return the working folder's data_manifests, outside of the checkout."""
    here = Path.cwd()
    beside = here / "data_manifests"
    return beside if here != CHECKOUT and beside.is_dir() else None


def find(name: str) -> Path:
    """Return the path of a card or table, existing or not."""
    paths = [folder / name for folder in folders()]
    return next((path for path in paths if path.exists()), paths[-1])
