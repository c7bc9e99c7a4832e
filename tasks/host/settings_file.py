"""Read settings.toml, and check the types of its values; no password may stand in it."""

import os
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from clepdg import redaction
from clepdg.download import urls
from clepdg.errors import ConfigError, unknown_name

DATABASES = ("prefect_database_url", "mlflow_database_url")
TIMES = ("training_seconds", "checkpoint_seconds", "upload_seconds")
EXPORTED = ("mirrors", "secrets", "cards")  # read by clepdg from the environment, which children inherit
TEXTS = ("store", "tracking_url", "device", *DATABASES, "cards")
TRACKING = (
    r"https?://([^/?#@]*(:.*)?@)?([\w.-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?([/?#]|$)"
    r"|sqlite(\+pysqlite)?:///(/|file:)|(postgresql|mysql|mssql)(\+\w+)?://|databricks\b"
)
DEVICES = "auto, cpu, cuda:N, or several with commas"
_DEVICE = r"auto|(cpu|cuda|mps|xpu)(:\d+)?"
NAMES = ("store", "durable", "cache_gigabytes", "tracking_url", "device", "workers", *TIMES, *DATABASES, *EXPORTED)

VARIABLES = (  # of the environment; *_WRITTEN and SERVICE are set by clep-dg itself
    *("HOME", "SERVING_AUDIO", "SERVICE", *(name.upper() for name in NAMES)),
    *(f"{name.upper()}_WRITTEN" for name in EXPORTED),
)
_OF_A_CLUSTER = r"\w+_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"  # Kubernetes sets them itself


def check_environment(secrets: Collection[str] = ()) -> None:
    """Raise where a variable CLEPDG_<NAME> is none that clep-dg reads.

    Args:
        secrets: variables that the user's addresses may name.

    Raises:
        ConfigError: there are such variables; the nearest names are in it.
    """
    known = [f"CLEPDG_{name}" for name in VARIABLES]
    given = (name for name in os.environ if name.upper().startswith("CLEPDG_"))
    odd = sorted(name for name in given if name not in known and name not in secrets)
    odd = [name for name in odd if not re.fullmatch(_OF_A_CLUSTER, name)]
    if odd:
        listed = "docs/reference.md#settings-of-a-machine"
        shown = [name for name in known if not name.endswith(("_WRITTEN", "_SERVICE"))]
        raise unknown_name("setting", odd, shown, listed, where="the environment")


def check_device(device: str, path: Path) -> None:
    """Raise where a text names no device; the machine may lack it."""
    if not all(re.fullmatch(_DEVICE, name) for name in device.split(",")):
        where = f"CLEPDG_DEVICE, or {path}"
        raise ConfigError("device is no device.", got=device, expected=DEVICES, where=where)


def read(path: Path) -> dict[str, Any]:
    """Return the names and values of settings.toml; {} where there is none.

    Raises:
        ConfigError: it can't be read, or has an unknown name or a value of another type; all of them in one error.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a file")
        written = tomllib.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError("The settings can't be read.", got=error, where=path, do="correct the file") from error
    unknown = sorted(set(written) - set(NAMES))
    if unknown:
        raise unknown_name("setting", unknown, NAMES, "docs/reference.md#settings-of-a-machine", where=path)
    odd = [name for name in TEXTS if not _is_text(written.get(name, ""))]
    if odd:
        expected = [f'{name} = "TEXT"' for name in odd]
        raise ConfigError("A setting is not a text.", got=odd, expected=expected, where=path)
    return written


def _is_text(value: object) -> bool:
    return isinstance(value, str) and (value.isprintable() or value == "")


def check_addresses(written: dict[str, Any], path: Path) -> None:
    """Raise where a file holds a password, or an address is not PostgreSQL's."""
    for name in ("store", "tracking_url", *DATABASES):
        kept = written.get(name, "")
        if redaction.holds_secret(kept) or (name in DATABASES and kept != without_password(kept)):
            variable = "PGPASSWORD" if name in DATABASES else "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            raise ConfigError(
                "The settings file holds a password.",
                where=f"{name} in {path}",
                do="remove it from the file"
                + (f" and set {variable}; or set CLEPDG_{name.upper()} in the environment" if name != "store" else ""),
            )
    tracking = os.environ.get("CLEPDG_TRACKING_URL") or written.get("tracking_url", "")
    if tracking and not re.match(TRACKING, tracking):
        raise ConfigError(
            "MLflow's address is not valid.",
            got=urls.redact(tracking),
            expected="http://HOST:PORT, sqlite:////ABSOLUTE/PATH, postgresql://USER@HOST:PORT/DATABASE or databricks",
            where=f"CLEPDG_TRACKING_URL, or tracking_url in {path}",
        )
    for name in DATABASES:
        url = os.environ.get(f"CLEPDG_{name.upper()}") or written.get(name, "")
        if url and not re.match(r"postgresql://([^/?]*@)?[^/?]*/[^/?]+", url):
            raise ConfigError(
                "A database's address is not valid.",
                got=without_password(url),
                expected="postgresql://USER@HOST:PORT/DATABASE",
                where=name,
            )


def mirrors(table: Any, path: Path) -> str:
    """Return the table [mirrors] in the format of CLEPDG_MIRRORS."""
    entries = table.items() if isinstance(table, dict) else [("", table)] if table is not None else []
    for prefix, mirror in entries:
        if not isinstance(mirror, str) or not isinstance(table, dict) or set("=,") & {*prefix, *mirror}:
            raise ConfigError(
                "The mirrors can't be used.",
                got=urls.redact(prefix) or "no table",  # a mirror may hold a password
                expected='a table: "https://site" = "https://mirror/site", without = and , in the addresses',
                where=f"[mirrors] in {path}",
            )
    return ",".join(f"{prefix}={mirror}" for prefix, mirror in entries)


def secrets(table: Any, path: Path) -> str:
    """Return the table [secrets] in the format of CLEPDG_SECRETS."""
    entries = table.items() if isinstance(table, dict) else [("", table)] if table is not None else []
    for site, names in entries:
        listed = isinstance(names, list) and all(isinstance(name, str) and name.isidentifier() for name in names)
        if not (listed and names) or not isinstance(table, dict) or set("=,") & {*site}:
            raise ConfigError(
                "The secrets can't be used.",
                got=urls.redact(site) or "no table",
                expected='a table: "https://host" = ["NAME", "NAME"], environment variables that the server may have',
                where=f"[secrets] in {path}",
            )
    return ",".join(f"{site}={' '.join(names)}" for site, names in entries)


def without_password(url: str) -> str:
    """Return a database's address without its password and options."""
    return re.sub(r"(://[^:@/?]*):(?!\d*(?:[/?#]|$)).*@", r"\1@", url).partition("?")[0]
