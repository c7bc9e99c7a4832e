"""Parse, redact and expand the addresses of corpora, and their mirrors."""

import contextlib
import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from clepdg.corpora.cards import Address, Card
from clepdg.errors import ConfigError, SourceError

HASHES: Final = ("md5", "sha256")
MIRRORS: Final = "CLEPDG_MIRRORS"  # in the environment: "https://site=https://mirror/site,https://other=..."
_NAME: Final = re.compile(r"\$\{(\w+)\}")
_LOGIN: Final = re.compile(r"^(https?://|[a-z][a-z0-9+.-]*://(?=[^/?#@]*:))([^/?#]*)@", re.IGNORECASE)
_TOKEN: Final = re.compile(
    r"([?&;][\w.-]*(?:token|key|secret|sig|signature|passw|pwd|auth|credential)[\w.-]*=)(?!\$\{\w+\}(?:[&;#]|$))[^&;#]+",
    re.IGNORECASE,
)


def manual_download(card: Card) -> str:
    """Return how to get a corpus by hand, for messages."""
    how = f"{card.apply} ({card.homepage})" if card.apply else f"get it from {card.homepage}"
    return f"{how}, then {source_option(card)}"


def source_option(card: Card) -> str:
    """Return how to pass one's own copy of a corpus, for messages."""
    return f"give it with --source {card.name}=FOLDER_OR_ARCHIVE (a deployment's parameter sources)"


def redact(url: str) -> str:
    """Return an address without login, tokens and keys."""
    return _TOKEN.sub(r"\1***", _LOGIN.sub(lambda found: found[1], url))


def holds_secret(url: str) -> bool:
    """Return whether an address holds a password or a token.

    The name of an environment variable, ${NAME}, is none.
    """
    login = _LOGIN.match(url)
    password = login[2].partition(":")[2] if login and ":" in login[2] else login[2] if login else ""
    return _TOKEN.search(url) is not None or _NAME.sub("", password) != ""


def expand(url: str) -> str:
    """Return the address to request: the mirror's, each ${NAME} expanded.

    Every request uses it; keys, pins and records keep the address as the card has it.

    Raises:
        SourceError: a NAME is not in the environment.
        ConfigError: the mirrors are malformed.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            what = "An address needs an environment variable that is not set."
            raise SourceError(what, got=found[0], where=redact_with_mirror(url))
        return quote(os.environ[found[1]], safe="")

    return _NAME.sub(value, mirror_of(url) or url)


def redact_with_mirror(url: str) -> str:
    """Return an address without secrets, with its mirror, for messages."""
    mirror = mirror_of(url)
    return f"{redact(url)} (mirror: {redact(mirror)})" if mirror else redact(url)


def mirror_of(url: str) -> str | None:
    """Return the mirror of an address, or None.

    Raises:
        ConfigError: the mirrors are malformed.
    """
    known = mirrors()
    found = [prefix for prefix in known if url.startswith(prefix) and url[len(prefix) :][:1] in ("", *"/?#")]
    longest = max(found, key=len, default=None)
    return None if longest is None else known[longest] + url[len(longest) :]


def mirrors() -> dict[str, str]:
    """Return {address prefix: mirror} from the environment.

    Raises:
        ConfigError: entries that are malformed or hold a secret; all of them in one error.
    """
    known, faults = dict[str, str](), list[str]()
    for number, entry in enumerate(filter(None, map(str.strip, os.environ.get(MIRRORS, "").split(","))), start=1):
        prefix, mirror = (part.strip().rstrip("/") for part in f"{entry}=".split("=", 2)[:2])
        if fault := _fault(prefix, mirror, entry.count("=")):
            faults.append(f"entry {number}: {fault}")  # the entry itself may hold a password
        elif known.setdefault(prefix, mirror) != mirror:
            faults.append(f"entry {number}: {prefix} has another mirror already")
    if faults:
        raise ConfigError(
            "The mirrors can't be used.",
            got=faults,
            expected='"https://site" = "https://mirror/site", secrets as ${NAME}',
            where=f"{MIRRORS}, or [mirrors] in settings.toml",
        )
    return known


def _fault(prefix: str, mirror: str, equal_signs: int) -> str:
    """Return why an entry of the mirrors is invalid, or ""."""
    if equal_signs != 1:
        return "not one = between an address and its mirror"
    for what, url in (("the first part", prefix), ("the mirror", mirror)):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]+(/[^?#\s]*)?", url) or url.lower().startswith("file:"):
            return f"{what} is not an address on a network without ? and #"
        if holds_secret(url):
            return f"{what} holds a password or a token: set it in the environment and write its name as ${{NAME}}"
    return "" if is_web(prefix) == is_web(mirror) else "one of both is http or https, the other is not"


def is_web(url: str) -> bool:
    """Return whether an address is http or https."""
    return re.match("https?://", url, re.IGNORECASE) is not None


def checksums(address: Address) -> dict[str, str]:
    """Return the known checksums of an address, by name."""
    return {name: value for name in HASHES if (value := getattr(address, name))}


def card_addresses(card: Card) -> tuple[Address, ...]:
    """Return a card's addresses in the order of attempts.

    Raises:
        SourceError: there is none: the corpus needs an application.
    """
    if not card.sources:
        raise SourceError(f"{card.name} can't be downloaded: it needs an application.", do=manual_download(card))
    return card.sources


def validate(card: Card, given: str) -> str:
    """Return the user's own address if it is valid.

    Raises:
        SourceError: it is no address, or holds a secret.
    """
    if holds_secret(given):
        raise SourceError(
            f"The address of {card.name} holds a password or a token, which would be stored with every result.",
            got=redact(given),
            expected="https://${MY_USER}:${MY_PASSWORD}@host/file or https://host/file?token=${MY_TOKEN}",
            where="--source",
            do="set it in the environment and write its name into the address, as above",
        )
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", given)
    with contextlib.suppress(ValueError):  # from urlsplit
        host = urlsplit(given).hostname if scheme else None
        valid = {"http": bool(host), "https": bool(host), "file": host in (None, "localhost")}
        if not scheme and given.strip():
            return given
        if scheme and valid.get(scheme[1].lower(), scheme[1] in _protocols() and len(given) > scheme.end()):
            return given
    raise SourceError(
        f"The source of {card.name} is not an address.",
        got=repr(given),
        expected="a folder, an archive (zip, tar), a .csv list of files, or an address (http://, https://, s3://, file:///)",
        where="--source",
    )


def _protocols() -> set[str]:
    import fsspec

    return set(fsspec.available_protocols()) - {"memory", "data"}


def local_path(card: Card, url: str) -> Path | None:
    """Return the existing local path of an address, or None for a remote one.

    Raises:
        SourceError: there is no such path.
    """
    path = as_path(url)
    if path is not None and not path.exists():
        raise SourceError(f"The source of {card.name} does not exist.", got=url, where=path, do=manual_download(card))
    return path


def as_path(url: str) -> Path | None:
    """Return the local path of an address, or None for a remote one.

    The path need not exist.
    """
    if is_web(url) or ("://" in url and not re.match("file://", url, re.IGNORECASE)):
        return None
    path = Path(url2pathname(urlsplit(url).path) if re.match("file://", url, re.IGNORECASE) else url)
    return path.expanduser().absolute()
