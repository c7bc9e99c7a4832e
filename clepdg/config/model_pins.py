"""Models that are pinned to a commit and to bytes: data_manifests/models.csv, and the user's own models.csv."""

import csv
import io
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from clepdg.config.manifests import folders
from clepdg.errors import BackboneError, ConfigError

TABLE: Final = "models.csv"  # the pins, beside the corpora's cards
LAION: Final = "laion:"  # a backbone's name that begins so is one of LAION's own checkpoints
LAION_REPOSITORY: Final = "lukewys/laion_clap"  # which the laion_clap package downloads from
ROBERTA: Final = "FacebookAI/roberta-base"
FUSION: Final = ("630k-fusion-best", "630k-audioset-fusion-best")


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A repository's commit, and (bytes, sha256) of its large files if known."""

    revision: str
    files: dict[str, tuple[int | None, str | None]] = field(default_factory=dict)


def pins() -> dict[str, Pin]:
    """Read the pins of all repositories.

    Pins in the user's own folder (CLEPDG_CARDS) override those of data_manifests/models.csv.

    Raises:
        ConfigError: a table can't be read.
    """
    found: dict[str, Pin] = {}
    for folder in reversed(folders()):
        if (folder / TABLE).is_file():
            found |= _read_pins(folder / TABLE)
    return found


@cache
def _read_pins(path: Path) -> dict[str, Pin]:
    found: dict[str, Pin] = {}
    try:
        for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))):
            pin = found.setdefault(row["repository"], Pin(revision=row["revision"]))
            if row["file"]:
                pin.files[row["file"]] = (int(row["bytes"]) if row["bytes"] else None, row["sha256"] or None)
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        expected = "columns repository, revision, file, bytes, sha256"
        raise ConfigError("The table of models can't be read.", got=error, expected=expected, where=path) from error
    return found


def repository(name: str) -> str:
    """Return the hub repository of a backbone's name."""
    return LAION_REPOSITORY if name.startswith(LAION) else name


def pinned_revision(name: str) -> str | None:
    """Return the commit that a backbone's name is pinned to, or None."""
    pin = pins().get(repository(name))
    return pin.revision if pin else None


def laion_file(name: str) -> str:
    """Return the file of a checkpoint of LAION's, "laion:630k-audioset-best".

    Raises:
        BackboneError: there is no such checkpoint, or it is a fusion model.
    """
    short = name.removeprefix(LAION).removesuffix(".pt")
    file, known = f"{short}.pt", pins()[LAION_REPOSITORY].files
    if file not in known:
        what = "A fusion model is not supported: its front end is random." if short in FUSION else "No such checkpoint."
        expected = [LAION + each.removesuffix(".pt") for each in known]
        raise BackboneError(what, got=name, expected=expected, do="for a file of your own: clep-dg import-laion")
    return file
