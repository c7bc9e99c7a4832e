"""What each run leaves: runs/<time>-<id>.json with its arguments, configuration, stage -> key, and outcome.

The names give the order of the runs, whatever the clock does.
"""

import calendar
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from clepdg.errors import StoreError
from clepdg.hashing import canonical, inside
from clepdg.store.store import Store
from tasks.engine.node import DATA_STAGES

log = logging.getLogger("clepdg")

STAMP = "%Y%m%dT%H%M%S"
RUNNING = "Running"  # outcome of a stage that is being computed
UNENDED = "running"  # outcome of a run that has not ended, or was killed


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
    allow_pickle_weights: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)


def parameters(arguments: Arguments) -> dict[str, Any]:
    """Return a run's arguments as the flow takes them: plain JSON values."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(arguments).items()}


def run_name(given: Mapping[str, Any]) -> str:
    """Return what a run with these parameters is called: "demo, until clep"; a part, "demo: leave-out-tess"."""
    part = ", ".join(given.get("folds") or given.get("corpora") or ())
    name = f"{given['preset']}: {part}" if part else str(given["preset"])
    return f"{name}, until {given['until']}" if given.get("until") and not part else name


@dataclass
class RunLog:
    """One run's file; written when it starts and after every stage, so that a killed run leaves what it reached.

    Attributes:
        part: whether it is a part of another run, done elsewhere; nobody asked for it by itself.
        notes: what a person should know besides what became of the stages.
    """

    path: PurePosixPath
    store: Store
    arguments: Arguments
    config: dict[str, Any]
    part: bool = False
    notes: tuple[str, ...] = ()
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcome: str = UNENDED
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _computes: bool = False

    def write(self) -> None:
        """Write the file whole; where that fails the old one stays, and no stage's output is lost for it."""
        with self._lock:
            said = {
                "arguments": asdict(self.arguments),
                "config": self.config,
                "part": self.part,
                "notes": self.notes,
                "stages": dict(self.stages),
                "outcome": self.outcome,
            }
            try:
                self.store.documents.write(str(self.path), said)
            except StoreError as error:
                log.warning("The run's file can't be written: %s", error)

    def uses(self, node_id: str, key: str, outcome: str) -> None:
        """Note at once what the run computes or reuses, so that `clep-dg gc` leaves it alone.

        Before the first stage that is computed nothing is written: a run that only reads lasts for moments.
        """
        self._computes |= outcome == RUNNING
        self.stages[node_id] = {"key": key, "outcome": outcome}
        if self._computes:
            self.write()


def start(
    store: Store, arguments: Arguments, config: dict[str, Any], *, part: bool = False, notes: tuple[str, ...] = ()
) -> RunLog:
    """Open a new run's file."""
    path = PurePosixPath("runs", f"{stamp(store)}-{uuid.uuid4().hex[:8]}.json")
    return RunLog(path=path, store=store, arguments=arguments, config=config, part=part, notes=notes)


def stamp(store: Store, clock: Callable[[], float] = time.time) -> str:
    """Return the time of a new run, later than that of all runs before it: a clock may stand, or be set back.

    Args:
        clock: seconds since the epoch.
    """
    names = (PurePosixPath(name).name for name, _, _ in store.documents.newest("runs", 5))
    before = [seconds for name in names if (seconds := _seconds(name)) is not None]
    return time.strftime(STAMP, time.gmtime(max([int(clock()), *(seconds + 1 for seconds in before)])))


def _seconds(name: str) -> int | None:
    """Return the time in the name of a run's file, in seconds since the epoch; None where there is none."""
    with contextlib.suppress(ValueError):
        return calendar.timegm(time.strptime(name.partition("-")[0], STAMP))
    return None


def logs(store: Store, count: int = 50) -> list[tuple[dict[str, Any], float]]:
    """Return what the last runs left, newest first, and when; what is no run's file is passed over."""
    found = store.documents.newest("runs", count)
    return [(said, when) for _, said, when in found if _well_formed(said)]


def _well_formed(said: Any) -> bool:
    if not isinstance(said, dict):
        return False
    parts = [said.get(name) for name in ("arguments", "config", "stages")]
    nodes = said["stages"].items() if isinstance(said.get("stages"), dict) else ()
    return all(isinstance(part, dict) for part in parts) and all(
        isinstance(facts, dict) and isinstance(facts.get("key"), str | None) and inside(facts.get("key") or "-")
        for _, facts in nodes
    )


def last_keys(store: Store, config: dict[str, Any]) -> dict[str, str]:
    """Return node id -> its key in the newest run of this preset, backbone and corpora that reached it.

    Of the data stages, which no other corpus and no backbone has a part in, the newest run of this preset.
    """
    keys: dict[str, str] = {}
    for log, _ in logs(store):
        if log["config"].get("preset") != config["preset"]:
            continue
        alike = _kind(log["config"]) == _kind(config)
        for node_id, facts in log["stages"].items():
            known = facts.get("key") and facts.get("outcome") != RUNNING
            if known and (alike or node_id.partition("/")[0] in DATA_STAGES):
                keys.setdefault(node_id, facts["key"])
    return keys


def _kind(config: dict[str, Any]) -> str:
    backbone = config.get("backbone")
    name = backbone.get("name") if isinstance(backbone, dict) else None
    return canonical([config.get("preset"), name, sorted(map(str, config.get("corpora") or []))])


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
    for raw in (log["arguments"] for log, _ in logs(store) if not log.get("part")):
        with contextlib.suppress(TypeError, KeyError):  # of another version
            tuples = {k: tuple(raw[k]) for k in ("corpora", "folds", "redo") if raw[k] is not None}
            # Whoever can write a run's file must not be able to allow pickles: that is said anew each time.
            found.append(Arguments(**{**raw, **tuples, "allow_pickle_weights": False}))
    return found
