"""Content-addressed store of stage outputs in a folder.

An output is a folder <stage>/<key>/ with its files and a stage.json, which is written last. The key identifies what
went in, the digest what came out; equal digests let later stages be reused (early cut-off). Outputs are computed in
<key>.partial, under a lock, then renamed once.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from clepdg.errors import StoreError
from clepdg.hashing import inside, write_json
from clepdg.store.documents import Documents
from clepdg.store.layout import PARTIAL, Item, drop_state, flush, folder_items, invalidate, put_in_place, remove
from clepdg.store.record import FORMAT, MARKER, STORE, Record, damage, hash_files, load_record


class Store:
    """Stage outputs in a folder; a remote store has the same methods.

    Attributes:
        url: its address.
        root: a folder of this machine, which holds locks and working folders.
        durable: flush the files of an output to the disk before stage.json names them: after a power cut, stage.json
            would otherwise name files that the disk lacks. Of a bucket, a working folder needs no flush.
        documents: JSON files that its runs share besides outputs.
    """

    def __init__(self, root: Path, *, durable: bool = False) -> None:
        self.url = str(root)
        self.root = root
        self.durable = durable
        self.documents = Documents(root)

    def local(self, stage: str, key: str) -> Path:
        """Return the folder of an output, for reading."""
        if not (inside(stage) and inside(key)) or "/" in stage + key:
            raise StoreError("This can't be the name of an output.", got=f"{stage!r}, {key!r}", where=self.url)
        return self.root / stage / key

    def at_hand(self, stage: str, key: str) -> Path | None:
        """Return the folder of an output if it is on this machine, or None."""
        folder = self.local(stage, key)
        return folder if folder.exists() else None

    def address(self, stage: str, key: str) -> str:
        """Return an output's address, for messages."""
        return str(self.local(stage, key))

    def beside(self, record: Record, name: str) -> str:
        """Return the name of a document that is removed with an output."""
        return f"{record.stage}/{record.key}/{name}"

    def lookup(self, stage: str, key: str) -> Record | str:
        """Return the record of a complete output, or why there is none.

        Complete means that stage.json can be read and every file has its size; `fault` checks hashes, too.
        """
        folder = self.local(stage, key)
        try:
            found = load_record(folder, stage, key)
        except OSError:
            return "new" if not os.path.exists(folder) else f"file missing: {MARKER}"
        return found if isinstance(found, str) else damage(folder, found) or found

    def previous(self, stage: str, key: str) -> Record | None:
        """Return an output's record, complete or not, or None."""
        with contextlib.suppress(OSError):
            found = load_record(self.local(stage, key), stage, key)
            return found if isinstance(found, Record) else None
        return None

    @contextlib.contextmanager
    def lock(
        self, stage: str, key: str, *, seconds: float = -1, give_up: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Hold the lock of a key on this host.

        A second run of the same stage waits here, then finds the output.

        Args:
            seconds: limit of the wait; -1: none.
            give_up: called while waiting; True ends the wait.

        Raises:
            StoreError: the store can't be written, or `give_up` ended the wait.
            filelock.Timeout: another holder kept it for longer than the limit.
        """
        folder = self.root / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{stage}-{key}")  # the file stays: removing one that another waits on is a race
            lock.acquire(timeout=seconds, cancel_check=give_up)
        except Timeout as error:
            if not give_up():
                raise
            raise StoreError("The wait for another run of the same stage was given up.", where=stage) from error
        except OSError as error:
            raise StoreError("The store can't be written.", got=error, where=folder) from error
        try:
            yield
        finally:
            lock.release()

    def partial(self, stage: str, key: str) -> Path:
        """Return the working folder of a key; create it if needed.

        Its name is always the same, so that training resumes in it.
        """
        folder = self._working(stage, key)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (self.root / STORE).exists():
                write_json(self.root / STORE, {"format": FORMAT})
        except OSError as error:
            raise StoreError("The store can't be written.", got=error, where=folder) from error
        return folder

    def _working(self, stage: str, key: str) -> Path:
        return self.root / stage / f"{key}{PARTIAL}"

    @contextlib.contextmanager
    def checkpoints(self, stage: str, key: str) -> Iterator[None]:
        """Save checkpoints (*.resume) where another machine can resume.

        They are those of the computation inside the with block.
        """
        yield  # another machine that shares this folder finds them in it

    def commit(self, record: Record) -> Record:
        """Make the working folder the output: hash, write stage.json, rename.

        The caller holds the key's lock. Checkpoints (*.resume) are deleted after stage.json is written: if the disk is
        full, the next run resumes from them.
        """
        partial = self._working(record.stage, record.key)
        if self.durable:
            flush(partial)
        record = replace(record, files=hash_files(partial), attempt=self._attempt(partial))
        write_json(partial / MARKER, record)
        return self._publish(record)

    def _attempt(self, partial: Path) -> str:
        return ""

    def complete(self, stage: str, key: str) -> Record | None:
        """Commit an output that an earlier run computed but could not commit.

        The caller holds the key's lock. None is returned if there is no complete one.
        """
        partial = self._working(stage, key)
        try:
            found = load_record(partial, stage, key)
        except OSError:
            return None
        if isinstance(found, str) or hash_files(partial) != found.files:
            return None
        if self.durable:
            flush(partial)
        return self._publish(found)

    def _publish(self, record: Record) -> Record:
        partial = self._working(record.stage, record.key)
        drop_state(partial)
        put_in_place(partial, self.local(record.stage, record.key))
        return record

    def withdraw(self, stage: str, key: str) -> None:
        """Invalidate an output; its files stay until it is computed again."""
        invalidate(self.local(stage, key))

    def items(self, stages: Iterable[str], key: str | None = None) -> list[Item]:
        """Return all folders of the given stages, or those of one key."""
        return folder_items(self.root, stages, time.time(), key)

    def remove(self, item: Item) -> None:
        """Remove an item: rename it away, then delete its files."""
        remove(self.root / item.place)

    def probe(self) -> None:
        """Check that the store can be written.

        Raises:
            StoreError: the store can't be reached or written.
        """
        path = self.root / f".probe-{os.getpid()}-{os.urandom(4).hex()}"
        try:
            path.write_bytes(b"")
            path.unlink()
        except OSError as error:
            do = "set CLEPDG_STORE to a folder of yours"
            raise StoreError("The store can't be written.", got=error, where=self.root, do=do) from error

    def fault(self, stage: str, key: str) -> str | None:
        """Check every byte of an output; return the fault, or None."""
        found = self.lookup(stage, key)
        return found if isinstance(found, str) else damage(self.local(stage, key), found, rehash=True)
