"""Give access to this machine's Prefect servers to its own user alone.

A deployment's flow run executes code, so whoever reaches the API is this user. Servers listen on 127.0.0.1, answer
requests for that host only, accept no other web page's requests, and ask for a secret.
"""

import contextlib
import os
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clepdg.errors import ClepError
from clepdg_tasks.host.settings import Settings

if TYPE_CHECKING:
    import httpx

USER: Final = "clep-dg"


def server_environment(port: int, secret: str) -> dict[str, str]:
    """Return the settings of a server that only its own page and clients use.

    Its log names the reason of a failure, whatever the terminal shows.
    """
    address = f"http://127.0.0.1:{port}"
    return {
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": f"{address},http://localhost:{port}",
        "PREFECT_SERVER_UI_API_URL": f"{address}/api",
        "PREFECT_UI_URL": address,  # of links in alerts
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_INTERNAL_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    }


def client_environment(url: str, secret: str) -> dict[str, str]:
    """Return the settings of a client of such a server."""
    return {
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": secret,
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
    }


def new_secret() -> str:
    """Return a new secret in Prefect's format, user and password."""
    return f"{USER}:{secrets.token_urlsafe(32)}"


def secret_file(settings: Settings) -> Path:
    """Return the file that holds the secret of the server of `make up`."""
    return settings.home / "prefect" / "auth-string"


def read_secret(settings: Settings) -> str | None:
    """Return the secret of the server of `make up`, if there is one."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return secret_file(settings).read_text().strip() or None
    return None


def keep_secret(settings: Settings) -> str:
    """Return the secret for a new server, the last one if it is private.

    Browsers that logged in stay so.
    """
    path, secret = secret_file(settings), read_secret(settings)
    if secret and secret.startswith(f"{USER}:") and not path.stat().st_mode & 0o077:
        return secret
    secret = new_secret()
    write_private(path, secret + "\n")
    return secret


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only this user can read.

    Raises:
        OSError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def check_admitted(answer: "httpx.Response") -> None:
    """Raise ClepError if a server answered that the secret is wrong."""
    if answer.status_code == 401:
        do = "set PREFECT_API_AUTH_STRING to the server's PREFECT_SERVER_API_AUTH_STRING"
        raise ClepError(
            "Prefect's server asks for a secret.", where=answer.request.url.copy_with(path="/", query=None), do=do
        )


@contextlib.contextmanager
def api_client(url: str, secret: str | None) -> "Iterator[httpx.Client]":
    """Open a client of a Prefect server, with its secret and a CSRF token.

    Raises:
        ClepError: the server wants another secret.
        httpx.HTTPError: it does not answer.
    """
    import httpx

    user, _, password = (secret or "").partition(":")
    auth = httpx.BasicAuth(user, password) if secret else None
    # A connection for each request: a busy server may close one that it kept, with the next request unread.
    once = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=url.rstrip("/"), timeout=30.0, trust_env=False, auth=auth, limits=once) as client:
        name = uuid.uuid4().hex
        answer = client.get("/csrf-token", params={"client": name})
        check_admitted(answer)
        if answer.status_code == 200:  # another status: the server has no such protection
            client.headers.update({"Prefect-Csrf-Client": name, "Prefect-Csrf-Token": answer.json()["token"]})
        yield client
