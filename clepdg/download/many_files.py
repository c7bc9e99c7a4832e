"""Download many files in parallel.

A file gets its name after its size and checksum are verified, so the next run resumes with the first missing file.
"""

import contextlib
import contextvars
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Final

from clepdg import hashing
from clepdg.callbacks import Progress
from clepdg.corpora.cards import Card
from clepdg.download import http_client, one_file
from clepdg.download.checksums import hash_file
from clepdg.download.file_lists import Remote
from clepdg.download.urls import checksums, manual_download
from clepdg.errors import SourceError

PARALLEL_FILES: Final = 8  # downloads at the same time
FAILED_FILES: Final = 5  # more failures are the server's fault, not a file's


def download_all(
    card: Card,
    files: Iterable[Remote],
    folder: Path,
    tree: Path,
    known: Mapping[str, tuple[Path, str]],
    progress: Progress,
    sleep: Callable[[float], None],
) -> dict[str, str]:
    """Download files into the new folder tree; return {path: identity}.

    Args:
        folder: holds the files downloaded so far, also after a killed run.
        known: identity -> (path, sha256) of files in an earlier output, which are copied instead of downloaded.
        progress: called with (bytes done, bytes in all) over all files.

    Raises:
        SourceError: files that could not be downloaded, in one error; after a few failures no more are tried.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = list(files)
    total_progress = _TotalProgress(progress, sum(file.address.bytes or 0 for file in files))
    faults: list[SourceError] = []

    def fetch_one(file: Remote) -> None:
        whole = folder / file.identity
        if len(faults) >= FAILED_FILES:
            return
        try:
            if not (_is_complete(file, whole) or _copy_known(file, whole, known)):
                got = one_file.download(
                    card, file.address, whole.with_suffix(".part"), total_progress.of(file.identity), sleep, client
                )
                os.replace(got, whole)
                shutil.rmtree(whole.with_suffix(".part"), ignore_errors=True)
            total_progress.of(file.identity)(whole.stat().st_size, 0)
        except SourceError as error:
            faults.append(error.labelled(file.path))  # the error for all files says what to do

    with http_client.client(http_client.STALL_SECONDS) as client, ThreadPoolExecutor(PARALLEL_FILES) as pool:
        try:
            # The copied context sends each file's progress to the caller's receiver.
            tasks = [pool.submit(contextvars.copy_context().run, fetch_one, file) for file in files]
            for task in wait(tasks, return_when=FIRST_EXCEPTION).done:
                task.result()
        except BaseException:  # a full disk, Ctrl-C: end the other downloads as well
            total_progress.stopped = True
            pool.shutdown(cancel_futures=True)
            raise
    if faults:
        kept = sum((folder / file.identity).exists() for file in files)
        raise SourceError(
            f"{len(faults)} or more of {len(files)} files of {card.name} could not be downloaded.",
            got=[fault.reason for fault in faults[:FAILED_FILES]],
            do=f"run again, {kept} files are kept; or {manual_download(card)}",
            away=all(fault.away for fault in faults),
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


class _TotalProgress:
    """Sums the progress of parallel downloads and stops them together."""

    def __init__(self, progress: Progress, total: int) -> None:
        self.progress, self.total = progress, total
        self.done: dict[str, int] = {}
        self.sum, self.lock = 0, threading.Lock()
        self.stopped = False

    def of(self, name: str) -> Progress:
        def report(done: int, total: int) -> None:
            if self.stopped:
                raise SourceError("Stopped because another download failed.")
            with self.lock:
                self.sum += done - self.done.get(name, 0)
                self.done[name] = done
                self.progress(self.sum, self.total)

        return report


def _is_complete(file: Remote, whole: Path) -> bool:
    """Return whether a file is complete; delete it if it is not.

    A power cut may leave a name without its bytes.
    """
    if not whole.exists():
        return False
    hashes = hash_file(file.address, whole)
    size = whole.stat().st_size
    valid = all(hashes[name].hexdigest() == value for name, value in checksums(file.address).items())
    if valid and file.address.bytes in (None, size):
        return True
    whole.unlink()
    return False


def _copy_known(file: Remote, whole: Path, known: Mapping[str, tuple[Path, str]]) -> bool:
    path, sha256 = known.get(file.identity, (None, ""))
    if path is None:
        return False
    with contextlib.suppress(OSError):
        copy = whole.with_suffix(".copy")
        shutil.copyfile(path, copy)
        if hashing.digest_file(copy) == sha256:
            os.replace(copy, whole)
            return True
        copy.unlink()
    return False
