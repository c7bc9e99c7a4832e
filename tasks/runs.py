"""What each run leaves: runs/<time>-<id>.json with its arguments, configuration, stage -> key, and outcome."""

import contextlib
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from clepdg.records import canonical, inside
from clepdg.store import Store

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
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunLog:
    """One run's file; written when it starts and after every stage, so that a killed run leaves what it reached."""

    path: PurePosixPath
    store: Store
    arguments: Arguments
    config: dict[str, Any]
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcome: str = UNENDED
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _computes: bool = False

    def write(self) -> None:
        """Write the file whole."""
        with self._lock:
            said = {
                "arguments": asdict(self.arguments),
                "config": self.config,
                "stages": dict(self.stages),
                "outcome": self.outcome,
            }
            self.store.documents.write(str(self.path), said)

    def uses(self, node_id: str, key: str, outcome: str) -> None:
        """Note at once what the run computes or reuses, so that `clep-dg gc` leaves it alone.

        Before the first stage that is computed nothing is written: a run that only reads lasts for moments.
        """
        self._computes |= outcome == RUNNING
        self.stages[node_id] = {"key": key, "outcome": outcome}
        if self._computes:
            self.write()


def start(store: Store, arguments: Arguments, config: dict[str, Any]) -> RunLog:
    """Open a new run's file."""
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}.json"
    return RunLog(path=PurePosixPath("runs", name), store=store, arguments=arguments, config=config)


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
    """Return node id -> its key in the newest run of this preset, backbone and corpora that reached it."""
    keys: dict[str, str] = {}
    for log, _ in logs(store):
        if _kind(log["config"]) != _kind(config):
            continue
        for node_id, facts in log["stages"].items():
            if facts.get("key") and facts.get("outcome") != RUNNING:
                keys.setdefault(node_id, facts["key"])
    return keys


def _kind(config: dict[str, Any]) -> str:
    backbone = config.get("backbone")
    name = backbone.get("name") if isinstance(backbone, dict) else None
    return canonical([config.get("preset"), name, sorted(map(str, config.get("corpora") or []))])


def last_arguments(store: Store) -> Arguments | None:
    """Return what the newest run was asked for."""
    for log, _ in logs(store):
        raw = log["arguments"]
        with contextlib.suppress(TypeError, KeyError):  # of another version
            tuples = {k: tuple(raw[k]) for k in ("corpora", "folds", "redo") if raw[k] is not None}
            return Arguments(**{**raw, **tuples})
    return None
