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
from tasks.stages import DATA_STAGES

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


def parameters(arguments: Arguments) -> dict[str, Any]:
    """Return a run's arguments as the flow takes them: plain JSON values."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(arguments).items()}


@dataclass
class RunLog:
    """One run's file; written when it starts and after every stage, so that a killed run leaves what it reached.

    Attributes:
        part: whether it is a part of another run, done elsewhere; nobody asked for it by itself.
        notes: what a person should know besides what became of the stages.
    """

    path: Path
    arguments: Arguments
    config: dict[str, Any]
    part: bool = False
    notes: tuple[str, ...] = ()
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
                    "part": self.part,
                    "notes": self.notes,
                    "stages": self.stages,
                    "outcome": self.outcome,
                },
            )
        except OSError as error:
            log.warning("The run's file can't be written: %s: %s", self.path, error)


def start(
    store: Store, arguments: Arguments, config: dict[str, Any], *, part: bool = False, notes: tuple[str, ...] = ()
) -> RunLog:
    """Open a new run's file."""
    name = f"{stamp(store)}-{uuid.uuid4().hex[:8]}.json"
    return RunLog(path=store.root / "runs" / name, arguments=arguments, config=config, part=part, notes=notes)


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
    """Return node id -> its key in the newest run of this preset, backbone and corpora that reached it.

    Of the data stages, which no other corpus and no backbone has a part in, the newest run of this preset.
    """
    keys: dict[str, str] = {}
    for log in _logs(store):
        if log["config"]["preset"] != config["preset"]:
            continue
        alike = _kind(log["config"]) == _kind(config)
        for node_id, facts in log["stages"].items():
            if facts.get("key") and (alike or node_id.partition("/")[0] in DATA_STAGES):
                keys.setdefault(node_id, facts["key"])
    return keys


def _kind(config: dict[str, Any]) -> tuple[Any, ...]:
    return config["preset"], config["backbone"]["name"], sorted(config["corpora"])


def last_arguments(store: Store) -> Arguments | None:
    """Return what the newest run was asked for."""
    return next(iter(_asked(store)), None)


def last_whole(store: Store, preset: str) -> Arguments | None:
    """Return what the newest whole run of a preset was asked for, or the newest one if none went to the end.

    A run of some folds, or until some stage, does not make what it left out unwanted.
    """
    asked = [arguments for arguments in _asked(store) if arguments.preset == preset]
    return next((arguments for arguments in asked if not (arguments.until or arguments.folds)), next(iter(asked), None))


def _asked(store: Store) -> list[Arguments]:
    found = []
    for raw in (log["arguments"] for log in _logs(store) if not log.get("part")):
        tuples = {k: tuple(raw[k]) for k in ("corpora", "folds", "redo") if raw[k] is not None}
        found.append(Arguments(**{**raw, **tuples}))
    return found
