"""Everything that can be known before work starts: all faults in one error, each with what to do."""

import os
import re
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clepdg.config import Config
from clepdg.errors import ClepError, ConfigError, StoreError
from clepdg.store import Store
from tasks.settings import Settings

NEEDED_BYTES = 2e9  # below this a run of any size is likely to fill the disk


def check(config: Config, settings: Settings, source_checks: dict[str, Callable[[], object]]) -> None:
    """Check sources, backbone, disk and device, side by side, once each.

    Args:
        source_checks: corpus -> a function that raises where its source can't be had.

    Raises:
        ClepError: everything that is wrong, in one message.
    """
    checks: dict[str, Callable[[], object]] = {
        **{f"source {corpus}": function for corpus, function in source_checks.items()},
        "backbone": lambda: check_backbone(config),
        "state": lambda: check_home(settings),
        "store": lambda: check_store(settings.open_store()),
        "tracking": lambda: check_tracking(settings.tracking_url),
        "device": lambda: check_device(settings.device),
    }
    with ThreadPoolExecutor(8) as pool:
        results = {name: pool.submit(function) for name, function in checks.items()}
    faults = {name: error for name, future in results.items() if (error := future.exception()) is not None}
    for error in faults.values():
        if not isinstance(error, ClepError):
            raise error
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        lines = [f"{name}: {error}" for name, error in faults.items()]
        raise ClepError(f"{len(faults)} things must be mended before this can run.\n- " + "\n- ".join(lines))


def check_backbone(config: Config) -> None:
    """Raise where the backbone is neither micro, nor a folder with weights, nor to be had from the hub."""
    from clepdg.errors import BackboneError

    name = config.backbone.name
    if name == "micro":
        return
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = [f for f in ("config.json", "tokenizer.json") if not (folder / f).is_file()]
        missing += [] if list(folder.glob("*.safetensors")) else ["*.safetensors"]
        if missing:
            raise BackboneError("The backbone's folder is not whole.", got=f"no {', '.join(missing)}", where=folder)
        return
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise BackboneError(
            "There is no such folder.", got=name, do="give a folder, or a name like laion/clap-htsat-unfused"
        )
    if in_hub_cache(config):
        return
    problem = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") == "1" else unreachable("huggingface.co")
    if problem:
        raise BackboneError(
            "The backbone's weights are not here and the hub can't be reached.",
            got=problem,
            where=name,
            do="connect to the network; or download them elsewhere and give --backbone FOLDER; or use --backbone micro"
            " (a deployment's parameter backbone)",
        )


def in_hub_cache(config: Config) -> bool:
    """Return whether the hub's local cache holds the backbone's weights at its revision."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(config.backbone.name, "config.json", revision=config.backbone.revision)
    return isinstance(found, str) and bool(list(Path(found).parent.glob("*.safetensors")))


def unreachable(host: str, port: int = 443, seconds: float = 3.0) -> str | None:
    """Return why a host can't be reached within a few seconds, or None if it can (or a proxy is set to do it)."""
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return None
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return None
    except OSError as error:
        return f"{host}: {error}"


def check_tracking(url: str | None) -> None:
    """Raise where MLflow's server does not answer."""
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
            where=url,
            do="start it (make up), or run without one: remove tracking_url from var/settings.toml",
        )


def check_home(settings: Settings) -> None:
    """Raise where logs and SQLite files can't be written; a store that lies there is checked by itself."""
    if settings.open_store().root.is_relative_to(settings.home):
        return
    problem = unwritable(settings.home)
    if problem:
        do = "set CLEPDG_HOME to a folder of yours"
        raise ConfigError("The state can't be written.", got=problem, where=settings.home, do=do) from problem


def unwritable(folder: Path) -> OSError | None:
    """Return why a folder can't be written, or None if it can; it is made if need be."""
    probe = folder / f".probe-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        return error
    return None


def check_store(store: Store) -> None:
    """Raise where the store can't be written or its disk is nearly full."""
    problem = unwritable(store.root)
    if problem:
        do = "set CLEPDG_STORE to a folder of yours"
        raise StoreError("The store can't be written.", got=problem, where=store.root, do=do) from problem
    free = shutil.disk_usage(store.root).free
    if free < NEEDED_BYTES:
        raise StoreError(
            "The store's disk is nearly full.",
            got=f"{free / 1e9:.1f} GB free",
            expected=f"{NEEDED_BYTES / 1e9:.0f} GB",
            where=store.root,
        )


def check_device(device: str) -> None:
    """Raise where the device is not one that torch knows here."""
    if device in ("auto", "cpu"):
        return
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            "The device can't be used.", got=f"{device}: {str(error).splitlines()[0]}", expected="auto, cpu or cuda:N"
        ) from error
