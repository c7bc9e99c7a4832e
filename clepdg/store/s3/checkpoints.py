"""Checkpoints in a bucket, so that a training can resume on another machine.

<stage>/<key>/resume.json names, by sha256, the objects that hold the *.resume files of the working folder.
"""

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from clepdg.errors import StoreError
from clepdg.hashing import digest_file, inside, json_bytes, parse_json
from clepdg.store.layout import ASIDE
from clepdg.store.s3.bucket import Bucket

log = logging.getLogger("clepdg")

LIST = "resume.json"
FOLDER = "resume"


class Checkpoints:
    """The checkpoints of one key.

    A fault of the bucket is logged; it costs a checkpoint and nothing else.
    """

    def __init__(self, bucket: Bucket, stage: str, key: str, folder: Path) -> None:
        self.bucket, self.folder = bucket, folder
        self.place = f"{stage}/{key}"
        self._there: dict[str, str] = {}  # name -> object
        self._seen: dict[str, tuple[int, int]] = {}  # name -> (mtime, bytes) at the last upload
        self._lock = threading.Lock()

    def find(self) -> dict[str, str]:
        """Return {name: sha256} of the checkpoints in the bucket."""
        listed: dict[str, str] = {}
        with self._faults("looked for"):
            listed = _read_list(self.bucket.read(f"{self.place}/{LIST}"))
            self._there = {name: f"{self.place}/{FOLDER}/{sha256}" for name, sha256 in listed.items()}
        return listed

    def fetch(self) -> None:
        """Download another machine's checkpoints unless there are local ones."""
        listed = self.find()
        if _files(self.folder):
            return
        with self._faults("fetched"):
            for name, sha256 in listed.items():
                aside = self.folder / f"{name}.fetched"
                try:
                    self.bucket.download({self._there[name]: aside})
                    if digest_file(aside) == sha256:
                        os.replace(aside, self.folder / name)
                    else:
                        log.warning("A checkpoint in the store is damaged and is left alone: %s", self._there[name])
                except FileNotFoundError:
                    continue
                finally:
                    aside.unlink(missing_ok=True)  # also where it filled the disk

    def upload(self) -> None:
        """Upload the checkpoints that changed since the last upload.

        A training writes its checkpoints whole, by a rename.
        """
        with self._lock, self._faults("kept"):
            found = _files(self.folder)
            if {name: facts for name, (_, facts) in found.items()} == self._seen:
                return
            listed = {}
            for name, (path, facts) in found.items():
                copy = self.folder.with_name(
                    f"{self.folder.name}{ASIDE}{name}"
                )  # one state, even if the name is replaced
                copy.unlink(missing_ok=True)
                try:
                    _link(path, copy)
                    listed[name] = digest_file(copy)
                    self.bucket.upload({copy: f"{self.place}/{FOLDER}/{listed[name]}"})
                finally:
                    copy.unlink(missing_ok=True)
                self._seen[name] = facts
            self.bucket.write(f"{self.place}/{LIST}", json_bytes(listed))
            there = {name: f"{self.place}/{FOLDER}/{sha256}" for name, sha256 in listed.items()}
            self.bucket.delete(sorted(set(self._there.values()) - set(there.values())))
            self._there = there

    def drop(self) -> None:
        """Delete the checkpoints in the bucket, once the output is committed."""
        if self._there:
            with self._faults("deleted"):
                self.bucket.delete([f"{self.place}/{LIST}", *self._there.values()])
                self._there = {}

    @contextlib.contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        try:
            yield
        except (StoreError, OSError, ValueError) as error:
            log.warning("A checkpoint could not be %s: %s", what, " ".join(str(error).split()))


def _link(path: Path, copy: Path) -> None:
    try:
        os.link(path, copy)
    except OSError:  # a file system without links
        shutil.copyfile(path, copy)


def _files(folder: Path) -> dict[str, tuple[Path, tuple[int, int]]]:
    """Return {name: (path, (mtime, bytes))} of the checkpoints in a folder.

    Broken downloads are left out.
    """
    found = {}
    for path in sorted(folder.glob("*.resume")):
        if path.is_file() and not path.name.startswith("writing-"):
            facts = path.stat()
            found[path.name] = (path, (facts.st_mtime_ns, facts.st_size))
    return found


def _read_list(data: bytes | None) -> dict[str, str]:
    listed = parse_json(data) if data else {}
    for name, sha256 in listed.items() if isinstance(listed, dict) else [("", "")]:
        if not (inside(name) and name.endswith(".resume") and "/" not in name and inside(sha256) and "/" not in sha256):
            raise ValueError("this is no list of checkpoints")
    return dict(listed)
