"""Everything that can be known before work starts: all faults in one error, each with what to do."""

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clepdg import prompts
from clepdg.config.model_pins import LAION, ROBERTA, laion_file, pinned_revision, repository
from clepdg.config.rows import EGEMAPS
from clepdg.config.schema import MADE_HERE, Config
from clepdg.download.urls import shown
from clepdg.errors import BackboneError, ClepError, ConfigError, StoreError
from clepdg.models.files import (
    CLAP_FILES,
    ENCODER_FILES,
    Choose,
    check_pickles,
    file_named,
    is_pickled,
    sha256,
    tokenizer_files,
    weight_files,
)
from clepdg.store.store import Store
from tasks.host.settings import Settings, resolve_device, without_password

NEEDED_BYTES = 2e9  # below this a run of any size is likely to fill the disk


def check(
    config: Config,
    settings: Settings,
    inputs: Mapping[str, Callable[[], object]],
    *,
    models: bool = True,
) -> None:
    """Check sources, models, disk and device, side by side, once each.

    Args:
        inputs: name -> a function that raises where this source or model can't be had.
        models: whether the run goes beyond the data stages, and so needs a device.

    Raises:
        ClepError: everything that is wrong, in one message.
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
    faults = {name: error for name, future in results.items() if (error := future.exception()) is not None}
    for error in faults.values():
        if not isinstance(error, ClepError):
            raise error
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        lines = [f"{name}: {error}" for name, error in faults.items()]
        raise ClepError(f"{len(faults)} things must be mended before this can run.\n- " + "\n- ".join(lines))


def check_backbone(config: Config, *, allow_unknown: bool = False) -> None:
    """Raise where the backbone can't be had, or a prompt holds words that it does not know."""
    name, revision = config.backbone.name, config.backbone.revision
    if name in MADE_HERE:
        check_words(config)
    elif name.startswith(LAION):
        from clepdg.download import hub

        hub.check(repository(name), revision, file_named(laion_file(name)))
        hub.check(ROBERTA, pinned_revision(ROBERTA), tokenizer_files)
    else:
        check_model(name, revision, CLAP_FILES, allow_unknown)


def check_words(config: Config) -> None:
    """Raise where a text is set that holds words which the fixed word list of a backbone made here does not."""
    known = {*prompts.vocabulary(), "{emotion}", "{context}"}
    texts = {
        "clep.templates": config.clep.templates,
        "acpt.content_template": (config.acpt.content_template,),
        "acpt.context_template": (config.acpt.context_template,),
        "acpt.joint_template": (config.acpt.joint_template,),
        "text.content_templates": config.text.content_templates,
        "text.handwritten_contexts": config.text.handwritten_contexts,
        "text.nonacoustic_contexts": config.text.nonacoustic_contexts,
    }
    for setting, chosen in texts.items():
        if unknown := prompts.unknown_words(chosen, known):
            raise ConfigError(
                "A prompt holds words that this backbone does not know.",
                got=unknown,
                where=setting,
                do="use words of clepdg/prompts.py, or a backbone that was pretrained on text",
            )


def check_encoder(config: Config, *, allow_unknown: bool = False) -> None:
    """Raise where the speech encoder is set and can't be had."""
    if config.encoder.name is not None:
        check_model(config.encoder.name, config.encoder.revision, ENCODER_FILES, allow_unknown)


def check_egemaps(config: Config) -> None:
    """Raise where row egemaps is asked for and openSMILE is not installed."""
    from clepdg.models import egemaps

    if EGEMAPS in (config.rows or ()):
        egemaps.require()


def check_model(name: str, revision: str | None, choose: Choose, allow_unknown: bool) -> None:
    """Raise where a model is neither a whole folder nor to be had from the hub at its commit.

    Raises:
        BackboneError: it is not, or its weights are a pickle that is neither known nor allowed.
    """
    from clepdg.download import hub

    folder = Path(name).expanduser()
    if not folder.is_dir():
        hub.check(name, revision, choose, allow_unknown=allow_unknown)
        return
    try:
        choose({path.name for path in folder.iterdir()})
    except BackboneError as error:
        raise BackboneError("The model's folder can't be used.", got=error, where=folder) from None
    files = weight_files(folder)
    if is_pickled(files) and not allow_unknown:
        check_pickles(folder, [sha256(folder / file) for file in files], allow=False)


def unreachable(host: str, port: int = 443, seconds: float = 3.0) -> str | None:
    """Return why a host can't be reached within a few seconds, or None if it can (or a proxy is set to do it)."""
    if port == 443 and (os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")):
        return None
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return None
    except OSError as error:
        return f"{host}: {error}"


def check_tracking(settings: Settings) -> None:
    """Raise where MLflow's server, or the PostgreSQL that is used without one, does not answer."""
    url = settings.tracking_url
    if url is None and settings.mlflow_database_url:
        check_database(settings.mlflow_database_url, "psycopg2")
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
            where=shown(url),
            do="start it (make up), or run without one: no tracking_url in var/settings.toml, no CLEPDG_TRACKING_URL",
        )


def check_database(url: str, driver: str) -> None:
    """Raise where the driver for a PostgreSQL is not installed, or its host does not answer."""
    import importlib.util
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    if importlib.util.find_spec(driver) is None:
        problem: str | None = f"no module {driver}"
        do = "install the extra postgres, in the checkout: uv pip install -e '.[postgres]'"
    else:
        problem = unreachable(parts.hostname, parts.port or 5432) if parts.hostname else None
        do = "start it, or look whether its address in the settings is right"
    if problem:
        raise ClepError("A database can't be used.", got=problem, where=without_password(url), do=do)


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
    """Raise where the store can't be reached or written, or its disk (of a remote one, its cache's) is nearly full."""
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
    """Raise where a device is not one that torch knows here, is named twice, or ranks would have to share a GPU."""
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
    """Raise where the device is not one that torch knows here."""
    if device in ("auto", "cpu"):
        return
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            "The device can't be used.",
            got=f"{device}: {str(error).splitlines()[0]}",
            expected="auto, cpu, cuda:N, or several with commas",
        ) from error
