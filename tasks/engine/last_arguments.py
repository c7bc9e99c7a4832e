"""Keep on this machine what its runs were asked for, which `clep-dg status` repeats.

A store may be written by others, and arguments name the addresses to ask. So they come from var/arguments/ alone: of
each store and preset, the last whole run and the last one of some folds or until some stage.
"""

import contextlib
import json
import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from clepdg.hashing import digest, read_json
from clepdg_tasks.engine.run_history import Arguments, parameters
from clepdg_tasks.host.settings import Settings

log = logging.getLogger("clepdg")

PIN: Final = "pinned.json"  # what a refresh runs: see pinned
BEGUN: Final = "begun.json"  # what the run was asked for that began last


def folder(settings: Settings) -> Path:
    """Return the folder of a store's arguments."""
    return settings.home / "arguments" / digest(settings.store)[:12]


def is_whole(arguments: Arguments) -> bool:
    """Return whether a run's arguments say that all of the preset is wanted."""
    return not (arguments.until or arguments.folds)


def write(path: Path, value: Any) -> None:
    """Write a JSON file, readable for this user alone.

    Raises:
        OSError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".writing", delete=False) as file:  # of mode 0600
        json.dump(value, file, indent=1)
    os.replace(file.name, path)


def keep(settings: Settings, arguments: Arguments) -> None:
    """Keep the arguments of a run that came to its end, also with failures."""
    _keep(settings, arguments, f"{arguments.preset}{'' if is_whole(arguments) else '.part'}.json")


def begin(settings: Settings, arguments: Arguments) -> None:
    """Keep the arguments of a run that begins, and may not come to its end."""
    _keep(settings, arguments, BEGUN)


def begun(settings: Settings) -> Arguments | None:
    """Return the arguments of the run that began last, if it has not ended."""
    found, before = _read(folder(settings) / BEGUN), last(settings)
    return None if before and found and replace(found, redo=()) == replace(before, redo=()) else found


def _keep(settings: Settings, arguments: Arguments, name: str) -> None:
    path = folder(settings) / name
    try:
        write(path, parameters(arguments))
    except OSError as error:
        log.warning("The run's arguments can't be kept for clep-dg status: %s", error)


def last(settings: Settings) -> Arguments | None:
    """Return the arguments of this machine's last run that came to its end."""
    files = [
        (path.stat().st_mtime_ns, path) for path in folder(settings).glob("*.json") if path.name not in (PIN, BEGUN)
    ]
    return next((arguments for _, path in sorted(files, reverse=True) if (arguments := _read(path)) is not None), None)


def _read(path: Path) -> Arguments | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # damaged, or written by another version
        return from_json(read_json(path))
    return None


def from_json(raw: dict[str, Any]) -> Arguments:
    """Return arguments that `parameters` of run_history made JSON.

    Raises:
        TypeError: they are another version's.
        KeyError: they are another version's.
    """
    tuples = {name: tuple(raw[name]) for name in ("corpora", "folds", "redo") if raw[name] is not None}
    return Arguments(**{**raw, **tuples, "allow_pickle_weights": False})  # each run needs that option itself
