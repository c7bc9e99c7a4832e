"""Access object stores through fsspec: s3://, hf://, sftp:// and others."""

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from clepdg.corpora.cards import Card
from clepdg.download.urls import expand, manual_download, redact_with_mirror, source_option
from clepdg.errors import SourceError

CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 30.0
CREDENTIALS: Final = (
    "set the credentials of the store in the environment (s3://: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"
    " AWS_PROFILE; gs://: GOOGLE_APPLICATION_CREDENTIALS)"
)


def inspect(card: Card, url: str) -> dict[str, Any]:
    """Return version and bytes of an object, or {"folder": True}.

    Raises:
        SourceError: the store can't be reached, or holds no such object.
    """
    with translate_errors(card, url):
        fs, path = file_system(url)
        if fs.isdir(path):
            return {"folder": True}
        facts = fs.info(path)
    return {"version": version(facts), "bytes": facts.get("size")}


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address and the path in it.

    No listing is cached.
    """
    import fsspec

    options: dict[str, Any] = {"skip_instance_cache": True}
    asked = expand(url)
    if asked.startswith("s3://"):  # botocore's own timeouts are minutes
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENCE_SECONDS,
            "retries": {"max_attempts": 2, "mode": "standard"},
        }
    fs, path = fsspec.core.url_to_fs(asked, **options)
    return fs, str(path)


def version(facts: dict[str, Any]) -> str:
    """Return the version of an object: its ETag, or else its time."""
    names = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "last_modified", "created")
    return next((str(facts[name]) for name in names if facts.get(name)), "")


@contextlib.contextmanager
def translate_errors(card: Card, url: str) -> Iterator[None]:
    """Turn errors of fsspec and its back ends into SourceError."""
    try:
        yield
    except (FileNotFoundError, PermissionError, ImportError, ValueError) as error:
        do = (
            f"install the missing package with pip; or {manual_download(card)}"
            if isinstance(error, ImportError)
            else manual_download(card)
        )
        got = f"{type(error).__name__}: {error}"
        raise SourceError(
            f"The source of {card.name} is not available.", got=got, where=redact_with_mirror(url), do=do
        ) from error
    except SourceError:
        raise
    except Exception as error:  # every back end has its own
        keyless = "Credential" in type(error).__name__  # botocore's NoCredentialsError and its kin, google.auth's
        raise SourceError(
            f"The source of {card.name} can't be reached.",
            got=f"{type(error).__name__}: {error}",
            where=redact_with_mirror(url),
            do=f"{CREDENTIALS if keyless else 'try again later'}; or {source_option(card)}",
            away=not keyless,
        ) from error
