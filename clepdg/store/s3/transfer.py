"""Upload and download the files of an output: one object a file, or one tar of many files."""

import time
import uuid
from pathlib import Path
from typing import Final

from clepdg.store.record import Damaged, Record, damage
from clepdg.store.s3.bucket import Bucket
from clepdg.store.s3.tar import TAR, pack, unpack

MANY_FILES: Final = 64  # from here on an output is uploaded as one tar: a request a file costs more than its bytes
PACKED: Final = "-tar"  # ends the name of an attempt whose files are in a tar


def new_attempt(folder: Path) -> str:
    """Return a unique name for an upload of a folder's files."""
    many = sum(path.is_file() for path in folder.rglob("*")) >= MANY_FILES
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}{PACKED if many else ''}"


def attempt_folder(record: Record) -> str:
    """Return the folder of the bucket that holds a record's files."""
    return f"{record.stage}/{record.key}/{record.attempt}"


def upload(bucket: Bucket, record: Record, folder: Path) -> None:
    """Upload a record's files from a folder."""
    place = attempt_folder(record)
    if record.attempt.endswith(PACKED):
        with bucket.errors():
            pack(folder, record, bucket.writer(f"{place}/{TAR}"))
        return
    bucket.upload({folder / name: f"{place}/{name}" for name in record.files})


def download(bucket: Bucket, record: Record, folder: Path) -> None:
    """Download a record's files into a new folder and verify them.

    Raises:
        Damaged: a file is missing, or is not what the record says.
    """
    folder.mkdir(parents=True)
    place = attempt_folder(record)
    try:
        if record.attempt.endswith(PACKED):
            with bucket.errors():
                unpack(bucket.reader(f"{place}/{TAR}"), record, folder)
        else:
            sizes = {f"{place}/{name}": size for name, (size, _) in record.files.items()}
            bucket.download({f"{place}/{name}": folder / name for name in record.files}, sizes)
    except FileNotFoundError as error:
        raise Damaged(f"file missing: {error}") from error
    if found := damage(folder, record, rehash=True):
        raise Damaged(found)
