"""Record each run in runs/<time>-<id>.json of the store.

The file holds the run's arguments, its configuration, the key of each stage, and the outcome. Names sort in the order
of the runs, even where the clock was set back.
"""

import calendar
import contextlib
import json
import logging
import shlex
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from clepdg.errors import StoreError
from clepdg.hashing import canonical
from clepdg.store.run_files import is_run_file
from clepdg.store.store import Store
from clepdg_tasks.engine.node import DATA_STAGES

log = logging.getLogger("clepdg")

STAMP = "%Y%m%dT%H%M%S"
RUNNING = "Running"  # outcome of a stage that is being computed, or waits for that
REASON_SHOWN = 2000  # characters; larger files than RUN_BYTES of clepdg.store.documents are not read
UNFINISHED = "running"  # outcome of a run that has not ended, or was killed


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Arguments of a run, from the flow's parameters or the command line."""

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
    """Return a run's arguments as JSON values, the flow's parameters."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(arguments).items()}


def run_name(given: Mapping[str, Any], deployment: str | None = None) -> str:
    """Return a run's name, as "refresh, open" or "demo: leave-out-tess".

    Args:
        given: the flow's parameters.
        deployment: that made the run; None: a command.
    """
    part = ", ".join(given.get("folds") or given.get("corpora") or ())
    name = f"{given['preset']}: {part}" if part else str(given["preset"])
    name = f"{name}, until {given['until']}" if given.get("until") and not part else name
    return f"{deployment}, {name}" if deployment else name


def as_command(arguments: Arguments) -> str:
    """Return the command line that asks for the same run."""
    words = ["clep-dg", "run", "--preset", arguments.preset]
    for option in ("backbone", "corpora", "folds", "until"):
        if value := getattr(arguments, option):
            words += [f"--{option}", value if isinstance(value, str) else ",".join(value)]
    words += [word for corpus, place in arguments.sources.items() for word in ("--source", f"{corpus}={place}")]
    words += ["--allow-partial"] if arguments.allow_partial else []
    words += [word for name, value in arguments.overrides.items() for word in ("--set", f"{name}={as_text(value)}")]
    return shlex.join(words)


def as_text(value: object) -> str:
    """Return a setting's value as --set takes it."""
    if isinstance(value, bool | None):
        return str(value).lower()
    if isinstance(value, list | tuple) and value and not any("," in str(each) for each in value):
        return ",".join(map(as_text, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list | tuple) else str(value)


@dataclass
class RunLog:
    """File of a run, written at its start and after every stage.

    Attributes:
        part: whether it computes a part of another run, on another machine.
        notes: messages for the user beside the results of the stages.
    """

    path: PurePosixPath
    store: Store
    arguments: Arguments
    config: dict[str, Any]
    part: bool = False
    notes: tuple[str, ...] = ()
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcome: str = UNFINISHED
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _computes: bool = False

    def write(self) -> None:
        """Write the file atomically, or log a warning and keep the old one."""
        with self._lock:
            content = {
                "arguments": asdict(self.arguments),
                "config": self.config,
                "part": self.part,
                "notes": self.notes,
                "stages": {node_id: _short(facts) for node_id, facts in dict(self.stages).items()},
                "outcome": self.outcome,
            }
            try:
                self.store.documents.write(str(self.path), content)
            except StoreError as error:
                log.warning("The run's file can't be written: %s", error)

    def record_stage(self, node_id: str, key: str, outcome: str) -> None:
        """Record a stage's key at once, as `record`."""
        self.record({node_id: {"key": key, "outcome": outcome}})

    def record(self, stages: Mapping[str, dict[str, Any]]) -> None:
        """Record stages' keys at once, so that `clep-dg gc` keeps their outputs.

        Nothing is written before the first stage to compute: a run that only reuses outputs ends within moments.
        """
        told = self._computes and all(self.stages.get(node_id) == facts for node_id, facts in stages.items())
        self._computes |= any(facts["outcome"] == RUNNING for facts in stages.values())
        self.stages.update(stages)
        if self._computes and not told:
            self.write()


def _short(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's facts with a reason of a bounded length."""
    return {name: value[:REASON_SHOWN] if name == "reason" else value for name, value in facts.items()}


def deciding(store: Store) -> contextlib.AbstractContextManager[None]:
    """Hold the lock under which a run decides on outputs and records them.

    `clep-dg gc` removes each output under the same lock, so it sees every output that a run of this machine relies on.

    Raises:
        StoreError: the store can't be written.
    """
    return store.lock("runs", "decide")


def start(
    store: Store, arguments: Arguments, config: dict[str, Any], *, part: bool = False, notes: tuple[str, ...] = ()
) -> RunLog:
    """Create the record of a new run."""
    path = PurePosixPath("runs", f"{stamp(store)}-{uuid.uuid4().hex[:8]}.json")
    return RunLog(path=path, store=store, arguments=arguments, config=config, part=part, notes=notes)


def stamp(store: Store, clock: Callable[[], float] = time.time) -> str:
    """Return the time stamp of a new run, later than those of all runs before.

    Args:
        clock: returns seconds since the epoch; it may stop, or be set back.
    """
    names = (PurePosixPath(name).name for name, _, _ in store.documents.newest("runs", 5))
    before = [seconds for name in names if (seconds := _seconds(name)) is not None]
    return time.strftime(STAMP, time.gmtime(max([int(clock()), *(seconds + 1 for seconds in before)])))


def _seconds(name: str) -> int | None:
    """Return the time in a file's name, in seconds since the epoch, or None."""
    with contextlib.suppress(ValueError):
        return calendar.timegm(time.strptime(name.partition("-")[0], STAMP))
    return None


def logs(store: Store, count: int = 50) -> list[tuple[dict[str, Any], float]]:
    """Return the files of the last runs, newest first, with their times.

    Other files in the folder are skipped.
    """
    found = store.documents.newest("runs", count)
    return [(content, when) for _, content, when in found if is_run_file(content)]


def read(store: Store, name: str) -> dict[str, Any] | None:
    """Return the content of a run's file, or None if it is missing or damaged."""
    with contextlib.suppress(StoreError):
        content = store.documents.read(f"runs/{name}.json")
        return content if is_run_file(content) else None
    return None


def split_id(node_id: str) -> tuple[str, str]:
    """Return stage and name of a node, for its id in a run's file."""
    stage, _, name = node_id.partition("/")
    return stage, name


def last_keys(store: Store, config: dict[str, Any]) -> dict[str, str]:
    """Return node id -> its key in the last run that reached the node.

    The run had the same preset, backbone and corpora; for data stages, which depend on no other corpus and on no
    backbone, the same preset.
    """
    keys: dict[str, str] = {}
    for log, _ in logs(store):
        if log["config"].get("preset") != config["preset"]:
            continue
        alike = _kind(log["config"]) == _kind(config)
        for node_id, facts in log["stages"].items():
            known = facts.get("key") and facts.get("outcome") != RUNNING
            if known and (alike or split_id(node_id)[0] in DATA_STAGES):
                keys.setdefault(node_id, facts["key"])
    return keys


def _kind(config: dict[str, Any]) -> str:
    backbone = config.get("backbone")
    name = backbone.get("name") if isinstance(backbone, dict) else None
    return canonical([config.get("preset"), name, sorted(map(str, config.get("corpora") or []))])
