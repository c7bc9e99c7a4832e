"""Check sources, models, servers, disk and devices before work starts."""

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clepdg.config.manifests import CHECKOUT
from clepdg.config.schema import Config
from clepdg.download.urls import redact
from clepdg.errors import ClepError, ConfigError, StoreError
from clepdg.store.store import Store
from clepdg_tasks.host.model_checks import check_egemaps
from clepdg_tasks.host.settings import UP, Settings, resolve_device
from clepdg_tasks.host.settings_file import DEVICES, without_password
from clepdg_tasks.host.sqlite import check_mlflow_database, mlflow_database

NEEDED_BYTES = 2e9  # with less free space even a small run is likely to fill the disk


def check(
    config: Config,
    settings: Settings,
    inputs: Mapping[str, Callable[[], object]],
    *,
    models: bool = True,
) -> None:
    """Run all checks in parallel and raise all faults in one error.

    Args:
        inputs: name -> a function that raises if this source or model is not available.
        models: whether the run includes stages after the data stages, which need a device.

    Raises:
        ClepError: at least one check failed; the message lists every fault.
    """
    checks: dict[str, Callable[[], object]] = {
        **inputs,
        "state": lambda: check_home(settings),
        "store": lambda: check_store(settings.open_store()),
        "tracking": lambda: check_tracking(settings),
    }
    if models:
        checks["egemaps"] = lambda: check_egemaps(config)
        checks["device"] = lambda: check_devices(settings.device, config.clep.ranks)
    with ThreadPoolExecutor(8) as pool:
        results = {name: pool.submit(function) for name, function in checks.items()}
    faults = dict[str, ClepError]()
    for name, future in results.items():
        error = future.exception()
        if isinstance(error, ClepError):
            faults[name] = error
        elif error is not None:
            raise error
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        children = [error.labelled(name) for name, error in faults.items()]
        raise ClepError(f"{len(faults)} things must be fixed before this can run.", children=children)


def unreachable(host: str, port: int = 443, seconds: float = 3.0) -> str | None:
    """Return why a host can't be reached, or None if it can or a proxy is set."""
    if port == 443 and (os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")):
        return None
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return None
    except OSError as error:
        return f"{host}: {error}"


def check_tracking(settings: Settings) -> None:
    """Raise if MLflow's server, or else its database, can't be used."""
    url = settings.tracking_url
    if url is None and settings.mlflow_database_url:
        check_database(settings.mlflow_database_url, "psycopg2")
    elif url is None:
        check_mlflow_database(mlflow_database(settings))
    if url is None or not url.startswith("http"):
        return
    import httpx

    try:
        answer = httpx.get(f"{url.rstrip('/')}/health", timeout=5.0)
        problem = None if answer.status_code == 200 else f"status {answer.status_code}"
    except httpx.HTTPError as error:
        problem = str(error)
    if problem:
        raise ClepError(
            "MLflow's server does not answer.",
            got=problem,
            where=redact(url),
            do=f"start it ({UP}), or run without one: no tracking_url in {settings.home / 'settings.toml'}, no "
            "CLEPDG_TRACKING_URL",
            away=True,
        )


def check_database(url: str, driver: str) -> None:
    """Raise if PostgreSQL's driver is missing or its host does not answer."""
    import importlib.util
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if importlib.util.find_spec(driver) is None:
        problem: str | None = f"no module {driver}"
        do = "install the extra postgres: " + (
            "uv pip install -e '.[postgres]'" if CHECKOUT else "pip install 'clep-dg[postgres]'"
        )
    else:
        problem = unreachable(parts.hostname, parts.port or 5432) if parts.hostname else None
        do = "start it, or correct its address in the settings"
    if problem:
        away = "no module" not in problem
        raise ClepError("A database can't be used.", got=problem, where=without_password(url), do=do, away=away)


def check_home(settings: Settings) -> None:
    """Raise if the folder of logs and SQLite files is not writable.

    A store inside it has a check of its own.
    """
    if settings.open_store().root.is_relative_to(settings.home):
        return
    problem = unwritable(settings.home)
    if problem:
        do = "set CLEPDG_HOME to a folder of yours"
        raise ConfigError(
            "The folder of logs and databases can't be written.", got=problem, where=settings.home, do=do
        ) from problem


def unwritable(folder: Path) -> OSError | None:
    """Create a folder and return why it is not writable, or None if it is."""
    probe = folder / f".probe-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return error
    return None


def check_store(store: Store) -> None:
    """Raise if the store is not writable or its disk is nearly full.

    The disk of a remote store is that of its cache.
    """
    store.probe()
    free = shutil.disk_usage(store.root).free
    if free < NEEDED_BYTES:
        raise StoreError(
            "The store's disk is nearly full.",
            got=f"{free / 1e9:.1f} GB free",
            expected=f"{NEEDED_BYTES / 1e9:.0f} GB",
            where=store.root,
        )


def check_devices(device: str, ranks: int) -> None:
    """Raise if a device is not usable, is named twice, or ranks share a GPU."""
    names = device.split(",")
    if len(set(names)) < len(names) or (len(names) > 1 and "auto" in names):
        raise ConfigError("Several devices must be named one by one.", got=device, expected="cuda:0,cuda:1")
    for name in names:
        check_device(name)
    if ranks > 1 and resolve_device(names[0]).startswith("cuda") and len(names) < ranks:
        raise ConfigError(
            "Every rank of CLEP needs a GPU of its own.",
            got=f"clep.ranks {ranks}, device {device}",
            do="name as many devices in the setting `device`, or set clep.ranks=1",
        )


def check_device(device: str) -> None:
    """Raise if torch can't use the device on this machine."""
    if device in ("auto", "cpu"):
        return
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            "The device can't be used.",
            got=f"{device}: {str(error).splitlines()[0]}",
            expected=DEVICES,
        ) from error
