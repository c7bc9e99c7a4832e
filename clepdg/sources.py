"""Stage source: bring a corpus's files into reach, from a folder, an archive or a web address.

`state` says what a source is without reading it, `fetch` brings it: folders are referenced, archives extracted,
downloads resumed and held to the checksum of the card's own address. The output is files.parquet and root.json.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from clepdg import archives, store
from clepdg.archives import File, Progress
from clepdg.cards import Address, Card
from clepdg.downloads import by_hand, checksums, download, hash_file, look, shown, verify
from clepdg.errors import SourceError

if TYPE_CHECKING:
    import pandas as pd

FILES: Final = "files.parquet"
ROOT: Final = "root.json"
TREE: Final = "tree"


def state(card: Card, given: str | None) -> dict[str, Any]:
    """Return, as JSON, what identifies a source without reading it.

    Args:
        card: the corpus's card.
        given: the user's own folder, archive, or http(s) or file address; None takes the card's first address.

    Returns:
        {"kind": "folder", "folder", "listing"}, {"kind": "archive", "name", "bytes", "mtime_ns"}, or {"kind": "url",
        "url"} with the card's "md5" and "sha256", or else with what the server says: "etag", "last_modified", "bytes".

    Raises:
        SourceError: there is no such source, it can't be read or reached, or the corpus has to be applied for.
    """
    address = _address(card, given)
    if checksums(address):
        return {"kind": "url", "url": shown(address.url), **checksums(address)}
    path = _local(card, address.url)
    if path is None:
        return {"kind": "url", "url": shown(address.url), **look(card, address.url)}
    with _os_errors(path):
        if path.is_dir():
            return {"kind": "folder", "folder": str(path), "listing": store.digest_lines(_listing(path))}
        if not archives.is_archive(path):
            raise SourceError(
                f"The source of {card.name} is neither a folder nor an archive that can be read.",
                expected="a folder, or a whole zip or tar (plain, gz, bz2, xz)",
                where=path,
                do="look whether its download is complete",
            )
        facts = path.stat()
        return {"kind": "archive", "name": path.name, "bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}


def reach(card: Card, given: str | None) -> None:
    """Raise where a source that has to be downloaded can't be reached; one attempt of a few seconds.

    Raises:
        SourceError: the address does not answer, or answers with an error.
    """
    address = _address(card, given)
    if _local(card, address.url) is None:
        look(card, address.url)


def fetch(
    card: Card,
    given: str | None,
    out: Path,
    *,
    previous: Path | None = None,
    progress: Progress = lambda done, total: None,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Bring a source into out: files.parquet, root.json and, unless it is a folder, the extracted tree.

    Args:
        card: the corpus's card.
        given: as in `state`.
        out: the working folder of the output; a broken download in it is resumed.
        previous: an earlier output of this stage: a folder's files whose path, size and time are the same there are
            not hashed again.
        progress: called with (bytes done, bytes in all, 0 = unknown) of the download, extraction or hashing under way.
        sleep: waits between attempts, in seconds.

    Returns:
        The figures {"files", "bytes"}.

    Raises:
        SourceError: the source can't be read, reached or extracted, is not what the card says, or the disk is full.
    """
    address = _address(card, given)
    path = _local(card, address.url)
    with _os_errors(out):
        _clear(out)
        if path is not None and path.is_dir():
            root, files = str(path), _hash_folder(path, previous, progress)
        else:
            root, files = TREE, _extract(card, address, path, out, progress, sleep)
        _write_files(out / FILES, files)
        store.write_json(out / ROOT, {"root": root})
    return {"files": len(files), "bytes": sum(file.bytes for file in files)}


def list_tree(out: Path, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """Write files.parquet and root.json for a tree that was made in out/tree; return the figures of `fetch`."""
    files = [replace(file, mtime_ns=0) for file in _hash_folder(out / TREE, None, progress)]
    _write_files(out / FILES, files)
    store.write_json(out / ROOT, {"root": TREE})
    return {"files": len(files), "bytes": sum(file.bytes for file in files)}


def root(folder: Path) -> Path:
    """Return the corpus's root of a source output.

    Raises:
        SourceError: a referenced folder is no longer there.
    """
    path: Path = folder / json.loads((folder / ROOT).read_text())["root"]
    if not path.is_dir():
        raise SourceError("A corpus's folder is gone.", where=path, do="bring it back, or name another one by --source")
    return path


def read_files(folder: Path) -> "pd.DataFrame":
    """Return a source output's files: path (relative to the root, posix), bytes, mtime_ns, sha256; sorted by path."""
    import pandas as pd

    return pd.read_parquet(folder / FILES)


def content_digest(folder: Path) -> str:
    """Return the digest of what a source output holds: paths, sizes and sha256, not times or places."""
    return store.digest_lines((file.path, file.bytes, file.sha256) for file in _read_files(folder))


def _address(card: Card, given: str | None) -> Address:
    """Return the user's own address, which no checksum binds, or the card's first one."""
    if given is None:
        if card.sources:
            return card.sources[0]
        raise SourceError(f"{card.name} can't be downloaded: it has to be asked for.", do=by_hand(card))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", given)
    with contextlib.suppress(ValueError):  # from urlsplit
        host = urlsplit(given).hostname if scheme else None
        valid = {"http": bool(host), "https": bool(host), "file": host in (None, "localhost")}
        if valid.get(scheme[1].lower(), False) if scheme else given.strip():
            return Address(url=given)
    raise SourceError(
        f"The source of {card.name} is not an address.",
        got=repr(given),
        expected="a folder, a zip or tar archive, or an http://, https:// or file:/// address",
        where="--source",
    )


def _local(card: Card, url: str) -> Path | None:
    """Return the existing path that an address names, or None for one on the web."""
    if re.match("https?://", url, re.IGNORECASE):
        return None
    path = Path(url2pathname(urlsplit(url).path) if re.match("file://", url, re.IGNORECASE) else url)
    path = path.expanduser().absolute()
    if not path.exists():
        raise SourceError(f"The source of {card.name} does not exist.", got=url, where=path, do=by_hand(card))
    return path


@contextlib.contextmanager
def _os_errors(where: Path) -> Iterator[None]:
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


def _clear(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / TREE, ignore_errors=True)
    for name in (FILES, ROOT):
        (out / name).unlink(missing_ok=True)


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    """Return (relative path, bytes, mtime_ns) of all files, sorted; links are followed."""
    rows: list[tuple[str, int, int]] = []
    faults: list[str] = []
    _walk(folder, (), frozenset(), rows, faults)
    if faults:
        raise _faulty(folder, faults)
    if not rows:
        raise SourceError("The folder holds no files.", where=folder, do="look whether it is the corpus's folder")
    return sorted(rows)


def _walk(
    folder: Path,
    above: tuple[str, ...],
    seen: frozenset[tuple[int, int]],
    rows: list[tuple[str, int, int]],
    faults: list[str],
) -> None:
    me = (folder.stat().st_dev, folder.stat().st_ino)
    if me in seen:
        faults.append(f"{'/'.join(above)}: a link to a folder above itself")
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            parts = (*above, entry.name)
            if archives.ignored(parts):
                continue
            path = "/".join(parts)
            try:
                facts = entry.stat()
                if stat.S_ISDIR(facts.st_mode):
                    if not archives.ignored((*parts, "")):
                        _walk(folder / entry.name, parts, seen | {me}, rows, faults)
                elif not stat.S_ISREG(facts.st_mode):
                    faults.append(f"{path}: neither a file nor a folder")
                elif not archives.is_unicode(path):
                    faults.append(f"{path!r}: its name is not valid Unicode")
                else:
                    rows.append((path, facts.st_size, facts.st_mtime_ns))
            except OSError as error:
                faults.append(f"{path}: {'a broken link' if entry.is_symlink() else error.strerror}")


def _hash_folder(folder: Path, previous: Path | None, progress: Progress) -> list[File]:
    known, rows = _known(previous), _listing(folder)
    done, total = 0, sum(size for _, size, _ in rows)
    files: list[File] = []
    faults: list[str] = []
    for path, size, mtime_ns in rows:
        try:
            sha256 = known.get((path, size, mtime_ns)) or store.digest_file(folder / path)
            facts = (folder / path).stat()
            if (facts.st_size, facts.st_mtime_ns) != (size, mtime_ns):
                faults.append(f"{path}: changed while it was read")
            files.append(File(path, size, mtime_ns, sha256))
        except OSError as error:
            faults.append(f"{path}: {error.strerror}")
        done += size
        progress(done, total)
    if faults:
        raise _faulty(folder, faults)
    return files


def _faulty(folder: Path, faults: list[str]) -> SourceError:
    return SourceError(f"{len(faults)} entries of a folder can't be used.", got=archives.some(faults), where=folder)


def _known(previous: Path | None) -> dict[tuple[str, int, int], str]:
    """Return {(path, bytes, mtime_ns): sha256} of an earlier output for a folder; empty where there is none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if previous is not None and json.loads((previous / ROOT).read_text())["root"] != TREE:
            return {(file.path, file.bytes, file.mtime_ns): file.sha256 for file in _read_files(previous)}
    return {}


def _read_files(folder: Path) -> list[File]:
    import pyarrow.parquet as pq

    return [File(**row) for row in pq.read_table(folder / FILES).to_pylist()]


def _write_files(path: Path, files: list[File]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("path", pa.string()), ("bytes", pa.int64()), ("mtime_ns", pa.int64()), ("sha256", pa.string())]
    pq.write_table(pa.Table.from_pylist([asdict(file) for file in files], schema=pa.schema(fields)), path)


def _extract(
    card: Card, address: Address, path: Path | None, out: Path, progress: Progress, sleep: Callable[[float], None]
) -> list[File]:
    if path is not None:
        verify(card, address, path.stat().st_size, hash_file(address, path))
        return archives.extract(path, out / TREE, progress=progress)
    part = download(card, address, out / "download.resume", progress, sleep)
    try:
        return archives.extract(part, out / TREE, progress=progress)
    except SourceError as error:
        if not checksums(address):  # perhaps the download is at fault: the next run takes it anew
            part.unlink()
        raise SourceError(
            f"What was downloaded for {card.name} can't be extracted.", got=error, where=shown(address.url)
        ) from error
