"""Detect upstream changes of a corpus without downloading it.

Downloaded data stays valid, by the card's checksum or its record (download.lockfile). So an upstream change makes no
output stale: it is recorded, and reported until the user resolves it.
"""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

from clepdg import hashing
from clepdg.corpora.cards import Address, Card
from clepdg.download import file_lists, http_client, lockfile, urls
from clepdg.download.file_lists import Remote
from clepdg.download.urls import checksums, mirror_of, redact, redact_with_mirror
from clepdg.errors import SourceError
from clepdg.store.documents import Documents

SAMPLES: Final = 3  # of a table's files: thousands of requests would overload the server
_OF_CONTENT: Final = ("bytes", "files", "listing")  # equal for a mirror and its original


def metadata(card: Card, address: Address) -> dict[str, Any]:
    """Return the current metadata of a card's address.

    An archive has ETag, time and size; a Dataverse dataset its listing (names, sizes, checksums); a table of files the
    metadata of its first, middle and last file.

    Raises:
        SourceError: the address does not answer.
    """
    if address.many:
        return files_metadata(card, address, file_lists.list_address(card, address))
    path = urls.local_path(card, address.url)
    if path is None:
        return http_client.inspect(card, address.url)
    return {"bytes": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}


def files_metadata(card: Card, address: Address, files: list[Remote]) -> dict[str, Any]:
    """Return the current metadata of an address of many files."""
    if address.dataverse:
        size = sum(file.address.bytes or 0 for file in files)
        return {"listing": hashing.digest_lines(file_lists.identities(files)), "files": len(files), "bytes": size}
    facts: dict[str, Any] = {}
    for file in samples(files):
        facts |= {f"{file.path} {key}": value for key, value in http_client.inspect(card, file.address.url).items()}
    return facts


def samples(files: list[Remote]) -> list[Remote]:
    """Return the first, the middle and the last of many files."""
    return [files[number] for number in sorted({0, len(files) // 2, len(files) - 1})]


def check(card: Card, documents: Documents) -> list[str]:
    """Compare a corpus's addresses with its records and update these.

    Args:
        documents: the store's, which hold the records of first downloads.

    Returns:
        Notes about addresses that do not answer or can't be compared. `changes` returns what changed.
    """
    records, notes = lockfile.read(documents, card.name), list[str]()
    known = [address for address in urls.card_addresses(card) if lockfile.name(address) in records]
    for address in known or urls.card_addresses(card):
        where, record = redact_with_mirror(address.url), records.get(lockfile.name(address), {})
        try:
            now = metadata(card, address)
        except SourceError as error:
            notes.append(f"{card.name}: {error.reason}")
            continue
        before, mirror = record.get("said"), mirror_of(address.url)
        if before is not None and record.get("mirror") != mirror:  # a mirror has its own ETags and times
            now = {name: value for name, value in now.items() if name.rpartition(" ")[2] in _OF_CONTENT}
        if before is None:
            lockfile.update(documents, card.name, address, said=now, mirror=mirror)
            notes.append(f"{card.name}: {where} was not checked before; its metadata is recorded from today on.")
        elif not before.keys() & now.keys():
            notes.append(f"{card.name}: {where} reports no metadata that shows changes.")
        elif _differences(before, now):
            since = record.get("changed", {}).get("date", lockfile.today())
            lockfile.update(documents, card.name, address, changed={"date": since, "said": now})
        elif "changed" in record:
            lockfile.update(documents, card.name, address, changed=None)
        if not known:
            break  # no record of the address used: take the first that answers
    return notes


def changes(card: Card, documents: Documents) -> list[str]:
    """Return the recorded upstream changes, each with what to do.

    Sends no request.
    """
    found = []
    with contextlib.suppress(SourceError):
        records = lockfile.read(documents, card.name)
        for address in card.sources:
            record = records.get(lockfile.name(address), {})
            if "changed" not in record:
                continue
            if checksums(address) or address.files:
                take = "its card has a checksum: to accept the new data, correct the card"
            else:
                record_file = lockfile.where(documents, card.name)
                take = f"to accept the new data, delete its record in {record_file} and run with --redo source"
            found.append(
                f"{card.name}: since {record['changed']['date']} its publisher reports other metadata than at the"
                f" download ({_differences(record['said'], record['changed']['said'])}; {redact(address.url)}). The"
                f" downloaded data stays in use. clep-dg fetch FOLDER --corpora {card.name} shows whether the bytes"
                f" differ; {take}."
            )
    return found


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the differences of common fields, "etag a -> b, bytes 1 -> 2"."""
    both = [name for name in before if name in now and before[name] != now[name]]
    return ", ".join(f"{name} {before[name]} -> {now[name]}" for name in both)
