"""Where things lie on this machine: from the environment, then var/settings.toml, then defaults below var/."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from clepdg.errors import ConfigError
from clepdg.store import Store

PROJECT = Path(__file__).resolve().parents[1]
NAMES = ("store", "tracking_url", "device", "workers", "cache_gigabytes", "checkpoint_seconds")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of one machine. They are in no key: what is computed does not depend on them.

    Attributes:
        home: folder of all state, git-ignored.
        store: address of the store of stage outputs.
        tracking_url: MLflow's address; None: SQLite and a folder below home.
        device: torch device of the training stages.
        workers: processes or threads of the data stages.
        cache_gigabytes: size of this machine's cache of a remote store.
        checkpoint_seconds: how often checkpoints go to a remote store.
    """

    home: Path
    store: str
    tracking_url: str | None
    device: str
    workers: int
    cache_gigabytes: float = 100.0
    checkpoint_seconds: float = 300.0

    def open_store(self) -> Store:
        """Open the store of stage outputs."""
        return Store.open(
            self.store,
            cache=self.home / "cache",
            cache_gigabytes=self.cache_gigabytes,
            checkpoint_seconds=self.checkpoint_seconds,
        )


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
        device=chosen["device"] or "auto",
        workers=int(workers),
        cache_gigabytes=_positive("cache_gigabytes", chosen["cache_gigabytes"], 100.0, path),
        checkpoint_seconds=_positive("checkpoint_seconds", chosen["checkpoint_seconds"], 300.0, path),
    )


def _positive(name: str, value: object, default: float, path: Path) -> float:
    try:
        number = default if value is None else float(str(value))
        if 0 < number < float("inf"):
            return number
    except ValueError:
        pass
    where = f"CLEPDG_{name.upper()}, or {path}"
    raise ConfigError(f"{name} is not a number above 0.", got=value, where=where)


def resolve_device(device: str) -> str:
    """Return the torch device that "auto" means here; imports torch."""
    if device != "auto":
        return device
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
