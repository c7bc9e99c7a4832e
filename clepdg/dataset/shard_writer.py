"""Write shards with any number of processes: equal bytes, bounded memory.

Utterances are encoded in batches. Each becomes a piece of a tar (headers, FLAC and JSON), which the writing process
only appends.
"""

import contextlib
import hashlib
import io
import json
import multiprocessing
import signal
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.audio.io import decode, encode_flac, resample, to_mono, to_pcm
from clepdg.config.schema import ShardConfig
from clepdg.corpora.cards import SPLITS
from clepdg.dataset.shards import COLUMNS, OFFSETS
from clepdg.errors import IndexingError, ShardError
from clepdg.processes import exit_with_parent

if TYPE_CHECKING:
    import pandas as pd

BATCH: Final = 16  # utterances; constant, since a tar ends with a batch
FEW = 200  # utterances; with fewer, starting processes costs more than it saves
END_OF_TAR: Final = bytes(2 * tarfile.BLOCKSIZE)
Job = tuple[str, str, str]  # path below the root, utterance_id, raw_label


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Complete members of a tar and their rows of the offset table.

    Offsets are relative to the start of `data`.
    """

    data: bytes
    rows: list[dict[str, Any]]


def write_shards(
    folder: Path,
    root: Path,
    utterances: "pd.DataFrame",
    config: ShardConfig,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write the tars and offsets.parquet of one corpus.

    Args:
        root: the corpus's folder; `utterances.path` is relative to it.
        utterances: rows of the index.
        workers: processes that encode; 1 = this one.
        progress: called with (utterances done, utterances in all).

    Returns:
        Figures: utterances, seconds, bytes and tars.

    Raises:
        ShardError: a file that was indexed can't be read any more.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    for old in folder.glob("*.tar"):  # of a killed run
        old.unlink()
    done, seconds = 0, 0.0
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
    with (
        _executor(workers if len(utterances) >= FEW else 1) as pool,
        pq.ParquetWriter(folder / OFFSETS, schema) as offsets,
    ):
        for split in SPLITS:
            part = utterances[utterances.split == split].sort_values("utterance_id")
            jobs = list(zip(part.path, part.utterance_id, part.raw_label, strict=True))
            rows: list[dict[str, Any]] = []  # of one tar
            for placed in _write_split(folder, split, _pieces(pool, root, jobs, config, workers), config):
                if rows and placed[0]["tar"] != rows[-1]["tar"]:
                    offsets.write_table(pa.Table.from_pylist(rows, schema))
                    rows = []
                rows += placed
                done += len(placed)
                seconds += sum(row["num_samples"] / row["sample_rate"] for row in placed)
                progress(done, len(utterances))
            offsets.write_table(pa.Table.from_pylist(rows, schema))
    tars = list(folder.glob("*.tar"))
    return {
        "utterances": done,
        "seconds": round(seconds, 3),
        "bytes": sum(tar.stat().st_size for tar in tars),
        "tars": len(tars),
    }


@contextlib.contextmanager
def _executor(workers: int) -> Iterator[Executor | None]:
    if workers <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=exit_with_parent)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise ShardError(
            "A process that encodes audio was killed.",
            got=error,
            do="check that there is enough memory (CLEPDG_WORKERS=1 needs the least), and run the same command again",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)  # a stopped run does not wait for queued batches


def _submit(pool: Executor, *call: Any) -> "Future[Piece]":
    """Submit a call with SIGINT blocked.

    A process that starts here inherits the mask, so Ctrl-C reaches the parent alone.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(*call)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pieces(
    pool: Executor | None, root: Path, jobs: Sequence[Job], config: ShardConfig, workers: int
) -> Iterator[Piece]:
    """Yield the pieces in order, with a bounded number in flight."""
    batches = (jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH))
    if pool is None:
        yield from (encode(root, batch, config.band_limit_hz) for batch in batches)
        return
    waiting: deque[Future[Piece]] = deque()
    for batch in batches:
        waiting.append(_submit(pool, encode, root, batch, config.band_limit_hz))
        if len(waiting) > 3 * workers:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def encode(root: Path, jobs: Sequence[Job], band_limit_hz: int | None) -> Piece:
    """Decode, mix down, resample, encode and pack files.

    Runs in worker processes, so it imports no torch.

    Raises:
        ShardError: a file can't be read, or its utterance's name is too long.
    """
    buffer, rows = io.BytesIO(), []
    tar = tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT)  # never closed: no end mark here
    for path, utterance_id, raw_label in jobs:
        flac, facts = _encode_one(root / path, utterance_id, raw_label, band_limit_hz)
        offset = buffer.tell() + tarfile.BLOCKSIZE  # after the header, which is one block in this format
        for suffix, data in (("flac", flac), ("json", json.dumps(facts, sort_keys=True).encode())):
            member = tarfile.TarInfo(f"{utterance_id}.{suffix}")  # its time is 0
            member.size = len(data)
            try:
                tar.addfile(member, io.BytesIO(data))
            except ValueError as error:
                raise ShardError(
                    "An utterance's name does not fit into a tar.", got=error, where=utterance_id
                ) from error
        rows.append({**facts, "offset": offset, "bytes": len(flac)})
    return Piece(data=buffer.getvalue(), rows=rows)


def _encode_one(
    path: Path, utterance_id: str, raw_label: str, band_limit_hz: int | None
) -> tuple[bytes, dict[str, Any]]:
    try:
        samples, rate = decode(path)
    except IndexingError as error:
        raise ShardError(
            "An utterance of the index can't be read any more.",
            got=error,
            where=path,
            do="if the corpus changed, run again: the source is checked first",
        ) from error
    target_rate = rate if band_limit_hz is None else 2 * band_limit_hz
    pcm = to_pcm(resample(to_mono(samples), rate, target_rate))
    facts = {
        "utterance_id": utterance_id,
        "sample_rate": target_rate,  # Hz
        "num_samples": len(pcm),
        "pcm_sha256": hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest(),
        "raw_label": raw_label,
    }
    return encode_flac(pcm, target_rate), facts


def _write_split(
    folder: Path, split: str, pieces: Iterator[Piece], config: ShardConfig
) -> Iterator[list[dict[str, Any]]]:
    """Write the tars of one split; yield the offset table's rows by piece."""
    piece = next(pieces, None)
    number = 0
    while piece is not None:
        path = folder / f"{split}-{number:06d}.tar"
        with path.open("wb") as file:
            while piece is not None and file.tell() <= config.max_megabytes * 1e6:
                start = file.tell()
                file.write(piece.data)
                yield [{**row, "split": split, "tar": path.name, "offset": start + row["offset"]} for row in piece.rows]
                piece = next(pieces, None)
            file.write(END_OF_TAR)
            file.write(bytes(-file.tell() % tarfile.RECORDSIZE))
        number += 1
