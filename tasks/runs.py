"""What each run leaves: runs/<time>-<id>.json with its arguments, configuration, stage -> key, and outcome."""

import json
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clepdg.store import Store, write_json


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
        """Write the file whole."""
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


def start(store: Store, arguments: Arguments, config: dict[str, Any]) -> RunLog:
    """Open a new run's file."""
    name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}.json"
    return RunLog(path=store.root / "runs" / name, arguments=arguments, config=config)


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
