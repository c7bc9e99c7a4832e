"""Records of first downloads: pins/<corpus>.json, one for each address that brought the corpus.

A record holds "date"; "bytes" and "sha256" of what came, where the card has no checksum: they hold from then on;
"said", what the server said of it then; and "changed", what it was found to say since, with the day when that was seen
first. Records outlive every output of the store.
"""

import json
import time
from pathlib import Path
from typing import Any

from clepdg import store
from clepdg.addresses import shown
from clepdg.cards import Address
from clepdg.errors import SourceError


def path_of(pins: Path, corpus: str) -> Path:
    """Return the file of a corpus's records."""
    return pins / f"{corpus}.json"


def name(address: Address) -> str:
    """Return what a record is called."""
    return f"{shown(address.url)} {address.dataverse or ''}".strip()


def read(pins: Path, corpus: str) -> dict[str, dict[str, Any]]:
    """Return a corpus's records by name.

    Raises:
        SourceError: the file is damaged.
    """
    path = path_of(pins, corpus)
    try:
        records: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
        return records
    except ValueError as error:
        do = "mend it, or delete it: the next download is recorded anew"
        raise SourceError("The record of first downloads is damaged.", got=error, where=path, do=do) from error


def update(pins: Path, corpus: str, address: Address, **facts: Any) -> None:
    """Set facts of an address's record, dated today if it is new; None removes one."""
    path = path_of(pins, corpus)
    path.parent.mkdir(parents=True, exist_ok=True)
    records = read(pins, corpus)
    record = {"date": today(), **records.get(name(address), {}), **facts}
    records[name(address)] = {key: value for key, value in record.items() if value is not None}
    store.write_json(path, records)


def today() -> str:
    """Return the day, in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime())
