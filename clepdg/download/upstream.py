"""Whether a corpus's publisher still says what it said at the download: a few requests, nothing is downloaded.

What a card's address brought holds, by the card's checksum or by its record (clepdg.pins). So a change upstream makes
nothing stale: it is written into the record, and shown until a person has dealt with it.
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

SAMPLES: Final = 3  # of a table's files: thousands of requests would be a burden for their server
_OF_CONTENT: Final = ("bytes", "files", "listing")  # what a mirror says as well as its original


def metadata(card: Card, address: Address) -> dict[str, Any]:
    """Return what is said of a card's address now, by name.

    Of an archive its ETag, time and size; of a Dataverse dataset its listing (names, sizes, checksums); of a table of
    files the same as of an archive for the first, the middle and the last of them.

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
    """Return what is said of an address of many files, whose list is known."""
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
    """Ask the addresses that brought a corpus, write what they say into its records, and return notes.

    Args:
        documents: the store's, which hold the records of first downloads.

    Returns:
        Why an address could not be asked, or tells nothing. What changed is then in `changes`.
    """
    records, notes = lockfile.read(documents, card.name), list[str]()
    known = [address for address in urls.card_addresses(card) if lockfile.name(address) in records]
    for address in known or urls.card_addresses(card):
        where, record = redact_with_mirror(address.url), records.get(lockfile.name(address), {})
        try:
            now = metadata(card, address)
        except SourceError as error:
            notes.append(f"{card.name}: {' '.join(str(error).partition(chr(10) + '  do:')[0].split())}")
            continue
        before, mirror = record.get("said"), mirror_of(address.url)
        if before is not None and record.get("mirror") != mirror:  # it has ETags and times of its own
            now = {name: value for name, value in now.items() if name.rpartition(" ")[2] in _OF_CONTENT}
        if before is None:
            lockfile.update(documents, card.name, address, said=now, mirror=mirror)
            notes.append(f"{card.name}: {where} was not asked before; what it says is recorded from today on.")
        elif not before.keys() & now.keys():
            notes.append(f"{card.name}: {where} says nothing that tells whether it changed.")
        elif _differences(before, now):
            since = record.get("changed", {}).get("date", lockfile.today())
            lockfile.update(documents, card.name, address, changed={"date": since, "said": now})
        elif "changed" in record:
            lockfile.update(documents, card.name, address, changed=None)
        if not known:
            break  # nobody recorded which address brought it: the first that answers stands for it
    return notes


def changes(card: Card, documents: Documents) -> list[str]:
    """Return, without asking, what was found to have changed upstream, each with what a person can do."""
    found = []
    with contextlib.suppress(SourceError):
        records = lockfile.read(documents, card.name)
        for address in card.sources:
            record = records.get(lockfile.name(address), {})
            if "changed" not in record:
                continue
            if checksums(address) or address.files:
                take = "its card binds it by checksum: to take what is there now, correct the card"
            else:
                record_file = lockfile.where(documents, card.name)
                take = f"to take what is there now, delete its record in {record_file} and run with --redo source"
            found.append(
                f"{card.name}: since {record['changed']['date']} its publisher says something else than at the download"
                f" ({_differences(record['said'], record['changed']['said'])}; {redact(address.url)}). What was"
                f" downloaded stays in use. clep-dg fetch FOLDER --corpora {card.name} says whether its bytes differ;"
                f" {take}."
            )
    return found


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return "etag a -> b, bytes 1 -> 2" for what both name and is not the same; "" where nothing is."""
    both = [name for name in before if name in now and before[name] != now[name]]
    return ", ".join(f"{name} {before[name]} -> {now[name]}" for name in both)
