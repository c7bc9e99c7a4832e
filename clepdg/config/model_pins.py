"""Models that are pinned to a commit and to bytes: data_manifests/models.csv, and the user's own models.csv."""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from clepdg.config.manifests import folders
from clepdg.errors import BackboneError, ConfigError
from clepdg.text_files import read_rows

COLUMNS: Final = ("repository", "revision", "file", "bytes", "sha256")
TABLE: Final = "models.csv"  # the pins, beside the corpora's cards
LAION: Final = "laion:"  # a backbone's name that begins so is one of LAION's own checkpoints
LAION_REPOSITORY: Final = "lukewys/laion_clap"  # which the laion_clap package downloads from
DUAL: Final = "dual:"  # "dual:AUDIO+TEXT", each a folder or a hub name
DUAL_CONTEXT: Final = "dual-context:"  # the same, with heads that are pretrained on environments
DUALS: Final = (DUAL, DUAL_CONTEXT)
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
            for name, pin in _read_pins(folder / TABLE).items():
                before = found.get(name)
                files = before.files if before and before.revision == pin.revision else {}
                found[name] = Pin(revision=pin.revision, files={**files, **pin.files})
    return found


@cache
def _read_pins(path: Path) -> dict[str, Pin]:
    found: dict[str, Pin] = {}
    try:
        columns, rows = read_rows(path, ConfigError, "The table of models is malformed.")
    except OSError as error:
        raise ConfigError("The table of models can't be read.", got=error, expected=COLUMNS, where=path) from error
    faults = [] if tuple(columns) == COLUMNS else [f"line 1: {', '.join(columns) or 'empty'}"]
    for row in [] if faults else rows:
        name, revision, file, size, sha256 = (row[column] for column in COLUMNS)
        pin = found.setdefault(name, Pin(revision=revision))
        wrong = [
            not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name) and f"repository {name!r}",
            not re.fullmatch(r"[0-9a-f]{40}", revision) and f"revision {revision!r}, not a commit",
            pin.revision != revision and f"revision {revision!r}, another one than before",
            bool(size) and not size.isdigit() and f"bytes {size!r}",
            bool(sha256) and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256) and f"sha256 {sha256!r}",
        ]
        faults += [f"line {row.line}: {fault}" for fault in wrong if fault]
        if file:
            pin.files[file] = (int(size) if size.isdigit() else None, sha256.lower() or None)
    if faults:
        raise ConfigError("The table of models is malformed.", got=faults[:5], expected=COLUMNS, where=path)
    return found


def local_folder(name: str) -> Path | None:
    """Return the folder that a model's name is on this machine, or None."""
    try:
        folder = Path(name).expanduser()
        return folder if name and folder.is_dir() else None
    except (OSError, RuntimeError):  # too long a name, or a home of nobody
        return None


def repository(name: str) -> str:
    """Return the hub repository of a backbone's name, but dual's."""
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


def dual_parts(name: str) -> tuple[tuple[str, str | None], tuple[str, str | None]]:
    """Return (name, commit) of both encoders of "dual:AUDIO+TEXT".

    A folder has no commit; a hub name has its own ("NAME@COMMIT"), or the one that it is pinned to, or none.

    Raises:
        BackboneError: there are not two parts.
    """
    parts = name.removeprefix(DUAL_CONTEXT).removeprefix(DUAL).split("+")
    options = [part for part in parts if "," in part and local_folder(part) is None]
    if len(parts) != 2 or not all(parts) or options:
        expected = f"{DUAL}AUDIO+TEXT, each a folder or a hub name (NAME@COMMIT), with one + in all"
        do = "its settings are separate: --set clep.pooling=mean, clep.layers=last, backbone.frames=all"
        raise BackboneError(
            "A dual backbone has two encoders.", got=name, expected=expected, do=do if options else None
        )

    def part(given: str) -> tuple[str, str | None]:
        if local_folder(given) is not None:
            return given, None
        hub_name, _, commit = given.partition("@")
        return hub_name, commit or pinned_revision(hub_name)

    return part(parts[0]), part(parts[1])
