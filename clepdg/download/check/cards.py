"""Check the addresses of cards for their sizes and hashes.

Hashes come from Zenodo's and Dataverse's listings, the hub of Hugging Face, ETag or Content-MD5 of object stores, and
git LFS; nothing is downloaded.
"""

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

from clepdg import hashing
from clepdg.corpora.cards import Address, Card
from clepdg.download import fetch, file_lists, http_client, upstream, urls
from clepdg.download.check.jobs import (
    Checked,
    Job,
    compare,
    http_errors,
    md5_of,
    not_reachable,
    reported_sums,
    run_in_threads,
)
from clepdg.download.file_lists import Remote
from clepdg.download.urls import checksums, expand, mirror_of, redact_with_mirror
from clepdg.errors import ClepError, SourceError, some
from clepdg.redaction import is_web
from clepdg.store.documents import Documents

LISTING_SECONDS: Final = 20.0  # timeout of a listing of thousands of files, which the repository computes
SHOWN: Final = 3  # differences of one address
LFS_GROUP: Final = 100  # objects in one request, as git lfs asks
LFS_SECONDS: Final = 60.0  # for all groups of an address
LFS_TYPE: Final = "application/vnd.git-lfs+json"
_ZENODO: Final = re.compile(r"https?://zenodo\.org/records/(\d+)/files/([^/?#]+)", re.IGNORECASE)

Sleep = Callable[[float], None]


def jobs(cards: Sequence[Card], documents: Documents | None, sleep: Sleep = time.sleep) -> list[Job]:
    """Return one job for each address of each card.

    Args:
        documents: the store's, which hold the records of first downloads.
        sleep: waits while a server is busy, in seconds.

    Raises:
        SourceError: a card has no address.
    """
    return [
        Job(what=card.name, where=_where(address), ask=partial(_lines, card, address, documents, sleep))
        for card in cards
        for address in urls.card_addresses(card)
    ]


def _where(address: Address) -> str:
    return f"{redact_with_mirror(address.url)} {address.dataverse or ''}".strip()


def _lines(card: Card, address: Address, documents: Documents | None, sleep: Sleep) -> list[Checked]:
    return [check(card, address, documents, sleep)]


def check(card: Card, address: Address, documents: Documents | None, sleep: Sleep = time.sleep) -> Checked:
    """Compare what an address reports with its card, or with its record."""
    where = _where(address)
    try:
        bound = fetch.pinned(card, address, documents)
        if address.dataverse:
            return _dataset(card, bound, where, sleep)
        if address.files:
            return _table(card, address, where, sleep)
        return _compared(card, bound, where, _said(card, address, sleep))
    except ClepError as error:
        return not_reachable(card.name, where, error.reason)


def _compared(card: Card, address: Address, where: str, said: dict[str, Any]) -> Checked:
    size = {} if address.bytes is None else {"bytes": address.bytes}
    return compare(card.name, where, size | checksums(address), said, address.recorded or "the card")


def _said(card: Card, address: Address, sleep: Sleep) -> dict[str, Any]:
    """Return the bytes and hashes that an archive's server reports."""
    if not is_web(address.url):
        facts = upstream.metadata(card, address)
        return facts | md5_of(facts.get("version", ""))
    return reported_sums(address.url, sleep) | _of_zenodo(card, address.url, sleep)


def _of_zenodo(card: Card, url: str, sleep: Sleep) -> dict[str, Any]:
    """Return bytes and hash from Zenodo's listing; {} for other sites."""
    if (found := _ZENODO.match(url)) is None:
        return {}
    record, name = f"https://zenodo.org/api/records/{found[1]}", unquote(found[2])
    try:
        files = http_client.read_json(
            card, record, sleep, seconds=LISTING_SECONDS, patience=http_client.INSPECT_SECONDS
        )["files"]
        listed = {file["key"]: (file["size"], str(file["checksum"]).partition(":")) for file in files}
    except (KeyError, TypeError) as error:
        what = "Zenodo's answer is not the listing of a record."
        raise SourceError(what, got=repr(error), where=redact_with_mirror(record)) from error
    except SourceError:
        if mirror_of(record):  # one of the files alone
            return {}
        raise
    if name not in listed:
        raise SourceError(
            f"{name} is not among the {len(listed)} files of the record", where=redact_with_mirror(record)
        )
    size, (kind, _, value) = listed[name]
    return {"bytes": size, kind: value}


def _dataset(card: Card, address: Address, where: str, sleep: Sleep) -> Checked:
    """Check the listing and three files of a Dataverse dataset."""
    patience = {"seconds": LISTING_SECONDS, "patience": http_client.INSPECT_SECONDS}
    files = file_lists.list_dataverse(card, address, sleep, **patience)
    size, hashed = sum(file.address.bytes or 0 for file in files), sum(bool(checksums(file.address)) for file in files)
    faults = _samples(card, files, sleep)[0]
    expected = card.expected.utterances
    if expected not in (None, len(files)):
        faults.insert(0, f"files {expected} -> {len(files)}")
    digest = hashing.digest_lines(file_lists.identities(files))
    if address.recorded and (address.sha256, address.bytes) != (digest, size):
        sizes = f"bytes {address.bytes} -> {size}, " if address.bytes != size else ""
        faults.insert(0, f"{sizes}listing {address.sha256} -> {digest} ({address.recorded})")
    how = f"{len(files)} files{', as in the card' if expected == len(files) else ''}"
    how += f", {size} bytes, hashes of {hashed}; bytes of {len(upstream.samples(files))} addresses"
    how += f"; listing as {address.recorded}" if address.recorded else ""
    return _result(card, where, faults, "ok" if hashed == len(files) else "says no hash", how)


def _table(card: Card, address: Address, where: str, sleep: Sleep) -> Checked:
    """Check a table's objects in git LFS and three of its files."""
    files = file_lists.list_address(card, address)
    faults = _lfs_faults(files, address.lfs, sleep) if address.lfs else []
    different, hashed = _samples(card, files, sleep)
    how = f"bytes and sha256 of {len(files)} objects in git lfs; " if address.lfs else ""
    how += f"bytes{' and hashes' if hashed else ''} of {len(upstream.samples(files))} of {len(files)} addresses"
    return _result(card, where, faults + different, "ok" if address.lfs or hashed else "says no hash", how)


def _result(card: Card, where: str, faults: list[str], word: str, how: str) -> Checked:
    few = faults[:SHOWN] + ([f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else [])
    result = f"differs: {'; '.join(few)} (compared: {how})" if faults else f"{word} ({how})"
    return Checked(what=card.name, where=where, result=result, good=not faults)


def _samples(card: Card, files: list[Remote], sleep: Sleep) -> tuple[list[str], bool]:
    """Check three files; return differences, and whether all have hashes."""
    lines, hashed = list[str](), True
    for file in upstream.samples(files):
        try:
            said = _said(card, file.address, sleep)
        except SourceError as error:
            raise SourceError(f"{file.path}: {error.reason}", where=redact_with_mirror(file.address.url)) from error
        line = _compared(card, file.address, "", said)
        lines += [] if line.good else [f"{file.path}: {line.result.removeprefix('differs: ')}"]
        hashed &= bool(said.keys() & checksums(file.address).keys())
    return lines, hashed


def _lfs_faults(files: list[Remote], repository: str, sleep: Sleep) -> list[str]:
    """Ask git LFS for the sizes of all files; return the differences.

    Raises:
        SourceError: it does not answer, or a file's size or sha256 is not known.
    """
    unknown = [file.path for file in files if file.address.bytes is None or not file.address.sha256]
    if unknown:
        raise SourceError("Git lfs is asked by bytes and sha256; the table lacks them.", got=some(unknown))
    known = {str(file.address.sha256).lower(): file for file in files}  # equal files are one object
    names = sorted(known)
    groups = [names[start : start + LFS_GROUP] for start in range(0, len(names), LFS_GROUP)]
    failed = list[str]()

    def ask_group(group: list[str]) -> list[str]:
        if failed:  # the others would wait in vain
            return []
        try:
            return _of_group({name: known[name] for name in group}, repository, sleep)
        except SourceError as error:
            failed.append(error.reason)
            return []

    answers = list(run_in_threads([partial(ask_group, group) for group in groups], LFS_SECONDS))
    if failed or None in answers:
        why = failed[0] if failed else f"no answer within {LFS_SECONDS:.0f} s"
        raise SourceError(f"git lfs: {why}", where=redact_with_mirror(repository))
    return [fault for faults in answers for fault in faults or []]


def _of_group(files: dict[str, Remote], repository: str, sleep: Sleep) -> list[str]:
    """Ask git LFS for the sizes of {sha256: file}; return the differences."""
    body = {
        "operation": "download",
        "transfers": ["basic"],
        "objects": [{"oid": name, "size": file.address.bytes} for name, file in files.items()],
    }
    url, kind = f"{repository}/info/lfs/objects/batch", {"Accept": LFS_TYPE, "Content-Type": LFS_TYPE}
    with http_errors(), http_client.client(http_client.INSPECT_SECONDS) as client:
        request = partial(client.post, expand(url), json=body, headers=kind)
        response = http_client.retry_while_busy(request, http_client.INSPECT_SECONDS, sleep)
        if response.status_code != 200:
            raise SourceError(http_client.busy_status(response))
        answer = response.json()
    try:
        reported = {item["oid"]: (item.get("size"), item.get("error")) for item in answer["objects"]}
        refused = {name: f"{error['code']} {error['message']}" for name, (_, error) in reported.items() if error}
    except (KeyError, TypeError, AttributeError) as error:
        raise SourceError("the answer is not of git lfs", got=repr(error)) from error
    faults = []
    for name, file in files.items():
        size = reported.get(name, (None, None))[0]
        if name in refused:
            faults.append(f"{file.path}: {refused[name]}")
        elif name not in reported:
            faults.append(f"{file.path}: not answered")
        elif size != file.address.bytes:
            faults.append(f"{file.path}: bytes {file.address.bytes} -> {size}")
    return faults
