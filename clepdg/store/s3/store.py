"""A store in a bucket: work locally, upload, marker last and conditional; read from a verified cache.

    <stage>/<key>/stage.json              what stands; names the attempt that holds its files
    <stage>/<key>/<attempt>/<file>        each attempt's own place: a late writer can't mix its bytes with the winner's
    <stage>/<key>/<attempt>/files.tar     ... of many files, which would cost a request each
    <stage>/<key>/resume.json, resume/    checkpoints of what is being computed

There is no distributed lock: whoever writes stage.json first has won, and the others drop their work and take that.
"""

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from clepdg.errors import StoreError
from clepdg.hashing import digest, json_bytes
from clepdg.store.layout import ASIDE, Item, folder_items
from clepdg.store.record import FORMAT, MARKER, STORE, Damaged, Record, check_format, damage, read_record
from clepdg.store.s3.bucket import Bucket, BucketDocuments, every
from clepdg.store.s3.cache import Cache
from clepdg.store.s3.checkpoints import Checkpoints
from clepdg.store.s3.inventory import bucket_items, remove_objects
from clepdg.store.s3.tar import TAR, pack, unpack
from clepdg.store.store import Store

MANY_FILES = 64  # from here on an output travels as one object: a request a file costs more than the bytes
PACKED = "-tar"


def open_remote(url: str, cache: Path, cache_gigabytes: float, upload_seconds: float) -> "RemoteStore":
    """Open the store at an s3:// address. Raises StoreError, in seconds, where nobody answers."""
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query:
        raise StoreError(
            "An address holds no credentials.",
            got=f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}{parts.path}",
            expected="s3://bucket/folder",
            do="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what else botocore reads",
        )
    if not parts.netloc:
        raise StoreError("The store's address names no bucket.", got=url, expected="s3://bucket/folder")
    check_format(BucketDocuments(Bucket(url, patient=False)).read(STORE), url)
    name = "".join(c if c.isalnum() else "-" for c in f"{parts.netloc}{parts.path}".rstrip("/"))
    root = cache / f"{name[:60]}-{digest(url.rstrip('/'))[:8]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError("The store's cache can't be made.", got=error, where=root) from error
    return RemoteStore(Bucket(url), Cache(root, cache_gigabytes * 1e9), upload_seconds)


class RemoteStore(Store):
    """Stage outputs below one address of a bucket; locks, working folders and the cache lie below `root`."""

    def __init__(self, bucket: Bucket, cache: Cache, upload_seconds: float) -> None:
        super().__init__(cache.root)
        self.url = bucket.url
        self.bucket, self.cache, self.upload_seconds = bucket, cache, upload_seconds
        self.documents = BucketDocuments(bucket)
        self._formatted = False
        self._seen: dict[tuple[str, str], bytes | None] = {}  # stage.json at the last look
        self._before: dict[tuple[str, str], bytes | None] = {}  # ... when the work on a key began

    def lookup(self, stage: str, key: str) -> Record | str:
        """As Store.lookup, at the cost of one request. What stands was whole when it was written; `local` checks."""
        super().local(stage, key)
        data = self._seen[stage, key] = self.bucket.read(f"{stage}/{key}/{MARKER}")
        if data is None:
            return "new"
        found = read_record(data, stage, key)
        return found if isinstance(found, str) or found.attempt else f"file unreadable: {MARKER}"

    def previous(self, stage: str, key: str) -> Record | None:
        """As Store.previous."""
        data = self.bucket.read(f"{stage}/{key}/{MARKER}")
        found = read_record(data, stage, key) if data else None
        return found if isinstance(found, Record) else None

    def local(self, stage: str, key: str) -> Path:
        """Return the folder of an output, brought here and verified if need be.

        Raises:
            StoreError: there is no such output; the bucket can't be reached; or it holds something else than the output
                should be: then it is withdrawn, and the next run computes it again.
        """
        seen = self._seen.get((stage, key))
        record = read_record(seen, stage, key) if seen else self.lookup(stage, key)
        while isinstance(record, Record):
            if folder := self.cache.use(stage, key, record.attempt):
                return folder
            try:
                with self.cache.lock(f"download-{stage}-{key}"):
                    return self.cache.use(stage, key, record.attempt) or self._bring(record)
            except Damaged as error:
                now = self.lookup(stage, key)
                if isinstance(now, Record) and now.attempt == record.attempt:
                    self.withdraw(stage, key)
                    raise StoreError(
                        "An output in the store is damaged.",
                        got=error,
                        where=self.address(stage, key),
                        do="run again: it was withdrawn and is computed anew",
                    ) from error
                record = now  # it was replaced meanwhile
        raise StoreError("An output is not in the store.", got=record, where=self.address(stage, key), do="run again")

    def at_hand(self, stage: str, key: str) -> Path | None:
        """As Store.at_hand: what the cache holds."""
        return self.cache.use(stage, key)

    def address(self, stage: str, key: str) -> str:
        """As Store.address."""
        return f"{self.url}/{stage}/{key}"

    def beside(self, record: Record, name: str) -> str:
        """As Store.beside."""
        return f"{_place(record)}/{name}"

    def partial(self, stage: str, key: str) -> Path:
        """As Store.partial: a folder of this machine."""
        self._before[stage, key] = self._seen.get((stage, key))
        return super().partial(stage, key)

    @contextlib.contextmanager
    def checkpoints(self, stage: str, key: str) -> Iterator[None]:
        """As Store.checkpoints: fetched at first, kept at an interval and after a failure, deleted after a commit."""
        kept = Checkpoints(self.bucket, stage, key, self._working(stage, key))
        kept.fetch()
        over, thread = every(self.upload_seconds, kept.upload)
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
        """As Store.complete: what could not be uploaded is uploaded now."""
        self._before[stage, key] = self._seen.get((stage, key))
        found = super().complete(stage, key)
        if found:
            kept = Checkpoints(self.bucket, stage, key, self._working(stage, key))
            kept.look()
            kept.drop()
        return found

    def _attempt(self, partial: Path) -> str:
        many = sum(path.is_file() for path in partial.rglob("*")) >= MANY_FILES
        return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}{PACKED if many else ''}"

    def _publish(self, record: Record) -> Record:
        """Upload an output, write its marker, and take the working folder into the cache."""
        partial = self._working(record.stage, record.key)
        try:
            self._upload(record, partial)
            winner = self._mark(record)
        except StoreError as error:
            do = f"run the same command again: what was computed is kept in {partial} and is uploaded then"
            raise StoreError("An output could not be uploaded.", got=error, where=self.url, do=do) from error
        self._seen[record.stage, record.key] = json_bytes(winner)
        if winner.attempt == record.attempt:
            self.cache.add(record, partial)
        else:
            self.bucket.delete_below(_place(record))
            shutil.rmtree(partial)
        return winner

    def _upload(self, record: Record, folder: Path) -> None:
        if not self._formatted and self.bucket.read(STORE) is None:
            self.bucket.create(STORE, json_bytes({"format": FORMAT}))
        self._formatted = True
        place = _place(record)
        if record.attempt.endswith(PACKED):
            with self.bucket.errors():
                pack(folder, record, self.bucket.writer(f"{place}/{TAR}"))
            return
        self.bucket.upload({folder / name: f"{place}/{name}" for name in record.files})

    def _mark(self, record: Record) -> Record:
        """Write stage.json unless somebody else did since the work began; return the record that stands."""
        name, data = f"{record.stage}/{record.key}/{MARKER}", json_bytes(record)
        before = self._before.get((record.stage, record.key))
        if before is None and self.bucket.create(name, data):
            return record
        now = self.bucket.read(name)
        winner = read_record(now, record.stage, record.key) if now is not None else "withdrawn"
        if isinstance(winner, str) or now == before:
            self.bucket.write(name, data)
            return record
        return winner  # perhaps our own: the answer to an attempt was lost

    def _bring(self, record: Record) -> Path:
        folder = self.root / record.stage / f"{record.key}{ASIDE}{uuid.uuid4().hex}"
        try:
            self._download(record, folder)
            (folder / MARKER).write_bytes(json_bytes(record))
            return self.cache.add(record, folder)
        except OSError as error:
            raise StoreError("The store's cache can't be written.", got=error, where=folder) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _download(self, record: Record, folder: Path) -> None:
        """Bring the files of a record into a new folder. Raises Damaged where they are not what it says."""
        folder.mkdir(parents=True)
        place = _place(record)
        try:
            if record.attempt.endswith(PACKED):
                with self.bucket.errors():
                    unpack(self.bucket.reader(f"{place}/{TAR}"), record, folder)
            else:
                self.bucket.download({f"{place}/{name}": folder / name for name in record.files})
        except FileNotFoundError as error:
            raise Damaged(f"file missing: {error}") from error
        if found := damage(folder, record, rehash=True):
            raise Damaged(found)

    def withdraw(self, stage: str, key: str) -> None:
        """As Store.withdraw."""
        self.bucket.delete([f"{stage}/{key}/{MARKER}"])
        self._seen[stage, key] = None

    def fault(self, stage: str, key: str) -> str | None:
        """As Store.fault: every byte is read from the bucket; a damaged copy in the cache is dropped."""
        held = self.cache.held(stage, key)
        if held and damage(self.root / stage / key, held, rehash=True):
            self.cache.drop(stage, key)
        record = self.lookup(stage, key)
        if isinstance(record, str):
            return record
        folder = self.root / stage / f"{key}{ASIDE}{uuid.uuid4().hex}"
        try:
            self._download(record, folder)
        except Damaged as error:
            return str(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def items(self, stages: Iterable[str]) -> list[Item]:
        """As Store.items: what lies in the bucket, and this machine's working folders."""
        here = [item for item in folder_items(self.root, stages, time.time()) if item.kind != "output"]
        return [*bucket_items(self.bucket, stages, time.time()), *here]

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


def _place(record: Record) -> str:
    return f"{record.stage}/{record.key}/{record.attempt}"
