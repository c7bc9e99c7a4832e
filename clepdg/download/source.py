"""Stage source: bring a corpus's files into reach, from a folder, an archive, a list of files, or an address.

`state` says what a source is without reading it, `fetch` brings it: folders are referenced, archives extracted, a
card's addresses tried one after another. Downloads are resumed and held to the card's checksums; where a publisher
gives none, what came first is recorded and holds from then on. The output is files.parquet and root.json.
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
    """Return, as JSON, what identifies a source without reading it.

    Args:
        card: the corpus's card.
        given: the user's own folder, archive, list of files (.csv), or any address that fsspec knows; None takes the
            card's addresses.

        sleep: waits, in seconds, where a server says that it is busy.

    Returns:
        {"kind": "card", "sources"}, which needs no network: what came first is recorded and holds; {"kind": "folder",
        "folder", "listing"}; {"kind": "archive", "name", "bytes", "mtime_ns"}; {"kind": "list", "name", "sha256"}; or
        {"kind": "url", "url"} with what the server says: "etag", "last_modified", "version", "bytes" or "listing".

    Raises:
        SourceError: there is no such source, it can't be read or reached, or the corpus has to be applied for.
    """
    if given is None:
        return {"kind": "card", "sources": [_identity(address) for address in urls.card_addresses(card)]}
    url = urls.validate(card, given)
    path = urls.local_path(card, url)
    if path is None:
        said = inspect(card, url, sleep=sleep)
        if said.pop("folder", False):
            said["listing"] = hashing.digest_lines(file_lists.identities(file_lists.list_folder(card, url)))
        return {"kind": "url", "url": redact(url), **said}
    with translate_os_errors(path):
        if path.is_dir():
            return {"kind": "folder", "folder": str(path), "listing": hashing.digest_lines(listing(path))}
        if path.suffix.lower() == ".csv":
            file_lists.list_table(card, path)
            return {"kind": "list", "name": path.name, "sha256": hashing.digest_file(path)}
        if not archive_members.is_archive(path):
            raise SourceError(
                f"The source of {card.name} is neither a folder nor an archive that can be read.",
                expected="a folder, a whole zip or tar (plain, gz, bz2, xz), or a .csv list of files",
                where=path,
                do="look whether its download is complete",
            )
        facts = path.stat()
        return {"kind": "archive", "name": path.name, "bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}


def _identity(address: Address) -> dict[str, Any]:
    """Return what of a card's address decides what it gives."""
    facts = {"url": redact(address.url), **checksums(address)}
    if address.files:
        facts["files"] = hashing.digest_file(find(address.files))
    return facts | ({"dataverse": address.dataverse} if address.dataverse else {})


def check_reachable(card: Card, given: str | None) -> None:
    """Raise where a source that has to be downloaded can't be reached; one attempt of a few seconds for each address.

    Raises:
        SourceError: the address does not answer, or answers with an error; of a card's addresses one is enough.
    """
    if given is not None:
        if urls.local_path(card, urls.validate(card, given)) is None:
            inspect(card, given, patience=0.0)
        return
    faults: list[str] = []
    for address in urls.card_addresses(card):
        try:
            if urls.local_path(card, address.url) is None:
                url = file_lists.list_address(card, address)[0].address.url if address.files else address.url
                inspect(card, url, patience=0.0)
            return
        except SourceError as error:
            faults.append(str(error))
    raise all_failed(card, faults, "reached")


def list_tree(out: Path, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Write files.parquet and root.json for a tree that was made in out/tree; return the figures of `fetch`."""
    files = [replace(file, mtime_ns=0) for file in hash_folder(out / TREE, {}, progress)]
    write_files(out / FILES, files)
    hashing.write_json(out / ROOT, {"root": TREE})
    return {"files": len(files), "bytes": sum(file.bytes for file in files)}


def root(folder: Path, given: str | None = None) -> Path:
    """Return the corpus's root of a source output.

    Args:
        given: the user's own source, if that is known: a root outside the output has to be this folder.

    Raises:
        StoreError: the output names a root that can't be its own.
        SourceError: a referenced folder is no longer there.
    """
    said = read_facts(folder / ROOT, dict).get("root")
    named = Path(said) if isinstance(said, str) and "\0" not in said else Path()
    if said != TREE and not (named.is_absolute() and (given is None or named == urls.as_path(given))):
        raise unreadable(f"root {said!r}", folder / ROOT, TREE if given is None else f"{TREE}, or {given}")
    path = folder / named
    if not path.is_dir():
        raise SourceError("A corpus's folder is gone.", where=path, do="bring it back, or name another one by --source")
    return path


def read_files(folder: Path) -> "pd.DataFrame":
    """Return a source output's files: path (relative to the root, posix), bytes, mtime_ns, sha256; sorted by path."""
    files: pd.DataFrame = _table(folder).to_pandas()
    return files


def content_digest(folder: Path) -> str:
    """Return the digest of what a source output holds: paths, sizes and sha256, not times or places."""
    return hashing.digest_lines((file.path, file.bytes, file.sha256) for file in file_rows(folder))


@contextlib.contextmanager
def translate_os_errors(where: Path) -> Iterator[None]:
    """Turn an error of the disk into one of ours."""
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


def all_failed(card: Card, faults: list[str], what: str) -> SourceError:
    """Return the error that no address of a card is left to try."""
    if len(faults) == 1:
        return SourceError(faults[0])
    tried = "\n".join(f"  {number}. {fault}" for number, fault in enumerate(faults, start=1))
    return SourceError(f"{card.name} can be {what} from none of its {len(faults)} addresses.\n{tried}")


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
