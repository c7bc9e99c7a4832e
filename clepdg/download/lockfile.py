"""Record first downloads in pins/<corpus>.json, one record per address.

A record holds "date"; "bytes" and "sha256" where the card has no checksum: later downloads must match them; "said", the
server's metadata at the download; and "changed", metadata that differs since, with the date of the first check that saw
it. Records outlive all outputs of the store.
"""

import time
from typing import Any

from clepdg.corpora.cards import Address
from clepdg.download.urls import redact
from clepdg.errors import SourceError, StoreError
from clepdg.store.documents import Documents


def where(pins: Documents, corpus: str) -> str:
    """Return the address of a corpus's records, for messages."""
    return pins.address(_document(corpus))


def _document(corpus: str) -> str:
    return f"pins/{corpus}.json"


def name(address: Address) -> str:
    """Return the key of an address's record."""
    return f"{redact(address.url)} {address.dataverse or ''}".strip()


def read(pins: Documents, corpus: str) -> dict[str, dict[str, Any]]:
    """Return a corpus's records by name.

    Raises:
        SourceError: the file is damaged.
    """
    try:
        records: dict[str, dict[str, Any]] = pins.read(_document(corpus)) or {}
        for record in records.values():
            sums = record.get("bytes"), record.get("sha256")
            if not (isinstance(sums[0], int) and isinstance(sums[1], str)) and sums != (None, None):
                raise ValueError(record)
            changed = record.get("changed", {"date": "", "said": {}})
            if not all(isinstance(facts, dict) for facts in (record.get("said", {}), changed, changed["said"])):
                raise ValueError(record)
            if not isinstance(changed["date"], str) or (changed["said"] and "said" not in record):
                raise ValueError(record)
        return records
    except (StoreError, AttributeError, KeyError, TypeError, ValueError) as error:
        do = "repair it, or delete it: the next download is then recorded"
        place = where(pins, corpus)
        raise SourceError("The record of first downloads is damaged.", got=error, where=place, do=do) from error


def update(pins: Documents, corpus: str, address: Address, **facts: Any) -> None:
    """Set fields of an address's record; None removes a field.

    A new record gets today's date.
    """
    records = read(pins, corpus)
    record = {"date": today(), **records.get(name(address), {}), **facts}
    records[name(address)] = {key: value for key, value in record.items() if value is not None}
    pins.write(_document(corpus), records)


def today() -> str:
    """Return today's date in UTC, for example "2025-01-31"."""
    return time.strftime("%Y-%m-%d", time.gmtime())
