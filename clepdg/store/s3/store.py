"""A store in a bucket: compute locally, upload, write stage.json last; read from a verified cache.

    <stage>/<key>/stage.json              the record of the output; names the attempt that holds its files
    <stage>/<key>/<attempt>/<file>        each attempt has its own folder: two writers can't mix their bytes
    <stage>/<key>/<attempt>/files.tar     ... of many files, which would cost a request each
    <stage>/<key>/resume.json, resume/    checkpoints of a running computation

There is no distributed lock: the first to write stage.json wins, and the others drop their files and use the winner's.
"""

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from clepdg.errors import StoreError
from clepdg.hashing import json_bytes
from clepdg.store.layout import ASIDE, Item, folder_items
from clepdg.store.record import FORMAT, MARKER, STORE, UNREADABLE, Damaged, Record, damage, read_record
from clepdg.store.s3 import transfer
from clepdg.store.s3.bucket import Bucket, call_every
from clepdg.store.s3.cache import Cache
from clepdg.store.s3.checkpoints import Checkpoints
from clepdg.store.s3.documents import BucketDocuments
from clepdg.store.s3.inventory import bucket_items, remove_objects
from clepdg.store.s3.transfer import attempt_folder
from clepdg.store.store import Store


class RemoteStore(Store):
    """Stage outputs in a bucket; locks, working folders and cache in `root`."""

    def __init__(self, bucket: Bucket, cache: Cache, upload_seconds: float) -> None:
        super().__init__(cache.root)
        self.url = bucket.url
        self.bucket, self.cache, self.upload_seconds = bucket, cache, upload_seconds
        self.documents = BucketDocuments(bucket)
        self._formatted = False
        self._seen: dict[tuple[str, str], bytes | None] = {}  # stage.json as last read
        self._before: dict[tuple[str, str], bytes | None] = {}  # ... when the computation of a key began

    def lookup(self, stage: str, key: str) -> Record | str:
        """As Store.lookup, with one request.

        The files are not checked: they were whole when stage.json was written, and `local` verifies them.
        """
        super().local(stage, key)
        data = self._seen[stage, key] = self.bucket.read(f"{stage}/{key}/{MARKER}")
        if data is None:
            return "new"
        found = read_record(data, stage, key)
        return found if isinstance(found, str) or found.attempt else UNREADABLE

    def previous(self, stage: str, key: str) -> Record | None:
        """As Store.previous."""
        data = self.bucket.read(f"{stage}/{key}/{MARKER}")
        found = read_record(data, stage, key) if data else None
        return found if isinstance(found, Record) else None

    def local(self, stage: str, key: str) -> Path:
        """Return the folder of an output, downloaded and verified if needed.

        Raises:
            StoreError: there is no such output, the bucket can't be reached, or the output is damaged: then it is
                withdrawn, and the next run computes it again.
        """
        seen = self._seen.get((stage, key))
        record = read_record(seen, stage, key) if seen else self.lookup(stage, key)
        while isinstance(record, Record):
            if folder := self.cache.use(stage, key, record.attempt):
                return folder
            try:
                with self.cache.lock(f"download-{stage}-{key}"):
                    return self.cache.use(stage, key, record.attempt) or self._fetch(record)
            except Damaged as error:
                now = self.lookup(stage, key)
                if isinstance(now, Record) and now.attempt == record.attempt:
                    self.withdraw(stage, key)
                    raise StoreError(
                        "An output in the store is damaged.",
                        got=error,
                        where=self.address(stage, key),
                        do="run again: it was withdrawn and is computed again",
                    ) from error
                record = now  # it was replaced meanwhile
        raise StoreError("An output is not in the store.", got=record, where=self.address(stage, key), do="run again")

    def at_hand(self, stage: str, key: str) -> Path | None:
        """As Store.at_hand, for outputs in the cache."""
        return self.cache.use(stage, key)

    def address(self, stage: str, key: str) -> str:
        """As Store.address."""
        return f"{self.url}/{stage}/{key}"

    def beside(self, record: Record, name: str) -> str:
        """As Store.beside."""
        return f"{attempt_folder(record)}/{name}"

    def partial(self, stage: str, key: str) -> Path:
        """As Store.partial, on this machine."""
        self._before[stage, key] = self._seen.get((stage, key))
        return super().partial(stage, key)

    @contextlib.contextmanager
    def checkpoints(self, stage: str, key: str) -> Iterator[None]:
        """As Store.checkpoints, in the bucket.

        They are fetched first, uploaded at intervals and after a failure, and deleted after a commit.
        """
        kept = Checkpoints(self.bucket, stage, key, self._working(stage, key))
        kept.fetch()
        over, thread = call_every(self.upload_seconds, kept.upload)
        try:
            yield
        except Exception:  # not of a cancellation, which has to end in seconds
            over.set()
            thread.join()
            kept.upload()
            raise
        finally:
            over.set()
        thread.join()
        kept.drop()

    def complete(self, stage: str, key: str) -> Record | None:
        """As Store.complete: repeat an upload that failed."""
        self._before[stage, key] = self._seen.get((stage, key))
        found = super().complete(stage, key)
        if found:
            kept = Checkpoints(self.bucket, stage, key, self._working(stage, key))
            kept.find()
            kept.drop()
        return found

    def _attempt(self, partial: Path) -> str:
        return transfer.new_attempt(partial)

    def _publish(self, record: Record) -> Record:
        """Upload an output, write stage.json, move the folder to the cache."""
        partial = self._working(record.stage, record.key)
        try:
            self._write_format()
            transfer.upload(self.bucket, record, partial)
            winner = self._mark(record)
        except StoreError as error:
            do = f"run the same command again: it uploads the output, which is kept in {partial}"
            raise StoreError(
                "An output could not be uploaded.", got=error, where=self.url, do=do, away=error.away
            ) from error
        self._seen[record.stage, record.key] = json_bytes(winner)
        if winner.attempt == record.attempt:
            self.cache.add(record, partial)
        else:
            self.bucket.delete_below(attempt_folder(record))
            shutil.rmtree(partial)
        return winner

    def _write_format(self) -> None:
        """Write the format of a new store.

        Raises:
            StoreError: the server ignores conditional writes: the second of two creates succeeds.
        """
        data = json_bytes({"format": FORMAT})
        if not self._formatted and self.bucket.create(STORE, data) and self.bucket.create(STORE, data):
            raise self.bucket.unconditional()
        self._formatted = True

    def _mark(self, record: Record) -> Record:
        """Write stage.json unless another writer did; return the winner's record.

        Writers count that wrote since the computation began.
        """
        name, data = f"{record.stage}/{record.key}/{MARKER}", json_bytes(record)
        before = self._before.get((record.stage, record.key))
        if before is None and self.bucket.create(name, data):
            return record
        now = self.bucket.read(name)
        winner = read_record(now, record.stage, record.key) if now is not None else "withdrawn"
        if isinstance(winner, str) or now == before:
            self.bucket.write(name, data)
            return record
        return winner  # may be our own: the answer to our request was lost

    def _fetch(self, record: Record) -> Path:
        """Download an output into the cache."""
        folder = self.root / record.stage / f"{record.key}{ASIDE}{uuid.uuid4().hex}"
        try:
            transfer.download(self.bucket, record, folder)
            (folder / MARKER).write_bytes(json_bytes(record))
            return self.cache.add(record, folder)
        except OSError as error:
            raise StoreError("The store's cache can't be written.", got=error, where=folder) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def withdraw(self, stage: str, key: str) -> None:
        """As Store.withdraw."""
        self.bucket.delete([f"{stage}/{key}/{MARKER}"])
        self._seen[stage, key] = None

    def fault(self, stage: str, key: str) -> str | None:
        """As Store.fault: read all bytes from the bucket.

        A damaged copy in the cache is dropped.
        """
        held = self.cache.held(stage, key)
        if held and damage(self.root / stage / key, held, rehash=True):
            self.cache.drop(stage, key)
        record = self.lookup(stage, key)
        if isinstance(record, str):
            return record
        folder = self.root / stage / f"{key}{ASIDE}{uuid.uuid4().hex}"
        try:
            transfer.download(self.bucket, record, folder)
        except Damaged as error:
            return str(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def items(self, stages: Iterable[str], key: str | None = None) -> list[Item]:
        """As Store.items: those of the bucket, and local working folders."""
        stages, now = list(stages), time.time()
        here = [item for item in folder_items(self.root, stages, now, key) if item.kind != "output"]
        return [*bucket_items(self.bucket, stages, now, key), *here]

    def remove(self, item: Item) -> None:
        """As Store.remove."""
        if item.here:
            super().remove(item)
        else:
            remove_objects(self.bucket, item)

    def probe(self) -> None:
        """As Store.probe."""
        super().probe()
        name = f".probe-{uuid.uuid4().hex}"
        self.bucket.write(name, b"")
        self.bucket.delete([name])
        self._write_format()
