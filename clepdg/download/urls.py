"""Parse, redact and expand the addresses of corpora, and their mirrors."""

import contextlib
import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from clepdg import redaction
from clepdg.corpora.cards import Address, Card
from clepdg.errors import ConfigError, SourceError
from clepdg.redaction import is_web

HASHES: Final = ("md5", "sha256")
MIRRORS: Final = "CLEPDG_MIRRORS"  # in the environment: "https://site=https://mirror/site,https://other=..."
SECRETS: Final = "CLEPDG_SECRETS"  # likewise: "https://site=USER PASSWORD,https://other=TOKEN"


def manual_download(card: Card) -> str:
    """Return how to get a corpus by hand, for messages."""
    how = f"{card.apply} ({card.homepage})" if card.apply else f"get it from {card.homepage}"
    return f"{how}, then {source_option(card)}"


def source_option(card: Card) -> str:
    """Return how to pass one's own copy of a corpus, for messages."""
    return f"give it with --source {card.name}=FOLDER_OR_ARCHIVE (a deployment's parameter sources)"


def redact(url: str) -> str:
    """Return an address without login, tokens and keys."""
    return redaction.without_login(url)


def expand(url: str) -> str:
    """Return the address to request: the mirror's, each ${NAME} expanded.

    Every request uses it; keys, pins and records keep the address as the card has it. A mirror may name any variable,
    another address those that the secrets of this machine's settings allow its server.

    Raises:
        SourceError: a NAME is not in the environment, or not allowed.
        ConfigError: the mirrors or the secrets are malformed.
    """
    mirror, rest = _mirror(url) or ("", url)
    filled = list[str]()
    for link in redaction.links(mirror + rest):
        own = "" if filled else mirror
        start = redaction.VARIABLE.sub(lambda name: _value(url, name), own)
        site = origin(link)
        filled.append(start + redaction.VARIABLE.sub(lambda name: _allowed_value(url, name, site), link[len(own) :]))  # noqa: B023
    return "::".join(filled)


def _value(url: str, name: re.Match[str]) -> str:
    """Return the value of a ${NAME}, which no text shows from now on."""
    value = os.environ.get(name[1])
    if value is None:
        what = "An address needs an environment variable that is not set."
        raise SourceError(what, got=name[0], where=redact_with_mirror(url))
    redaction.remember(value)
    return quote(value, safe="")


def _allowed_value(url: str, name: re.Match[str], site: str) -> str:
    """Return the value of a ${NAME} that this machine allows the server."""
    if name[1] not in secrets().get(site, ()):
        line = f'"{site}" = ["{name[1]}"]'
        allow = f'to allow it, write {line} below [secrets] in settings.toml, or set {SECRETS}="{site}={name[1]}"'
        raise SourceError(
            "An address names an environment variable that its server may not have.",
            got=name[0],
            where=redact_with_mirror(url),
            do=allow if site and "$" not in site else "write the server's name itself into the address",
        )
    return _value(url, name)


def origin(url: str) -> str:
    """Return an address's scheme, host and port, "https://host:8080"."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^/?#]*@)?([^/?#]*)", url)
    return f"{found[1]}{found[2]}".lower() if found else ""


def secrets() -> dict[str, tuple[str, ...]]:
    """Return {origin: variables that its addresses may name}.

    Raises:
        ConfigError: entries that are malformed; all of them in one error.
    """
    known, faults = dict[str, tuple[str, ...]](), list[str]()
    for number, entry in enumerate(filter(None, map(str.strip, os.environ.get(SECRETS, "").split(","))), start=1):
        site, _, names = (part.strip() for part in entry.partition("="))
        site = site.rstrip("/").lower()
        if not (re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@$\s]+", site) and re.fullmatch(r"\w[\w\s]*", names)):
            faults.append(f"entry {number}")  # the entry itself may hold a password
        known[site] = (*known.get(site, ()), *names.split())
    if faults:
        raise ConfigError(
            "The secrets can't be used.",
            got=faults,
            expected='"https://host" = ["NAME", "NAME"]: a server, and the environment variables that it may have',
            where=f"{SECRETS}, or [secrets] in settings.toml",
        )
    return known


def redact_with_mirror(url: str) -> str:
    """Return an address without secrets, with its mirror, for messages."""
    mirror = mirror_of(url)
    return f"{redact(url)} (mirror: {redact(mirror)})" if mirror else redact(url)


def mirror_of(url: str) -> str | None:
    """Return the mirror of an address, or None.

    Raises:
        ConfigError: the mirrors are malformed.
    """
    found = _mirror(url)
    return found and "".join(found)


def _mirror(url: str) -> tuple[str, str] | None:
    """Return the mirror's prefix and the rest of an address, or None."""
    known = mirrors()
    found = [prefix for prefix in known if url.startswith(prefix) and url[len(prefix) :][:1] in ("", *"/?#")]
    longest = max(found, key=len, default=None)
    return None if longest is None else (known[longest], url[len(longest) :])


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
        if redaction.holds_secret(url):
            return f"{what} holds a password or a token: set it in the environment and write its name as ${{NAME}}"
    return "" if is_web(prefix) == is_web(mirror) else "one of both is http or https, the other is not"


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
    address = _is_address(given)
    if address and redaction.holds_secret(given):
        raise SourceError(
            f"The address of {card.name} holds what may be a secret, and would be stored with every result.",
            got=redaction.hide(given),
            expected="https://${MY_USER}:${MY_PASSWORD}@host/file or https://host/file?token=${MY_TOKEN}",
            where="--source",
            do="set it in the environment, name it in the address as above, and allow it: [secrets] in settings.toml",
        )
    with contextlib.suppress(ValueError):  # from urlsplit
        if not address and given.strip():
            return given
        if address and all(map(_is_valid, redaction.links(given))):
            return given
    raise SourceError(
        f"The source of {card.name} is not an address.",
        got=repr(given),
        expected="a folder, an archive (zip, tar), a .csv list of files, or an address (http://, https://, s3://, file:///)",
        where="--source",
    )


def _is_address(given: str) -> bool:
    """Return whether a source is an address, and no path that looks like one."""
    return "://" in given and not given.startswith(("/", "~", "./", "../"))


def _is_valid(link: str) -> bool:
    """Return whether a link of an address has a known scheme, and a host."""
    scheme, _, rest = link.partition("://")
    host = urlsplit(link).hostname if rest else None
    valid = {"http": bool(host), "https": bool(host), "file": host in (None, "localhost")}
    return valid.get(scheme.lower(), scheme in _protocols() and (bool(rest) or "://" not in link))


def _protocols() -> set[str]:
    import fsspec

    return set(fsspec.available_protocols()) - {"memory", "data"}


def local_path(card: Card, url: str) -> Path | None:
    """Return the existing local path of an address, or None for a remote one.

    Raises:
        SourceError: there is no such path.
    """
    path = as_path(url)
    if path is not None and not os.path.exists(path):
        raise SourceError(f"The source of {card.name} does not exist.", got=url, where=path, do=manual_download(card))
    return path


def as_path(url: str) -> Path | None:
    """Return an address's local path, which need not exist, or None."""
    if _is_address(url) and not re.match("file://", url, re.IGNORECASE):
        return None
    path = Path(url2pathname(urlsplit(url).path) if re.match("file://", url, re.IGNORECASE) else url)
    return Path(os.path.expanduser(path)).absolute()
