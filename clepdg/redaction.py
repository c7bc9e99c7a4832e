"""Remove secrets from addresses and from texts that leave the process.

An address may chain others with "::", as fsspec's do. Its secrets are logins and the values of parameters, unless the
parameter is known to be harmless or the value names environment variables, ${NAME}. A text's secrets are those of its
addresses, the values that were filled into addresses, and what the environment holds under a telling name.
"""

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from functools import cache
from typing import Final
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN: Final = "***"
HARMLESS: Final = frozenset(  # parameters that hold no secret
    """alt branch commit dir dl download export file filename folder format gbrecs id inline lang language limit md5
    name offset page part path persistentid prefix raw ref rev revision sha256 size split tag type v version versionid
    workflowtype year""".split()
)
VARIABLE: Final = re.compile(r"\$\{(\w+)\}")
SHORTEST: Final = 4  # characters of a secret; hiding a shorter one would spoil texts
SHORTEST_BY_NAME: Final = 6  # of a variable with a telling name, such as ...TOKEN=false
_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]{,30}://"
_LOGIN: Final = re.compile(rf"({_SCHEME})([^/?#]*)@")
_SLASHED: Final = re.compile(rf"({_SCHEME})([^/?#@:]*:(?!\d*(?:[/?#]|$)).{{,500}})@")  # a / in the password
_PARAMETER: Final = re.compile(r"([;&#])([^=;&#]*)=([^;&#]*)")
_QUERY: Final = re.compile(r"(^|[;&#])([^=;&#]*)(?:=([^;&#]*))?")
_ADDRESS: Final = re.compile(rf"{_SCHEME}[^\s\"'<>`]*[^\s\"'<>`)\],.;:]")
_TELLING: Final = re.compile(
    r"(passw|passphrase|secret|(^|_)(token|apikey|key|pat|credentials?|auth_string|connection_string)$)"
    r"(?!.*_(file|path|dir|command)$)",
    re.IGNORECASE,
)
_filled = set[str]()


def is_web(url: str) -> bool:
    """Return whether an address is http or https."""
    return re.match("https?://", url, re.IGNORECASE) is not None


def links(url: str) -> list[str]:
    """Return the addresses that an address chains with "::"."""
    return [url] if is_web(url) else url.split("::")


def holds_secret(url: str) -> bool:
    """Return whether an address holds a password or what may be a token.

    The name of an environment variable, ${NAME}, is none.
    """
    return hide(url) != url


def hide(url: str) -> str:
    """Return an address without its secrets; ${NAME} and local paths stay."""
    if "://" not in url:
        return url
    return "::".join(_hide_parameters(_hide_logins(link)) for link in links(url))


def without_login(url: str) -> str:
    """Return an address without its secrets and without ${NAME} as a login."""
    return "::".join(_LOGIN.sub(_without_names, link) for link in links(hide(url)))


def _without_names(found: re.Match[str]) -> str:
    return found[1] if is_web(found[1]) or ":" in found[2] else found[0]


def _hide_logins(link: str) -> str:
    def hidden(found: re.Match[str]) -> str:
        name, colon, password = found[2].partition(":")
        secret = password if colon else name if is_web(found[1]) else ""
        return found[1] if VARIABLE.sub("", secret) else found[0]

    clean, decoded = _SLASHED.sub(hidden, _LOGIN.sub(hidden, link)), unquote(link)
    if clean == link != decoded and (clean := _hide_logins(decoded)) == decoded:
        return link
    return clean


def _hide_parameters(link: str) -> str:
    head, mark, query = link.partition("?")
    return _PARAMETER.sub(_hide_value, head) + mark + (_QUERY.sub(_hide_value, query) if mark else "")


def _hide_value(found: re.Match[str]) -> str:
    before, name, value = found[1], found[2], found[3]
    known = unquote_plus(name).lower() in HARMLESS and not _LOGIN.search(unquote(value or ""))
    if known or not VARIABLE.sub("", name if value is None else value):
        return found[0]
    return f"{before}{HIDDEN}" if value is None else f"{before}{name}={HIDDEN}"


def remember(value: str) -> None:
    """Hide a value that is filled into an address in all later texts."""
    _filled.add(value)


def scrub(text: str) -> str:
    """Return a text without secrets: known values, and those of its addresses."""
    text = _ADDRESS.sub(lambda found: hide(found[0]), text)
    known = {form for value in (*_filled, *_of_environment()) if len(value) >= SHORTEST for form in _forms(value)}
    if not known:
        return text
    return re.sub("|".join(map(re.escape, sorted(known, key=lambda f: (-len(f), f)))), HIDDEN, text, flags=re.I)


def _of_environment() -> Iterator[str]:
    """Yield the secrets of the environment, passwords of addresses too."""
    for name in os.environ:
        value = os.environ.get(name, "")  # another thread may remove it
        if _is_telling(name) and len(value) >= SHORTEST_BY_NAME:
            yield from (value, value.partition(":")[2])  # "user:password"
        for link in links(value) if "://" in value else ():
            for found in _LOGIN.finditer(link):
                yield VARIABLE.sub("", found[2].partition(":")[2])


@cache
def _is_telling(name: str) -> bool:
    return _TELLING.search(name) is not None


@cache
def _forms(value: str) -> frozenset[str]:
    """Return the ways in which a value is written: plain, quoted, escaped."""
    plain = {value, unquote(value)}
    quoted = (form for v in plain for form in (quote(v), quote(v, safe=""), quote_plus(v)))
    escaped = (form[1:-1] for v in plain for form in (repr(v), json.dumps(v)))
    return frozenset({*plain, *quoted, *escaped})


def scrub_logs() -> None:
    """Keep secrets out of all log records and tracebacks of this process."""
    make = logging.getLogRecordFactory()
    if getattr(make, "scrubs", False):
        return

    def scrubbed(*args: object, **kwargs: object) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            message = record.getMessage()
        except Exception:  # logging itself reports arguments that do not fit
            return record
        if (clean := scrub(message)) != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = scrub(_traceback(record.exc_info[1]).rstrip())
        return record

    scrubbed.scrubs = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(scrubbed)
    sys.excepthook = lambda kind, error, trace: sys.stderr.write(scrub(_traceback(error)))


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def clean_error(error: Exception) -> Exception:
    """Return an error, or its text in a RuntimeError where it holds a secret."""
    text = _traceback(error)
    return error if scrub(text) == text else RuntimeError(scrub(f"{type(error).__name__}: {error}\n{text}"))
