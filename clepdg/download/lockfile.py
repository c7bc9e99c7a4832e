"""Records of first downloads: pins/<corpus>.json, one for each address that brought the corpus.

A record holds "date"; "bytes" and "sha256" of what came, where the card has no checksum: they hold from then on;
"said", what the server said of it then; and "changed", what it was found to say since, with the day when that was seen
first. Records outlive every output of the store.
"""

import time
from typing import Any

from clepdg.corpora.cards import Address
from clepdg.download.urls import redact
from clepdg.errors import SourceError, StoreError
from clepdg.store.documents import Documents


def where(pins: Documents, corpus: str) -> str:
    """Return where a corpus's records lie, for a person."""
    return pins.address(_document(corpus))


def _document(corpus: str) -> str:
    return f"pins/{corpus}.json"


def name(address: Address) -> str:
    """Return what a record is called."""
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
        return records
    except (StoreError, AttributeError, ValueError) as error:
        do = "mend it, or delete it: the next download is recorded anew"
        place = where(pins, corpus)
        raise SourceError("The record of first downloads is damaged.", got=error, where=place, do=do) from error


def update(pins: Documents, corpus: str, address: Address, **facts: Any) -> None:
    """Set facts of an address's record, dated today if it is new; None removes one."""
    records = read(pins, corpus)
    record = {"date": today(), **records.get(name(address), {}), **facts}
    records[name(address)] = {key: value for key, value in record.items() if value is not None}
    pins.write(_document(corpus), records)


def today() -> str:
    """Return the day, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime())
