"""Identify sources and read the output of stage source.

A source is a folder, an archive, a list of files or an address; `fetch` fetches it. The output is files.parquet and
root.json.
"""

import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg import hashing
from clepdg.callbacks import Progress
from clepdg.config.manifests import find
from clepdg.corpora.cards import Address, Card
from clepdg.download import archive_members, file_lists, urls
from clepdg.download.folders import File, hash_folder, listing
from clepdg.download.http_client import inspect
from clepdg.download.urls import checksums, redact
from clepdg.errors import SourceError
from clepdg.hashing import inside
from clepdg.store.readers import read_facts, read_table, unreadable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FILES: Final = "files.parquet"
ROOT: Final = "root.json"
TREE: Final = "tree"
COLUMNS: Final = {"path": "string", "bytes": "int64", "mtime_ns": "int64", "sha256": "string"}


def identify(card: Card, given: str | None, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """Return a source's identity as JSON, without reading its contents.

    Args:
        card: the corpus's card.
        given: the user's own folder, archive, list of files (.csv), or any address that fsspec knows; None uses the
            card's addresses.
        sleep: waits while a server is busy, in seconds.

    Returns:
        {"kind": "card", "sources"}, which needs no network; {"kind": "folder", "folder", "listing"};
        {"kind": "archive", "name", "bytes", "mtime_ns"}; {"kind": "list", "name", "sha256"}; or {"kind": "url", "url"}
        with the server's metadata: "etag", "last_modified", "version", "bytes" or "listing".

    Raises:
        SourceError: there is no such source, it can't be read or reached, or the corpus needs an application.
    """
    if given is None:
        return {"kind": "card", "sources": [_identity(address) for address in urls.card_addresses(card)]}
    url = urls.validate(card, given)
    path = urls.local_path(card, url)
    if path is None:
        metadata = inspect(card, url, sleep=sleep)
        if metadata.pop("folder", False):
            metadata["listing"] = hashing.digest_lines(file_lists.identities(file_lists.list_folder(card, url)))
        return {"kind": "url", "url": redact(url), **metadata}
    with translate_os_errors(path):
        if path.is_dir():
            return {"kind": "folder", "folder": str(path), "listing": hashing.digest_lines(listing(path))}
        if path.suffix.lower() == ".csv":
            file_lists.list_table(card, path)
            return {"kind": "list", "name": path.name, "sha256": hashing.digest_file(path)}
        if not archive_members.is_archive(path):
            raise SourceError(
                f"The source of {card.name} is neither a folder nor an archive that can be read.",
                expected="a folder, a complete zip or tar (plain, gz, bz2, xz), or a .csv list of files",
                where=path,
                do=archive_members.advice(path),
            )
        facts = path.stat()
        return {"kind": "archive", "name": path.name, "bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}


def _identity(address: Address) -> dict[str, Any]:
    """Return the fields of a card's address that identify its data."""
    facts = {"url": redact(address.url), **checksums(address)}
    if address.files:
        facts["files"] = hashing.digest_file(find(address.files))
    return facts | ({"dataverse": address.dataverse} if address.dataverse else {})


def check_reachable(card: Card, given: str | None) -> None:
    """Check that a source to download answers, once and within seconds.

    Raises:
        SourceError: the address, or every address of the card, does not answer or answers with an error.
    """
    if given is not None:
        if urls.local_path(card, urls.validate(card, given)) is None:
            inspect(card, given, patience=0.0)
        return
    faults = list[SourceError]()
    for address in urls.card_addresses(card):
        try:
            if urls.local_path(card, address.url) is None:
                url = file_lists.list_address(card, address)[0].address.url if address.files else address.url
                inspect(card, url, patience=0.0)
            return
        except SourceError as error:
            faults.append(error)
    raise all_failed(card, faults, "reached")


def list_tree(out: Path, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Write files.parquet and root.json of out/tree; return its figures.

    The figures are those of `fetch.fetch`.
    """
    files = [replace(file, mtime_ns=0) for file in hash_folder(out / TREE, {}, progress)]
    write_files(out / FILES, files)
    hashing.write_json(out / ROOT, {"root": TREE})
    return {"files": len(files), "bytes": sum(file.bytes for file in files)}


def root(folder: Path, given: str | None = None) -> Path:
    """Return the corpus's root of a source output.

    Args:
        given: the user's own source, if it is known: a root outside the output must be this folder.

    Raises:
        StoreError: the output names another root.
        SourceError: a referenced folder is no longer there.
    """
    stored = read_facts(folder / ROOT, dict).get("root")
    named = Path(stored) if isinstance(stored, str) and "\0" not in stored else Path()
    if stored != TREE and not (named.is_absolute() and (given is None or named == urls.as_path(given))):
        raise unreadable(f"root {stored!r}", folder / ROOT, TREE if given is None else f"{TREE}, or {given}")
    path = folder / named
    if not path.is_dir():
        raise SourceError("A corpus's folder is gone.", where=path, do="restore it, or name another one with --source")
    return path


def read_files(folder: Path) -> "pd.DataFrame":
    """Return a source output's files, sorted by path.

    Columns: path (relative to the root, posix), bytes, mtime_ns, sha256.
    """
    files: pd.DataFrame = _table(folder).to_pandas()
    return files


def content_digest(folder: Path) -> str:
    """Return a digest of the paths, sizes and sha256 of a source output."""
    return hashing.digest_lines((file.path, file.bytes, file.sha256) for file in file_rows(folder))


@contextlib.contextmanager
def translate_os_errors(where: Path) -> Iterator[None]:
    """Turn OSError into SourceError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise SourceError(
            "The disk is full." if full else "A source can't be read or stored.",
            got=error,
            where=where,
            do="free some space and run again" if full else None,
        ) from error


def all_failed(card: Card, faults: list[SourceError], what: str) -> SourceError:
    """Return the error for a card whose addresses all failed."""
    if len(faults) == 1:
        return faults[0]
    away = any(fault.away for fault in faults)
    return SourceError(
        f"{card.name} can be {what} from none of its {len(faults)} addresses.", children=faults, away=away
    )


def file_rows(folder: Path) -> list[File]:
    """Return a source output's files, sorted by path."""
    return [File(**row) for row in _table(folder).to_pylist()]


def _table(folder: Path) -> "pa.Table":
    table = read_table(folder / FILES, COLUMNS)
    for name in table["path"].to_pylist():
        if name is None or not inside(name):
            raise unreadable(f"path {name!r}", folder / FILES)
    return table


def write_files(path: Path, files: list[File]) -> None:
    """Write files.parquet; equal rows give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
    pq.write_table(pa.Table.from_pylist([asdict(file) for file in files], schema=schema), path)
