"""Fetch a corpus's files (stage source).

Folders are referenced, archives extracted, a card's addresses tried in order. Downloads are resumed and verified by the
card's checksums or, where there are none, by the record of the first download.
"""

import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clepdg import hashing
from clepdg.callbacks import Progress
from clepdg.corpora.cards import Address, Card
from clepdg.download import archives, file_lists, lockfile, many_files, object_store, one_file, source, upstream, urls
from clepdg.download.checksums import hash_file, verify
from clepdg.download.file_lists import Remote
from clepdg.download.folders import File, hash_folder
from clepdg.download.source import all_failed, translate_os_errors
from clepdg.download.urls import checksums, mirror_of, redact, redact_with_mirror
from clepdg.errors import SourceError, StoreError
from clepdg.redaction import is_web
from clepdg.store.documents import Documents
from clepdg.store.readers import read_facts

log = logging.getLogger("clepdg")


def fetch(
    card: Card,
    given: str | None,
    out: Path,
    *,
    pins: Documents | None = None,
    previous: Path | None = None,
    progress: Progress = lambda done, total: None,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Fetch a source into the folder out.

    Writes files.parquet, root.json and, unless the source is a folder, the tree.

    Args:
        card: the corpus's card.
        given: the user's own source, as in `source.identify`.
        out: the working folder of the output; an interrupted download in it is resumed.
        pins: where pins/<corpus>.json records first downloads without a checksum, which later ones must match.
        previous: an earlier output of this stage: unchanged files are neither hashed nor downloaded again.
        progress: called with (bytes done, bytes in all, 0 = unknown) of the current download, extraction or hashing.
        sleep: waits between attempts, in seconds.

    Returns:
        The figures {"files", "bytes"}.

    Raises:
        SourceError: the source can't be read, reached or extracted, fails verification, or the disk is full.
    """
    with translate_os_errors(out):
        _clear(out)
        fetched = _Fetch(card, out, pins, previous, progress, sleep)
        if given is None:
            fetched.from_card()
        else:
            fetched.from_user(urls.validate(card, given))
    return fetched.figures


@dataclass
class _Fetch:
    """One fetch: the arguments that all kinds of sources share."""

    card: Card
    out: Path
    pins: Documents | None
    previous: Path | None
    progress: Progress
    sleep: Callable[[float], None]
    figures: dict[str, Any] = field(default_factory=dict)

    def from_card(self) -> None:
        """Try the card's addresses in order.

        A failed address keeps its partial download for the next run.
        """
        faults = list[SourceError]()
        for address in urls.card_addresses(self.card):
            try:
                bound = pinned(self.card, address, self.pins)
                if address.many:
                    self._fetch_files(files := self._list_files(bound), redact(address.url))
                    metadata = self._files_metadata(bound, files)
                else:
                    metadata = self._fetch_archive(bound, urls.local_path(self.card, address.url))
                if metadata:
                    self._record(address, said=metadata, changed=None, mirror=mirror_of(address.url))
            except SourceError as error:
                _clear(self.out)
                faults.append(error)
                continue
            for fault in faults:
                log.warning(
                    "%s was downloaded from %s, since: %s", self.card.name, redact_with_mirror(address.url), fault
                )
            return
        raise all_failed(self.card, faults, "downloaded")

    def from_user(self, url: str) -> None:
        """Fetch the user's own source, without the card's checksums."""
        path = urls.local_path(self.card, url)
        if path is None:
            if not is_web(url) and object_store.inspect(self.card, url).get("folder"):
                self._fetch_files(file_lists.list_folder(self.card, url), url)
            else:
                self._fetch_archive(Address(url=url), None)
        elif path.is_dir():
            self._finish(str(path), hash_folder(path, _previous_hashes(self.previous), self.progress))
        elif path.suffix.lower() == ".csv":
            self._fetch_files(file_lists.list_table(self.card, path), str(path))
        else:
            self._fetch_archive(Address(url=url), path)

    def _fetch_archive(self, address: Address, path: Path | None) -> dict[str, Any]:
        """Download an archive unless it is local, extract it, return its metadata."""
        card = self.card
        if path is not None:
            metadata = upstream.metadata(card, address)
            verify(card, address, path.stat().st_size, hash_file(address, path))
            files = archives.extract(path, self.out / source.TREE, progress=self.progress, nested=card.nested)
        else:
            folder = self.out / f"download-{hashing.digest(address.url)[:8]}.resume"
            part = one_file.download(card, address, folder, self.progress, self.sleep)
            metadata = one_file.saved_metadata(part)
            try:
                files = archives.extract(part, self.out / source.TREE, progress=self.progress, nested=card.nested)
            except SourceError as error:
                if not checksums(address):  # the download may be at fault: the next run repeats it
                    part.unlink()
                raise SourceError(
                    f"The download of {card.name} can't be extracted.",
                    got=error,
                    where=redact_with_mirror(address.url),
                ) from error
            if address in card.sources and not checksums(address):
                self._record(address, sha256=hashing.digest_file(part), bytes=part.stat().st_size)
        self._finish(source.TREE, files)
        return metadata

    def _fetch_files(self, files: list[Remote], where: str) -> None:
        """Download single files, several in parallel."""
        folder = self.out / f"files-{hashing.digest(where)[:8]}.resume"
        known = _previous_files(self.previous)
        fetched = many_files.download_all(
            self.card, files, folder, self.out / source.TREE, known, self.progress, self.sleep
        )
        listed = hash_folder(self.out / source.TREE, {}, self.progress)
        self._finish(source.TREE, [replace(file, mtime_ns=0) for file in listed], remote=fetched)

    def _list_files(self, address: Address) -> list[Remote]:
        """Return the files of a card's address.

        A repository's listing must match the record of the first download.
        """
        files = file_lists.list_address(self.card, address, self.sleep)
        if address.dataverse:
            digest, size = (
                hashing.digest_lines(file_lists.identities(files)),
                sum(file.address.bytes or 0 for file in files),
            )
            if address.sha256 and digest != address.sha256:
                raise SourceError(
                    f"The file list of {self.card.name}'s publisher has changed since the first download.",
                    got=f"{len(files)} files, {size} bytes, listing {digest}",
                    expected=f"{address.bytes} bytes, listing {address.sha256}, {address.recorded}",
                    where=redact_with_mirror(address.url),
                    do="compare both, and delete that record to accept the new files",
                )
            if not address.recorded:
                self._record(address, sha256=digest, bytes=size)
        return files

    def _files_metadata(self, address: Address, files: list[Remote]) -> dict[str, Any]:
        """Return the server's metadata of files; {} where it reports none."""
        with contextlib.suppress(SourceError):
            return upstream.files_metadata(self.card, address, files) if self.pins else {}
        return {}

    def _record(self, address: Address, **facts: Any) -> None:
        if self.pins is not None:
            lockfile.update(self.pins, self.card.name, address, **facts)

    def _finish(self, root: str, files: list[File], remote: dict[str, str] | None = None) -> None:
        source.write_files(self.out / source.FILES, files)
        hashing.write_json(self.out / source.ROOT, {"root": root} | ({"remote": remote} if remote else {}))
        self.figures = {"files": len(files), "bytes": sum(file.bytes for file in files)}


def pinned(card: Card, address: Address, documents: Documents | None) -> Address:
    """Return an address with its recorded checksum, unless it has one.

    All archives of a card are mirrors of one another: the record of any of them holds for all.
    """
    if documents is None or checksums(address) or address.files:
        return address
    mirrors = [] if address.many else [mirror for mirror in card.sources if not mirror.many]
    records = lockfile.read(documents, card.name)
    found = (records.get(lockfile.name(each), {}) for each in (address, *mirrors))
    record = next((record for record in found if "sha256" in record), None)
    if record is None:
        return address
    where = f"recorded {record['date']} in {lockfile.where(documents, card.name)}"
    return replace(address, bytes=record["bytes"], sha256=record["sha256"], recorded=where)


def _clear(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / source.TREE, ignore_errors=True)
    for name in (source.FILES, source.ROOT):
        (out / name).unlink(missing_ok=True)


def _previous_hashes(previous: Path | None) -> dict[tuple[str, int, int], str]:
    """Return the hashes of an earlier output for a folder.

    Keys are (path, bytes, mtime_ns); {} where there is no such output.
    """
    with contextlib.suppress(StoreError):
        if previous is not None and read_facts(previous / source.ROOT, dict).get("root") != source.TREE:
            return {(file.path, file.bytes, file.mtime_ns): file.sha256 for file in source.file_rows(previous)}
    return {}


def _previous_files(previous: Path | None) -> dict[str, tuple[Path, str]]:
    """Return {identity: (path, sha256)} of an earlier output's single files."""
    with contextlib.suppress(StoreError, AttributeError):
        if previous is not None:
            sums = {file.path: file.sha256 for file in source.file_rows(previous)}
            remote = read_facts(previous / source.ROOT, dict).get("remote", {})
            return {
                identity: (previous / source.TREE / path, sums[path])
                for path, identity in remote.items()
                if path in sums
            }
    return {}
