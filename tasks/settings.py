"""Where things lie on this machine: from the environment, then var/settings.toml, then defaults below var/."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clepdg.errors import ConfigError
from clepdg.pace import Pace
from clepdg.store import Store

PROJECT = Path(__file__).resolve().parents[1]
NAMES = ("store", "tracking_url", "device", "workers", "training_seconds", "checkpoint_seconds")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one machine. They are in no key: what is computed does not depend on them.

    Attributes:
        home: folder of all state, git-ignored.
        store: address of the store of stage outputs.
        tracking_url: MLflow's address; None: SQLite and a folder below home.
        device: torch device of the training stages; several, with commas: folds are trained side by side.
        workers: processes or threads of the data stages.
        training_seconds: the longest that one training may run before it is saved and fails; None: no limit.
        checkpoint_seconds: between two checkpoints of a training.
    """

    home: Path
    store: str
    tracking_url: str | None
    device: str
    workers: int
    training_seconds: float | None = None
    checkpoint_seconds: float = 60.0

    def open_store(self) -> Store:
        """Open the store of stage outputs."""
        return Store.open(self.store)

    @property
    def pace(self) -> Pace:
        """How often a training is saved, and how long it may run."""
        return Pace(checkpoint_seconds=self.checkpoint_seconds, limit_seconds=self.training_seconds)

    def lanes(self, ranks: int) -> list[str]:
        """Return the device settings of what can be trained at once, with a device for each of its ranks."""
        names = self.device.split(",")
        groups = [names[start : start + ranks] for start in range(0, len(names), ranks)]
        return [",".join(group) for group in groups if len(group) == ranks] or [self.device]


def load_settings() -> Settings:
    """Read CLEPDG_<NAME> from the environment, then var/settings.toml, then use defaults.

    Raises:
        ConfigError: an unknown name in settings.toml, or a number that is none.
    """
    home = Path(os.environ.get("CLEPDG_HOME", PROJECT / "var")).absolute()
    path = home / "settings.toml"
    try:
        written = tomllib.loads(path.read_text()) if path.exists() else {}
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("The settings can't be read.", got=error, where=path) from error
    unknown = sorted(set(written) - set(NAMES))
    if unknown:
        raise ConfigError("There is no such setting.", got=unknown, expected=NAMES, where=path)
    chosen = {name: os.environ.get(f"CLEPDG_{name.upper()}") or written.get(name) for name in NAMES}
    workers = str(os.cpu_count() or 1) if chosen["workers"] is None else str(chosen["workers"])
    if not workers.isdigit() or int(workers) < 1:
        raise ConfigError(
            "workers is not a number of processes.",
            got=workers,
            expected="1 or more",
            where=f"CLEPDG_WORKERS, or {path}",
        )
    return Settings(
        home=home,
        store=chosen["store"] or str(home / "store"),
        tracking_url=chosen["tracking_url"],
        device=str(chosen["device"] or "auto").replace(" ", ""),
        workers=int(workers),
        training_seconds=_seconds("training_seconds", chosen["training_seconds"], path),
        checkpoint_seconds=_seconds("checkpoint_seconds", chosen["checkpoint_seconds"], path, 60.0),
    )


def _seconds(name: str, value: Any, path: Path, default: Any = None) -> Any:
    if value is None:
        return default
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigError(
            f"{name} is not a time.",
            got=value,
            expected="seconds, 0 or more",
            where=f"CLEPDG_{name.upper()}, or {path}",
        )
    return seconds


def resolve_device(device: str) -> str:
    """Return the torch device that "auto" means here; imports torch."""
    if device != "auto":
        return device
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
