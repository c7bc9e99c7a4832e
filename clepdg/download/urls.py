"""Addresses of corpora: a card's own, and what a user names in their place."""

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
    """Return what a user can do to get a corpus and to name it."""
    how = f"{card.apply} ({card.homepage})" if card.apply else f"get it from {card.homepage}"
    return f"{how}, then {source_option(card)}"


def source_option(card: Card) -> str:
    """Return how a user names a corpus's own copy: on the command line, and to a deployment."""
    return f"give it with --source {card.name}=FOLDER_OR_ARCHIVE (a deployment's parameter sources)"


def redact(url: str) -> str:
    """Return an address without a user's name and password, and with the values of tokens and keys hidden."""
    return _TOKEN.sub(r"\1***", _LOGIN.sub(lambda found: found[1], url))


def holds_secret(url: str) -> bool:
    """Tell whether an address holds a password or a token itself, and not the name, ${NAME}, of where it stands."""
    login = _LOGIN.match(url)
    password = login[2].partition(":")[2] if login and ":" in login[2] else login[2] if login else ""
    return _TOKEN.search(url) is not None or _NAME.sub("", password) != ""


def expand(url: str) -> str:
    """Return the address to request: of the mirror, each ${NAME} filled.

    Every request goes through here; keys, pins and records keep the address as the card has it.

    Raises:
        SourceError: the environment does not hold a NAME.
        ConfigError: the mirrors are malformed.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            what = "An address names what the environment does not hold."
            raise SourceError(what, got=found[0], where=redact_with_mirror(url))
        return quote(os.environ[found[1]], safe="")

    return _NAME.sub(value, mirror_of(url) or url)


def redact_with_mirror(url: str) -> str:
    """Return an address for a message, without secrets, with its mirror."""
    mirror = mirror_of(url)
    return f"{redact(url)} (by its mirror {redact(mirror)})" if mirror else redact(url)


def mirror_of(url: str) -> str | None:
    """Return the address that a mirror has for another, or None.

    Raises:
        ConfigError: the mirrors are malformed.
    """
    known = mirrors()
    found = [prefix for prefix in known if url.startswith(prefix) and url[len(prefix) :][:1] in ("", *"/?#")]
    longest = max(found, key=len, default=None)
    return None if longest is None else known[longest] + url[len(longest) :]


def mirrors() -> dict[str, str]:
    """Return {prefix of an address: its mirror} from the environment.

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
    """Return why an entry of the mirrors can't be used, or ""."""
    if equal_signs != 1:
        return "not one = between an address and its mirror"
    for what, url in (("the first part", prefix), ("the mirror", mirror)):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]+(/[^?#\s]*)?", url) or url.lower().startswith("file:"):
            return f"{what} is not an address on a network without ? and #"
        if holds_secret(url):
            return f"{what} holds a password or a token: set it in the environment, and write its name as ${{NAME}}"
    return "" if is_web(prefix) == is_web(mirror) else "one of both is http or https, the other is not"


def is_web(url: str) -> bool:
    """Tell whether an address is http or https."""
    return re.match("https?://", url, re.IGNORECASE) is not None


def checksums(address: Address) -> dict[str, str]:
    """Return the checksums that are known of an address, by name."""
    return {name: value for name in HASHES if (value := getattr(address, name))}


def card_addresses(card: Card) -> tuple[Address, ...]:
    """Return a card's addresses, in the order in which they are tried.

    Raises:
        SourceError: there is none, the corpus has to be asked for.
    """
    if not card.sources:
        raise SourceError(f"{card.name} can't be downloaded: it has to be asked for.", do=manual_download(card))
    return card.sources


def validate(card: Card, given: str) -> str:
    """Return the user's own address.

    Raises:
        SourceError: it is not one.
    """
    if holds_secret(given):
        raise SourceError(
            f"The address of {card.name} holds a password or a token, which would be kept with every result.",
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
    """Return the existing path that an address names, or None for one on the web.

    Raises:
        SourceError: there is no such path.
    """
    path = as_path(url)
    if path is not None and not path.exists():
        raise SourceError(f"The source of {card.name} does not exist.", got=url, where=path, do=manual_download(card))
    return path


def as_path(url: str) -> Path | None:
    """Return the path that an address names, whether it is there or not; None for an address elsewhere."""
    if is_web(url) or ("://" in url and not re.match("file://", url, re.IGNORECASE)):
        return None
    path = Path(url2pathname(urlsplit(url).path) if re.match("file://", url, re.IGNORECASE) else url)
    return path.expanduser().absolute()
