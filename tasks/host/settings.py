"""Read this machine's settings.

The environment comes before settings.toml, which comes before the defaults. All state lies in one folder, home: var/
of a checkout, the user's data folder where the package was installed, or CLEPDG_HOME.
"""

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import platformdirs

from clepdg.callbacks import Checkpointing
from clepdg.config import manifests
from clepdg.config.manifests import CHECKOUT
from clepdg.download import urls
from clepdg.errors import ConfigError
from clepdg.store.opening import open_store
from clepdg.store.store import Store
from clepdg_tasks.host import settings_file
from clepdg_tasks.host.settings_file import NAMES, TIMES

_USERS: Final = Path(os.environ.get("CLEPDG_HOME") or platformdirs.user_data_path("clep-dg")).absolute()
PROJECT = CHECKOUT or _USERS  # where servers work and prefect.toml lies
PREFECT_YAML: Final = Path(__file__).resolve().parents[1] / "admin" / "prefect.yaml"  # in a checkout a link
# The command that starts the servers; a wheel has no make, and `python` may be another one's.
UP: Final = "make up" if CHECKOUT else f"{shlex.quote(sys.executable)} -m clepdg_tasks.admin.services up"
LANE_BYTES: Final = 3 << 30  # of memory for a training beside others on a CPU, besides the samples it keeps
LOCAL = ("127.0.0.1", "localhost", "::1")  # servers that no proxy stands before


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a machine, on which no results depend; they are in no key.

    Attributes:
        home: folder of all state, ignored by git.
        store: address of the store of stage outputs.
        durable: flush the files of an output to the disk before it counts as done; of a store in a folder.
        tracking_url: MLflow's address; None: SQLite and a folder below home.
        device: torch device of the training stages; where commas separate several, folds are trained in parallel.
        workers: processes or threads of the data stages.
        cache_gigabytes: size of this machine's cache of a remote store.
        upload_seconds: time between two uploads of a checkpoint to a remote store.
        training_seconds: time limit of a training, which then saves a checkpoint and fails; None: no limit.
        checkpoint_seconds: time between two checkpoints of a training.
        prefect_database_url: PostgreSQL for the Prefect server of `make up`; None: SQLite below home.
        mlflow_database_url: PostgreSQL for MLflow's runs; None: SQLite below home.
    """

    home: Path
    store: str
    tracking_url: str | None
    device: str
    workers: int
    durable: bool = True
    cache_gigabytes: float = 100.0
    upload_seconds: float = 300.0
    training_seconds: float | None = None
    checkpoint_seconds: float = 60.0
    prefect_database_url: str | None = None
    mlflow_database_url: str | None = None

    def open_store(self) -> Store:
        """Open the store of stage outputs."""
        return open_store(
            self.store,
            durable=self.durable,
            cache=self.home / "cache",
            cache_gigabytes=self.cache_gigabytes,
            upload_seconds=self.upload_seconds,
        )

    @property
    def checkpointing(self) -> Checkpointing:
        """Return the checkpoint interval and the time limit of a training."""
        return Checkpointing(checkpoint_seconds=self.checkpoint_seconds, limit_seconds=self.training_seconds)

    def lanes(self, ranks: int, threads: int) -> list[str]:
        """Return device settings for parallel trainings of `ranks` devices each.

        Args:
            threads: of a training on a CPU; with device auto and no GPU, as many folds as cores and memory allow.
        """
        names = self.device.split(",")
        if self.device == "auto" and ranks == 1 and resolve_device("auto") == "cpu":
            names = [f"cpu:{lane}" for lane in range(cpu_lanes(threads))]
        groups = [names[start : start + ranks] for start in range(0, len(names), ranks)]
        return [",".join(group) for group in groups if len(group) == ranks] or [self.device]


def load_settings() -> Settings:
    """Read the settings from CLEPDG_<NAME>, var/settings.toml or defaults.

    Mirrors, secrets and cards of settings.toml are exported to the environment, unless it sets them itself; so are
    cards of the working folder, since children work elsewhere, and that requests to this machine go through no proxy.

    Raises:
        ConfigError: settings.toml or the environment has an unknown name; settings.toml can't be read, or has a value
            of another type or a password; a number or a device is not valid, a database is not PostgreSQL, mirrors or
            secrets are malformed, or the folder of cards does not exist.
    """
    home = Path(os.environ.get("CLEPDG_HOME") or (CHECKOUT / "var" if CHECKOUT else PROJECT)).absolute()
    path = home / "settings.toml"
    written = settings_file.read(path)
    settings_file.check_addresses(written, path)
    _export("mirrors", settings_file.mirrors(written.get("mirrors"), path))
    _export("secrets", settings_file.secrets(written.get("secrets"), path))
    _export("cards", _cards(written.get("cards"), path))
    if beside := manifests.working_folder():
        os.environ.setdefault(manifests.OWN, str(beside))
    _bypass_proxy()
    urls.mirrors()
    settings_file.check_environment([name for names in urls.secrets().values() for name in names])
    manifests.folders()
    chosen = {name: os.environ.get(f"CLEPDG_{name.upper()}") or written.get(name) for name in NAMES}
    workers = str(os.cpu_count() or 1) if chosen["workers"] is None else str(chosen["workers"])
    if not re.fullmatch(r"[1-9][0-9]{0,5}", workers):
        raise ConfigError(
            "workers is not a number of processes.",
            got=workers,
            expected="1 or more",
            where=f"CLEPDG_WORKERS, or {path}",
        )
    device = (chosen["device"] or "auto").replace(" ", "")
    settings_file.check_device(device, path)
    return Settings(
        home=home,
        store=chosen["store"] or str(home / "store"),
        tracking_url=chosen["tracking_url"],
        device=device,
        workers=int(workers),
        durable=_choice("durable", chosen["durable"], path, default=True),
        training_seconds=_number("training_seconds", chosen["training_seconds"], path),
        checkpoint_seconds=_number("checkpoint_seconds", chosen["checkpoint_seconds"], path, 60.0),
        cache_gigabytes=_number("cache_gigabytes", chosen["cache_gigabytes"], path, 100.0),
        upload_seconds=_number("upload_seconds", chosen["upload_seconds"], path, 300.0),
        prefect_database_url=chosen["prefect_database_url"],
        mlflow_database_url=chosen["mlflow_database_url"],
    )


def _export(name: str, value: str) -> None:
    """Set CLEPDG_<NAME>, unless the environment sets it itself.

    CLEPDG_<NAME>_WRITTEN marks, in child processes too, a value from the file, which follows the file's changes.
    """
    variable, mark = f"CLEPDG_{name.upper()}", f"CLEPDG_{name.upper()}_WRITTEN"
    now = os.environ.get(variable)
    if now and now != os.environ.get(mark):
        return
    for each in (variable, mark):
        if value:
            os.environ[each] = value
        else:
            os.environ.pop(each, None)


def _cards(folder: str | None, path: Path) -> str:
    """Return the folder of the user's cards, relative to the settings' folder."""
    return str((path.parent / os.path.expanduser(folder)).absolute()) if folder else ""


def _bypass_proxy() -> None:
    """Have HTTP clients ask servers of this machine directly."""
    for name in ("NO_PROXY", "no_proxy"):  # clients prefer one or the other
        listed = [host.strip() for host in os.environ.get(name, os.environ.get("NO_PROXY", "")).split(",")]
        if "*" not in listed:
            os.environ[name] = ",".join(dict.fromkeys([*filter(None, listed), *LOCAL]))


def _choice(name: str, value: Any, path: Path, *, default: bool) -> bool:
    choices = {"none": default, "true": True, "false": False}
    if (word := str(value).lower()) not in choices:
        where = f"CLEPDG_{name.upper()}, or {path}"
        raise ConfigError(f"{name} is neither true nor false.", got=value, expected="true or false", where=where)
    return choices[word]


def _number(name: str, value: Any, path: Path, default: Any = None) -> Any:
    if value is None:
        return default
    try:
        number = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ConfigError(
            f"{name} is not a {'time' if name in TIMES else 'size'}.",
            got=value,
            expected=f"{name.rpartition('_')[2]}, 0 or more",
            where=f"CLEPDG_{name.upper()}, or {path}",
        )
    return number


def cpu_lanes(threads: int) -> int:
    """Return how many trainings this machine runs at once.

    Limits of a container count.

    Args:
        threads: of each training.
    """
    import psutil
    from joblib import cpu_count

    from clepdg.dataset.kept import memory_bytes
    from clepdg.method.inputs.batch_audio import sample_bytes

    memory = min(psutil.virtual_memory().available, memory_bytes())
    return max(1, min(int(cpu_count()) // threads, memory // (LANE_BYTES + sample_bytes())))


def resolve_device(device: str) -> str:
    """Return the torch device that "auto" means on this machine."""
    if device != "auto":
        return device
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
