"""Content-addressed stage outputs: the one truth about what is done.

An output is a folder <stage>/<key>/ with its files and a stage.json, written last. The key says what went in, the
digest says what came out; equal digests let what follows be reused (early cut-off). Work happens in <key>.partial,
under a lock, then one rename.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from clepdg.errors import StoreError
from clepdg.hashing import canonical, digest, digest_file, digest_lines, inside, plain, stage_key, write_json
from clepdg.store.documents import Documents
from clepdg.store.layout import PARTIAL, Item, drop_state, folder_items, put_in_place, remove, take_back
from clepdg.store.record import FORMAT, MARKER, STORE, Record, damage, hash_files, read_record

__all__ = [
    "FORMAT",
    "MARKER",
    "Item",
    "Record",
    "Store",
    "canonical",
    "digest",
    "digest_file",
    "digest_lines",
    "plain",
    "stage_key",
    "write_json",
]


class Store:
    """Stage outputs below one folder. A remote store gives the same methods over a verified local cache.

    Attributes:
        url: its address.
        root: a folder of this machine: locks and working folders lie below it.
        documents: what its runs share besides outputs.
    """

    def __init__(self, root: Path) -> None:
        self.url = str(root)
        self.root = root
        self.documents = Documents(root)

    def local(self, stage: str, key: str) -> Path:
        """Return the folder of an output: the only way to read one."""
        if not (inside(stage) and inside(key)) or "/" in stage + key:
            raise StoreError("This can't be the name of an output.", got=f"{stage!r}, {key!r}", where=self.url)
        return self.root / stage / key

    def at_hand(self, stage: str, key: str) -> Path | None:
        """Return the folder of an output if this machine has it already, without bringing it here."""
        folder = self.local(stage, key)
        return folder if folder.exists() else None

    def address(self, stage: str, key: str) -> str:
        """Return where an output lies, for a person."""
        return str(self.local(stage, key))

    def beside(self, record: Record, name: str) -> str:
        """Return the name of a document that lies beside an output, and goes when the output goes."""
        return f"{record.stage}/{record.key}/{name}"

    def lookup(self, stage: str, key: str) -> Record | str:
        """Return the record of an output that is whole, or the reason why there is none.

        Whole means that stage.json can be read and every file is there at its size; `verify` re-hashes.
        """
        folder = self.local(stage, key)
        try:
            found = read_record((folder / MARKER).read_bytes(), stage, key)
        except OSError:
            return "new" if not folder.exists() else f"file missing: {MARKER}"
        return found if isinstance(found, str) else damage(folder, found) or found

    def previous(self, stage: str, key: str) -> Record | None:
        """Return what stage.json of an output says, whole or not; None where it can't be read."""
        with contextlib.suppress(OSError):
            found = read_record((self.local(stage, key) / MARKER).read_bytes(), stage, key)
            return found if isinstance(found, Record) else None
        return None

    @contextlib.contextmanager
    def lock(
        self, stage: str, key: str, *, seconds: float = -1, give_up: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Hold the lock of one key on this host: a second run of it waits here, then finds the output.

        Args:
            seconds: how long to wait for it; -1 for as long as it takes.
            give_up: asked while waiting; True ends the wait.

        Raises:
            StoreError: the store can't be written, or the wait was given up.
            filelock.Timeout: somebody else holds it.
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
        """Return the working folder of a key, made if need be. Its name is stable, so that training resumes in it."""
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
        """Keep the checkpoints (*.resume) of what is computed inside, so that another machine can go on from them."""
        yield  # another machine that shares a folder finds them in it

    def commit(self, record: Record) -> Record:
        """Turn the working folder of record's key into its output: hash the files, write stage.json, rename once.

        The caller holds the key's lock. Files named *.resume are working state and are dropped, but not before
        stage.json stands: on a full disk they are what the next run goes on from.
        """
        partial = self._working(record.stage, record.key)
        record = replace(record, files=hash_files(partial), attempt=self._attempt(partial))
        write_json(partial / MARKER, record)
        return self._publish(record)

    def _attempt(self, partial: Path) -> str:
        return ""

    def complete(self, stage: str, key: str) -> Record | None:
        """Commit what an earlier run computed but could not commit; None where there is nothing whole.

        The caller holds the key's lock.
        """
        partial = self._working(stage, key)
        try:
            found = read_record((partial / MARKER).read_bytes(), stage, key)
        except OSError:
            return None
        if isinstance(found, str) or hash_files(partial) != found.files:
            return None
        return self._publish(found)

    def _publish(self, record: Record) -> Record:
        partial = self._working(record.stage, record.key)
        drop_state(partial)
        put_in_place(partial, self.local(record.stage, record.key))
        return record

    def withdraw(self, stage: str, key: str) -> None:
        """Take back an output, so that the next run computes it again; its files stay until then."""
        take_back(self.local(stage, key))

    def items(self, stages: Iterable[str]) -> list[Item]:
        """Return all that lies in the store of the given stages."""
        return folder_items(self.root, stages, time.time())

    def remove(self, item: Item) -> None:
        """Remove an item for good; an output is gone at once, then its files are deleted."""
        remove(self.root / item.place)

    def probe(self) -> None:
        """Write and remove something.

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
        """Return what is wrong with an output, every byte of it; None where nothing is."""
        found = self.lookup(stage, key)
        return found if isinstance(found, str) else damage(self.local(stage, key), found, rehash=True)
