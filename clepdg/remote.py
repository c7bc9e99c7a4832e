"""Sources of many files: a table of addresses, a Dataverse dataset, or a folder on anything that fsspec can list.

Several files are downloaded at once. Each is whole, or it is not there: it gets its name after its size and checksum
were checked, so that a killed run goes on with the first file that is missing.
"""

import contextlib
import csv
import io
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from clepdg import downloads, objects, store
from clepdg.addresses import HASHES, by_hand, checksums, shown
from clepdg.archives import Progress, ignored, some
from clepdg.cards import MANIFESTS, Address, Card
from clepdg.corpora.grammar import AUDIO_SUFFIXES
from clepdg.errors import SourceError

AT_ONCE: Final = 8  # files under way
FAILED_FILES: Final = 5  # after so many the server, not the file, is at fault
TABLE_COLUMNS: Final = {"path", "url", "bytes", "md5", "sha256"}


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One file of a source: where it goes below the root, where it lies, and which version its listing names."""

    path: str
    address: Address
    version: str = ""

    @property
    def identity(self) -> str:
        """What tells this file, in this version, from every other."""
        return store.digest([self.path, asdict(self.address), self.version])


def of_card(card: Card, address: Address) -> list[Remote]:
    """Return the files of one of a card's addresses: of its table, or of its Dataverse dataset."""
    if address.dataverse:
        return of_dataverse(card, address)
    return of_table(card, MANIFESTS / str(address.files), address.url)


def of_table(card: Card, table: Path, base: str = "") -> list[Remote]:
    """Return the files that a CSV table names: columns path or url, and bytes, md5 or sha256 where they are known.

    Args:
        base: the address that a path without a url lies below.

    Raises:
        SourceError: the table can't be read, or rows of it can't be used; all of them in one error.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"The table of {card.name}'s files can't be read.", got=error, where=table) from error
    columns = set(rows[0]) if rows else set()
    if not rows or not columns <= TABLE_COLUMNS or not columns & {"path", "url"}:
        raise SourceError(
            f"The table of {card.name}'s files is not one.",
            got=sorted(map(str, columns)) or "no rows",
            expected="columns path, url (one of them at least), bytes, md5, sha256",
            where=table,
        )
    files, faults = list[Remote](), list[str]()
    for number, row in enumerate(rows, start=2):
        try:
            files.append(_of_row(row, base))
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    return _checked(card, files, faults, str(table))


def _of_row(row: Mapping[str, str | None], base: str) -> Remote:
    said = {name: (value or "").strip() for name, value in row.items()}
    path, url = said.get("path", ""), said.get("url", "")
    if not url and not (path and base):
        raise ValueError("no url")
    url = url or base + quote(path)
    if not urlsplit(url).scheme:
        raise ValueError(f"{url} is not an address")
    size = said.get("bytes")
    if size and not size.isdigit():
        raise ValueError(f"{size} is not a number of bytes")
    sums = {name: said[name].lower() for name in HASHES if said.get(name)}
    path = path or PurePosixPath(unquote(urlsplit(url).path)).name
    return Remote(path=path, address=Address(url=url, bytes=int(size) if size else None, **sums))


def of_dataverse(card: Card, address: Address) -> list[Remote]:
    """Return the audio files of a Dataverse dataset, with the sizes and md5 sums that the repository publishes.

    Raises:
        SourceError: the repository does not answer, or not with a dataset.
    """
    base = address.url.rstrip("/")
    where = f"{base}/api/datasets/:persistentId/?persistentId={address.dataverse}"
    listed = downloads.read_json(card, where)
    files, faults = list[Remote](), list[str]()
    try:
        for item in listed["data"]["latestVersion"]["files"]:
            facts = item["dataFile"]
            path = "/".join(part for part in (item.get("directoryLabel"), facts["filename"]) if part)
            if PurePosixPath(path).suffix.lower() not in AUDIO_SUFFIXES:
                continue
            sums = {str(facts.get("checksum", {}).get("type", "")).lower(): facts.get("checksum", {}).get("value")}
            sums |= {"md5": facts["md5"]} if facts.get("md5") else {}
            known = {name: str(sums[name]) for name in HASHES if sums.get(name)}
            url = f"{base}/api/access/datafile/{facts['id']}"
            files.append(Remote(path=path, address=Address(url=url, bytes=facts.get("filesize"), **known)))
    except (KeyError, TypeError) as error:
        raise SourceError(
            f"What the repository of {card.name} answers is not the listing of a dataset.", got=repr(error), where=where
        ) from error
    return _checked(card, files, faults, where)


def of_folder(card: Card, url: str) -> list[Remote]:
    """Return the files below an address that fsspec can list: s3://bucket/folder and the like.

    Raises:
        SourceError: it can't be listed.
    """
    with objects.errors(card, url):
        fs, root = objects.file_system(url)
        found = fs.find(root, detail=True)
    files = []
    for name, facts in sorted(found.items()):
        path = name[len(root) :].strip("/") if name.startswith(root) else name
        if not ignored(path.split("/")):
            address = Address(url=fs.unstrip_protocol(name), bytes=facts.get("size"))
            files.append(Remote(path=path, address=address, version=objects.version(facts)))
    return _checked(card, files, [], url)


def _checked(card: Card, files: list[Remote], faults: list[str], where: str) -> list[Remote]:
    seen = set[str]()
    for file in files:
        parts = PurePosixPath(file.path).parts
        if not parts or file.path.startswith("/") or ".." in parts or "\\" in file.path or "\0" in file.path:
            faults.append(f"{file.path}: leads out of the corpus's folder")
        if file.path in seen:
            faults.append(f"{file.path}: is there twice")
        seen.add(file.path)
    if faults or not files:
        raise SourceError(
            f"The list of {card.name}'s files can't be used.", got=some(faults) or "no files", where=shown(where)
        )
    return sorted(files, key=lambda file: file.path)


def download_all(
    card: Card,
    files: Iterable[Remote],
    folder: Path,
    tree: Path,
    known: Mapping[str, tuple[Path, str]],
    progress: Progress,
    sleep: Callable[[float], None],
) -> dict[str, str]:
    """Bring files into the new folder tree, several at once, and return {path: identity}.

    Args:
        folder: survives a kill; holds what was brought so far.
        known: identity -> (path, sha256) of a file that an earlier output holds: it is copied, not downloaded again.
        progress: called with (bytes done, bytes in all) over all files.

    Raises:
        SourceError: files that could not be downloaded; all of them in one error, but no more than a few are tried.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = list(files)
    amount = _Amount(progress, sum(file.address.bytes or 0 for file in files))
    faults: list[str] = []

    def bring(file: Remote) -> None:
        whole = folder / file.identity
        if len(faults) >= FAILED_FILES:
            return
        try:
            if not (_stands(file, whole) or _copied(file, whole, known)):
                got = downloads.download(
                    card, file.address, whole.with_suffix(".part"), amount.of(file.identity), sleep, client
                )
                os.replace(got, whole)
                shutil.rmtree(whole.with_suffix(".part"), ignore_errors=True)
            amount.of(file.identity)(whole.stat().st_size, 0)
        except SourceError as error:
            said = str(error).partition("\n  do:")[0]  # what to do is said once, for all
            faults.append(f"{file.path}: {' '.join(said.split())}")

    with downloads.client(downloads.STALL_SECONDS) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            tasks = [pool.submit(bring, file) for file in files]
            for task in wait(tasks, return_when=FIRST_EXCEPTION).done:
                task.result()
        except BaseException:  # a full disk, Ctrl-C: what is under way ends as well
            amount.stopped = True
            pool.shutdown(cancel_futures=True)
            raise
    if faults:
        kept = sum((folder / file.identity).exists() for file in files)
        raise SourceError(
            f"{len(faults)} or more of {len(files)} files of {card.name} could not be downloaded.",
            got="; ".join(faults[:FAILED_FILES]),
            do=f"run again, {kept} files are kept; or {by_hand(card)}",
        )
    for file in files:
        place = tree / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        os.utime(folder / file.identity, ns=(0, 0))
        try:
            os.link(folder / file.identity, place)
        except OSError:  # a file system without links
            shutil.copy2(folder / file.identity, place)
    return {file.path: file.identity for file in files}


class _Amount:
    """Adds up the bytes of files that are under way at once, and ends them once one had to stop."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total = progress, total
        self.done: dict[str, int] = {}
        self.sum, self.lock = 0, threading.Lock()
        self.stopped = False

    def of(self, name: str) -> Progress:
        def report(done: int, total: int) -> None:
            if self.stopped:
                raise SourceError("Stopped with the others.")
            with self.lock:
                self.sum += done - self.done.get(name, 0)
                self.done[name] = done
                self.progress(self.sum, self.total)

        return report


def _stands(file: Remote, whole: Path) -> bool:
    """Tell whether an earlier run brought a file; a power cut may have left its name without its bytes."""
    if not whole.exists():
        return False
    hashes = downloads.hash_file(file.address, whole)
    size = whole.stat().st_size
    right = all(hashes[name].hexdigest() == value for name, value in checksums(file.address).items())
    if right and file.address.bytes in (None, size):
        return True
    whole.unlink()
    return False


def _copied(file: Remote, whole: Path, known: Mapping[str, tuple[Path, str]]) -> bool:
    path, sha256 = known.get(file.identity, (None, ""))
    if path is None:
        return False
    with contextlib.suppress(OSError):
        copy = whole.with_suffix(".copy")
        shutil.copyfile(path, copy)
        if store.digest_file(copy) == sha256:
            os.replace(copy, whole)
            return True
        copy.unlink()
    return False


def lines(files: Iterable[Remote]) -> list[Any]:
    """Return what identifies a list of files, as JSON."""
    return sorted(file.identity for file in files)
