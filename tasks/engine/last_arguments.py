"""Keep on this machine what its runs were asked for, which `clep-dg status` and `clep-dg run --refresh` repeat.

A store may be written by others, and arguments name the addresses to ask. So they come from var/arguments/ alone: of
each store and preset, the last whole run and the last one of some folds or until some stage.
"""

import contextlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from clepdg.hashing import digest, read_json
from clepdg_tasks.engine.run_history import Arguments, parameters
from clepdg_tasks.host.settings import Settings

log = logging.getLogger("clepdg")


def _folder(settings: Settings) -> Path:
    return settings.home / "arguments" / digest(settings.store)[:12]


def _is_whole(arguments: Arguments) -> bool:
    """Return whether a run's arguments say that all of the preset is wanted."""
    return not (arguments.until or arguments.folds)


def keep(settings: Settings, arguments: Arguments) -> None:
    """Write a run's arguments, readable for this user alone."""
    folder = _folder(settings)
    path = folder / f"{arguments.preset}{'' if _is_whole(arguments) else '.part'}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".writing", delete=False) as file:  # of mode 0600
            json.dump(parameters(arguments), file, indent=1)
        os.replace(file.name, path)
    except OSError as error:
        log.warning("The run's arguments can't be kept for --refresh: %s", error)


def last(settings: Settings, preset: str | None = None) -> Arguments | None:
    """Return the arguments of this machine's last run, or of a preset's.

    Of a preset, the last whole run comes first: another one says nothing about whether the rest is wanted.
    """
    files = [(path.stat().st_mtime_ns, path) for path in _folder(settings).glob("*.json")]
    kept = [arguments for _, path in sorted(files, reverse=True) if (arguments := _read(path)) is not None]
    if preset is not None:
        kept = sorted((each for each in kept if each.preset == preset), key=lambda each: not _is_whole(each))
    return next(iter(kept), None)


def _read(path: Path) -> Arguments | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # damaged, or written by another version
        raw: dict[str, Any] = read_json(path)
        tuples = {name: tuple(raw[name]) for name in ("corpora", "folds", "redo") if raw[name] is not None}
        return Arguments(**{**raw, **tuples, "allow_pickle_weights": False})  # each run needs that option itself
    return None
