"""Stage source: bring a corpus's files here.

Folders are referenced, archives extracted, a card's addresses tried one after another. Downloads are resumed and held
to the card's checksums; where a publisher gives none, what came first is recorded and holds from then on.
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
from clepdg.download.urls import checksums, is_web, mirror_of, redact, redact_with_mirror
from clepdg.errors import SourceError, StoreError
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
    """Bring a source into out: files.parquet, root.json and, unless it is a folder, the tree.

    Args:
        card: the corpus's card.
        given: as in `state`.
        out: the working folder of the output; a broken download in it is resumed.
        pins: where pins/<corpus>.json records what the card's addresses without a checksum gave first, which holds
            from then on.
        previous: an earlier output of this stage: what is the same there is neither hashed nor downloaded again.
        progress: called with (bytes done, bytes in all, 0 = unknown) of the download, extraction or hashing under way.
        sleep: waits between attempts, in seconds.

    Returns:
        The figures {"files", "bytes"}.

    Raises:
        SourceError: the source can't be read, reached or extracted, is not what the card says, or the disk is full.
    """
    with translate_os_errors(out):
        _clear(out)
        brought = _Fetch(card, out, pins, previous, progress, sleep)
        if given is None:
            brought.from_card()
        else:
            brought.from_own(urls.validate(card, given))
    return brought.figures


@dataclass
class _Fetch:
    """One fetch: what all ways of bringing a source need."""

    card: Card
    out: Path
    pins: Documents | None
    previous: Path | None
    progress: Progress
    sleep: Callable[[float], None]
    figures: dict[str, Any] = field(default_factory=dict)

    def from_card(self) -> None:
        """Try the card's addresses in their order; each keeps what it brought for the next run."""
        faults: list[str] = []
        for address in urls.card_addresses(self.card):
            try:
                bound = pinned(self.card, address, self.pins)
                if address.many:
                    self._files(files := self._listed(bound), redact(address.url))
                    said = self._said(bound, files)
                else:
                    said = self._archive(bound, urls.local_path(self.card, address.url))
                if said:
                    self._record(address, said=said, changed=None, mirror=mirror_of(address.url))
            except SourceError as error:
                _clear(self.out)
                faults.append(str(error))
                continue
            for fault in faults:
                log.warning("%s was taken from %s, since: %s", self.card.name, redact_with_mirror(address.url), fault)
            return
        raise all_failed(self.card, faults, "downloaded")

    def from_own(self, url: str) -> None:
        """Bring what the user names, which no checksum of the card binds."""
        path = urls.local_path(self.card, url)
        if path is None:
            if not is_web(url) and object_store.inspect(self.card, url).get("folder"):
                self._files(file_lists.list_folder(self.card, url), url)
            else:
                self._archive(Address(url=url), None)
        elif path.is_dir():
            self._finish(str(path), hash_folder(path, _previous_hashes(self.previous), self.progress))
        elif path.suffix.lower() == ".csv":
            self._files(file_lists.list_table(self.card, path), str(path))
        else:
            self._archive(Address(url=url), path)

    def _archive(self, address: Address, path: Path | None) -> dict[str, Any]:
        """Download an archive unless it lies here, and extract it; return what its server said of it."""
        card = self.card
        if path is not None:
            said = upstream.metadata(card, address)
            verify(card, address, path.stat().st_size, hash_file(address, path))
            files = archives.extract(path, self.out / source.TREE, progress=self.progress, nested=card.nested)
        else:
            folder = self.out / f"download-{hashing.digest(address.url)[:8]}.resume"
            part = one_file.download(card, address, folder, self.progress, self.sleep)
            said = one_file.saved_metadata(part)
            try:
                files = archives.extract(part, self.out / source.TREE, progress=self.progress, nested=card.nested)
            except SourceError as error:
                if not checksums(address):  # perhaps the download is at fault: the next run takes it anew
                    part.unlink()
                raise SourceError(
                    f"What was downloaded for {card.name} can't be extracted.",
                    got=error,
                    where=redact_with_mirror(address.url),
                ) from error
            if address in card.sources and not checksums(address):
                self._record(address, sha256=hashing.digest_file(part), bytes=part.stat().st_size)
        self._finish(source.TREE, files)
        return said

    def _files(self, files: list[Remote], where: str) -> None:
        """Download single files, several at once."""
        folder = self.out / f"files-{hashing.digest(where)[:8]}.resume"
        known = _previous_files(self.previous)
        brought = many_files.download_all(
            self.card, files, folder, self.out / source.TREE, known, self.progress, self.sleep
        )
        found = hash_folder(self.out / source.TREE, {}, self.progress)
        self._finish(source.TREE, [replace(file, mtime_ns=0) for file in found], remote=brought)

    def _listed(self, address: Address) -> list[Remote]:
        """Return the files of a card's address, and hold a repository's listing to what it was at first."""
        files = file_lists.list_address(self.card, address, self.sleep)
        if address.dataverse:
            digest, size = (
                hashing.digest_lines(file_lists.identities(files)),
                sum(file.address.bytes or 0 for file in files),
            )
            if address.sha256 and digest != address.sha256:
                raise SourceError(
                    f"The files that {self.card.name}'s publisher lists are not what they were at the first download.",
                    got=f"{len(files)} files, {size} bytes, listing {digest}",
                    expected=f"{address.bytes} bytes, listing {address.sha256}, {address.recorded}",
                    where=redact_with_mirror(address.url),
                    do="compare, and delete that record to take the new ones",
                )
            if not address.recorded:
                self._record(address, sha256=digest, bytes=size)
        return files

    def _said(self, address: Address, files: list[Remote]) -> dict[str, Any]:
        """Return what the server says of a list of files; nothing where it does not want to be asked."""
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
    """Return an address with its recorded checksum, if it has no other.

    All archives of a card are one: what came first from any of them holds for every mirror.
    """
    if documents is None or checksums(address) or address.files:
        return address
    alike = [] if address.many else [mirror for mirror in card.sources if not mirror.many]
    records = lockfile.read(documents, card.name)
    found = (records.get(lockfile.name(each), {}) for each in (address, *alike))
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
    """Return {(path, bytes, mtime_ns): sha256} of an earlier output for a folder; empty where there is none."""
    with contextlib.suppress(StoreError):
        if previous is not None and read_facts(previous / source.ROOT, dict).get("root") != source.TREE:
            return {(file.path, file.bytes, file.mtime_ns): file.sha256 for file in source.file_rows(previous)}
    return {}


def _previous_files(previous: Path | None) -> dict[str, tuple[Path, str]]:
    """Return {identity: (path, sha256)} of the single files that an earlier output holds."""
    with contextlib.suppress(StoreError, AttributeError):
        if previous is not None:
            sums = {file.path: file.sha256 for file in source.file_rows(previous)}
            brought = read_facts(previous / source.ROOT, dict).get("remote", {})
            return {
                identity: (previous / source.TREE / path, sums[path])
                for path, identity in brought.items()
                if path in sums
            }
    return {}
