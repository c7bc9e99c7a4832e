"""Keep on this machine the configuration that a refresh runs: what a user approved, of a run that had finished.

Like all arguments it is never read from the store, which others may write: var/arguments/ holds what this machine's
finished runs were asked for, and which of them is pinned.
"""

import contextlib
import getpass
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clepdg.errors import ConfigError, nearest
from clepdg.hashing import read_json
from clepdg_tasks.engine.last_arguments import PIN, folder, from_json, is_whole, write
from clepdg_tasks.engine.run_history import Arguments, RunLog, parameters
from clepdg_tasks.host.settings import Settings

logger = logging.getLogger("clepdg")

LATEST: Final = 5  # runs that a message lists
KEPT: Final = 50  # finished runs of a store
PIN_ONE: Final = "clep-dg pin (the last finished whole run), or clep-dg pin --run RUN"


@dataclass(frozen=True)
class Finished:
    """Run of this machine that finished.

    Attributes:
        run: its name in the store's runs/.
        config: its configuration as JSON values, defaults included.
        pinned: when and by whom it was pinned, or "".
    """

    run: str
    arguments: Arguments
    config: Mapping[str, Any]
    pinned: str = ""

    @property
    def whole(self) -> bool:
        """Return whether it computed all of its preset."""
        return is_whole(self.arguments)


def keep(settings: Settings, log: RunLog) -> None:
    """Keep what a finished run was asked for, so that it can be pinned."""
    finished = Finished(log.path.stem, log.arguments, log.config)
    try:
        _write(_runs(settings) / f"{finished.run}.json", finished)
    except OSError as error:
        logger.warning("The run's arguments can't be kept for clep-dg pin: %s", error)
    for old in sorted(_runs(settings).glob("*.json"))[:-KEPT]:
        old.unlink(missing_ok=True)


def finished_runs(settings: Settings) -> list[Finished]:
    """Return this machine's finished runs, newest first."""
    found = (_read(path) for path in sorted(_runs(settings).glob("*.json"), reverse=True))
    return [each for each in found if each is not None]


def pin(settings: Settings, run: str | None = None) -> Finished:
    """Pin the configuration of a finished run; return it.

    Args:
        run: its name; None: the last whole one.

    Raises:
        ConfigError: no such run finished on this machine, or the pin can't be written.
    """
    runs = finished_runs(settings)
    chosen = next((each for each in runs if (each.whole if run is None else each.run == run)), None)
    if chosen is None and run is not None:
        names = [each.run for each in runs]
        listed = nearest(run, names) or names[:LATEST] or "none: no run has finished on this machine"
        do = "clep-dg pin --run RUN, one of these; without --run it pins the last finished whole run"
        raise ConfigError("No run of this name finished on this machine.", got=run, expected=listed, do=do)
    if chosen is None:
        do = "run one to its end, or name one of some folds or stages: clep-dg pin --run RUN"
        raise ConfigError("No whole run has finished on this machine.", got=[r.run for r in runs] or "none", do=do)
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    chosen = Finished(chosen.run, chosen.arguments, chosen.config, f"{when} by {_user()}")
    try:
        _write(folder(settings) / PIN, chosen)
    except OSError as error:
        raise ConfigError("The pin can't be written.", got=error, where=folder(settings)) from error
    return chosen


def unpin(settings: Settings) -> bool:
    """Remove the pin; return whether there was one."""
    path = folder(settings) / PIN
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def pinned(settings: Settings) -> Finished | None:
    """Return the pinned run, or None.

    Raises:
        ConfigError: the pin is damaged, or of another version of clep-dg.
    """
    path = folder(settings) / PIN
    if not path.exists():
        return None
    found = _read(path)
    if found is None:
        raise ConfigError("The pinned configuration can't be read.", where=path, do=f"pin a run again: {PIN_ONE}")
    return found


def _runs(settings: Settings) -> Path:
    return folder(settings) / "finished"


def _user() -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):  # a container's user may have no name
        return getpass.getuser()
    return f"user {os.getuid()}"


def _write(path: Path, finished: Finished) -> None:
    content = {"run": finished.run, "pinned": finished.pinned, "arguments": parameters(finished.arguments)}
    write(path, content | {"config": finished.config})


def _read(path: Path) -> Finished | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        raw = read_json(path)
        config = raw["config"]
        if isinstance(config, dict):
            return Finished(str(raw["run"]), from_json(raw["arguments"]), config, str(raw["pinned"]))
    return None
