"""What each run leaves: runs/<time>-<id>.json with its arguments, configuration, stage -> key, and outcome.

The names give the order of the runs, whatever the clock does.
"""

import calendar
import contextlib
import json
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clepdg.store import Store, write_json

log = logging.getLogger("clepdg")

STAMP = "%Y%m%dT%H%M%S"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a run was asked for; the flow's parameters and the command line's options."""

    preset: str = "open"
    backbone: str | None = None
    corpora: tuple[str, ...] | None = None
    sources: dict[str, str] = field(default_factory=dict)
    folds: tuple[str, ...] | None = None
    until: str | None = None
    redo: tuple[str, ...] = ()
    allow_partial: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunLog:
    """One run's file; written when it starts and after every stage, so that a killed run leaves what it reached."""

    path: Path
    arguments: Arguments
    config: dict[str, Any]
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcome: str = "running"

    def write(self) -> None:
        """Write the file whole; where the disk is full the old one stays, and no stage's output is lost for it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(
                self.path,
                {
                    "arguments": asdict(self.arguments),
                    "config": self.config,
                    "stages": self.stages,
                    "outcome": self.outcome,
                },
            )
        except OSError as error:
            log.warning("The run's file can't be written: %s: %s", self.path, error)


def start(store: Store, arguments: Arguments, config: dict[str, Any]) -> RunLog:
    """Open a new run's file."""
    name = f"{stamp(store)}-{uuid.uuid4().hex[:8]}.json"
    return RunLog(path=store.root / "runs" / name, arguments=arguments, config=config)


def stamp(store: Store, clock: Callable[[], float] = time.time) -> str:
    """Return the time of a new run, later than that of all runs before it: a clock may stand, or be set back.

    Args:
        clock: seconds since the epoch.
    """
    before = [seconds for path in (store.root / "runs").glob("*.json") if (seconds := _seconds(path.name)) is not None]
    return time.strftime(STAMP, time.gmtime(max([int(clock()), *(seconds + 1 for seconds in before)])))


def _seconds(name: str) -> int | None:
    """Return the time in the name of a run's file, in seconds since the epoch; None where there is none."""
    with contextlib.suppress(ValueError):
        return calendar.timegm(time.strptime(name.partition("-")[0], STAMP))
    return None


def _logs(store: Store) -> list[dict[str, Any]]:
    """Return what the runs left, newest first; a file that can't be read is passed over."""
    found = []
    for path in sorted((store.root / "runs").glob("*.json"), reverse=True)[:50]:
        try:
            found.append(json.loads(path.read_text()))
        except (OSError, ValueError):
            continue
    return found


def last_keys(store: Store, config: dict[str, Any]) -> dict[str, str]:
    """Return node id -> its key in the newest run of this preset, backbone and corpora that reached it."""
    keys: dict[str, str] = {}
    for log in _logs(store):
        if _kind(log["config"]) != _kind(config):
            continue
        for node_id, facts in log["stages"].items():
            if facts.get("key"):
                keys.setdefault(node_id, facts["key"])
    return keys


def _kind(config: dict[str, Any]) -> tuple[Any, ...]:
    return config["preset"], config["backbone"]["name"], sorted(config["corpora"])


def last_arguments(store: Store) -> Arguments | None:
    """Return what the newest run was asked for."""
    for log in _logs(store):
        raw = log["arguments"]
        tuples = {k: tuple(raw[k]) for k in ("corpora", "folds", "redo") if raw[k] is not None}
        return Arguments(**{**raw, **tuples})
    return None
