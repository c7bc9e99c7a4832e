"""Addresses of corpora: a card's own, and what a user names in their place."""

import contextlib
import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from clepdg.cards import Address, Card
from clepdg.errors import SourceError

HASHES: Final = ("md5", "sha256")
_NAME: Final = re.compile(r"\$\{(\w+)\}")
_LOGIN: Final = re.compile(r"^(https?://|[a-z][a-z0-9+.-]*://(?=[^/?#@]*:))([^/?#]*)@", re.IGNORECASE)
_TOKEN: Final = re.compile(
    r"([?&;][\w.-]*(?:token|key|secret|sig|signature|passw|pwd|auth|credential)[\w.-]*=)(?!\$\{\w+\}(?:[&;#]|$))[^&;#]+",
    re.IGNORECASE,
)


def by_hand(card: Card) -> str:
    """Return what a user can do to get a corpus and to name it."""
    how = f"{card.apply} ({card.homepage})" if card.apply else f"get it from {card.homepage}"
    return f"{how}, then {naming(card)}"


def naming(card: Card) -> str:
    """Return how a user names a corpus's own copy: on the command line, and to a deployment."""
    return f"give it with --source {card.name}=FOLDER_OR_ARCHIVE (a deployment's parameter sources)"


def shown(url: str) -> str:
    """Return an address without a user's name and password, and with the values of tokens and keys hidden."""
    return _TOKEN.sub(r"\1***", _LOGIN.sub(lambda found: found[1], url))


def holds_secret(url: str) -> bool:
    """Tell whether an address holds a password or a token itself, and not the name, ${NAME}, of where it stands."""
    login = _LOGIN.match(url)
    password = login[2].partition(":")[2] if login and ":" in login[2] else login[2] if login else ""
    return _TOKEN.search(url) is not None or _NAME.sub("", password) != ""


def filled(url: str) -> str:
    """Return an address with each ${NAME} replaced by what the environment says: only where it is asked, not written.

    Raises:
        SourceError: the environment does not say.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise SourceError("An address names what the environment does not hold.", got=found[0], where=url)
        return quote(os.environ[found[1]], safe="")

    return _NAME.sub(value, url)


def is_web(url: str) -> bool:
    """Tell whether an address is http or https."""
    return re.match("https?://", url, re.IGNORECASE) is not None


def checksums(address: Address) -> dict[str, str]:
    """Return the checksums that are known of an address, by name."""
    return {name: value for name in HASHES if (value := getattr(address, name))}


def of_card(card: Card) -> tuple[Address, ...]:
    """Return a card's addresses, in the order in which they are tried.

    Raises:
        SourceError: there is none, the corpus has to be asked for.
    """
    if not card.sources:
        raise SourceError(f"{card.name} can't be downloaded: it has to be asked for.", do=by_hand(card))
    return card.sources


def own(card: Card, given: str) -> str:
    """Return the user's own address.

    Raises:
        SourceError: it is not one.
    """
    if holds_secret(given):
        raise SourceError(
            f"The address of {card.name} holds a password or a token, which would be kept with every result.",
            got=shown(given),
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


def local(card: Card, url: str) -> Path | None:
    """Return the existing path that an address names, or None for one on the web.

    Raises:
        SourceError: there is no such path.
    """
    path = as_path(url)
    if path is not None and not path.exists():
        raise SourceError(f"The source of {card.name} does not exist.", got=url, where=path, do=by_hand(card))
    return path


def as_path(url: str) -> Path | None:
    """Return the path that an address names, whether it is there or not; None for an address elsewhere."""
    if is_web(url) or ("://" in url and not re.match("file://", url, re.IGNORECASE)):
        return None
    path = Path(url2pathname(urlsplit(url).path) if re.match("file://", url, re.IGNORECASE) else url)
    return path.expanduser().absolute()
