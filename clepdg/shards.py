"""Shards: deterministic WebDataset tars of 16-bit FLAC, an offset table beside them, and their readers.

A shard folder holds <split>-000000.tar, ... and offsets.parquet. In a tar an utterance is <utterance_id>.flac and
<utterance_id>.json (audio facts and raw_label). Emotions and splits are joined from the index, so that an edited label
map does not encode audio again. Training draws by offset; sequential passes and other people stream the tars.
"""

import json
import multiprocessing
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.audio import Waveform, decode, encode_flac, resample, to_mono, to_pcm
from clepdg.cards import SPLITS
from clepdg.config import ShardConfig
from clepdg.errors import IndexingError, ShardError
from clepdg.store import digest_lines

if TYPE_CHECKING:
    import pandas as pd

OFFSETS = "offsets.parquet"
FEW = 200  # utterances below which starting processes costs more than it saves


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One utterance as it is stored; pcm_sha256 is over its 16-bit samples, whatever the FLAC encoder's version."""

    utterance_id: str
    flac: bytes
    sample_rate: int  # Hz
    num_samples: int
    pcm_sha256: str
    raw_label: str


def encode(path: Path, utterance_id: str, raw_label: str, band_limit_hz: int | None) -> Encoded:
    """Decode, mix down, resample and encode one file. Runs in worker processes: imports no torch."""
    import hashlib

    samples, rate = decode(path)
    target_rate = rate if band_limit_hz is None else 2 * band_limit_hz
    pcm = to_pcm(resample(to_mono(samples), rate, target_rate))
    return Encoded(
        utterance_id=utterance_id,
        flac=encode_flac(pcm, target_rate),
        sample_rate=target_rate,
        num_samples=len(pcm),
        pcm_sha256=hashlib.sha256(pcm.astype("<i2").tobytes()).hexdigest(),
        raw_label=raw_label,
    )


def write_shards(
    folder: Path,
    root: Path,
    utterances: "pd.DataFrame",
    config: ShardConfig,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write the tars and offsets.parquet of one corpus; bytes do not depend on the day or the number of workers.

    Args:
        root: the corpus's folder, which `utterances.path` is relative to.
        utterances: rows of the index.
        workers: processes that encode; 1 = this one.

    Returns:
        Figures: utterances, seconds, bytes and tars.

    Raises:
        ShardError: a file can't be read any more although the index could.
    """
    import pandas as pd

    for old in folder.glob("*.tar"):  # of a killed run
        old.unlink()
    rows: list[dict[str, Any]] = []
    with _executor(workers if len(utterances) >= FEW else 1) as pool:
        for split in SPLITS:
            part = utterances[utterances.split == split].sort_values("utterance_id")
            jobs = [
                (root / path, utterance_id, raw_label, config.band_limit_hz)
                for path, utterance_id, raw_label in zip(part.path, part.utterance_id, part.raw_label, strict=True)
            ]
            for row in _write_split(folder, split, _ordered(pool, jobs, workers), config):
                rows.append(row)
                progress(len(rows), len(utterances))
    offsets = pd.DataFrame(rows, columns=[*_COLUMNS])
    offsets.astype(_COLUMNS).to_parquet(folder / OFFSETS, index=False)
    seconds = sum(row["num_samples"] / row["sample_rate"] for row in rows)
    tars = sorted(folder.glob("*.tar"))
    return {
        "utterances": len(rows),
        "seconds": round(seconds, 3),
        "bytes": sum(tar.stat().st_size for tar in tars),
        "tars": len(tars),
    }


_COLUMNS = {
    "utterance_id": "str",
    "split": "str",
    "tar": "str",
    "offset": "int64",
    "bytes": "int64",
    "sample_rate": "int32",
    "num_samples": "int64",
    "pcm_sha256": "str",
    "raw_label": "str",
}


def _executor(workers: int) -> Any:
    import contextlib

    if workers <= 1:
        return contextlib.nullcontext()
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _ordered(pool: Executor | None, jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Encoded]:
    """Yield encoded utterances in order, with a bounded number in flight."""
    if pool is None:
        for job in jobs:
            yield _encode_or_explain(*job)
        return
    waiting: list[Future[Encoded]] = []
    iterator = iter(jobs)
    for job in islice(iterator, 8 * workers):
        waiting.append(pool.submit(_encode_or_explain, *job))
    while waiting:
        yield waiting.pop(0).result()
        for job in islice(iterator, 1):
            waiting.append(pool.submit(_encode_or_explain, *job))


def _encode_or_explain(path: Path, utterance_id: str, raw_label: str, band_limit_hz: int | None) -> Encoded:
    try:
        return encode(path, utterance_id, raw_label, band_limit_hz)
    except IndexingError as error:
        raise ShardError(
            "An utterance of the index can't be read any more.",
            got=error,
            where=path,
            do="if the corpus changed, run again: the source is looked at first",
        ) from error


def _write_split(folder: Path, split: str, encoded: Iterable[Encoded], config: ShardConfig) -> Iterator[dict[str, Any]]:
    """Write the tars of one split and yield the offset table's rows."""
    from webdataset import TarWriter

    number, rows, size, writer = -1, list[dict[str, Any]](), 0, None

    def close() -> Iterator[dict[str, Any]]:
        if writer is None:
            return
        writer.close()
        with tarfile.open(path) as tar:
            placed = {member.name: member.offset_data for member in tar if member.name.endswith(".flac")}
        for row in rows:
            yield {**row, "offset": placed[f"{row['utterance_id']}.flac"]}

    for item in encoded:
        if writer is None or size > config.max_megabytes * 1e6:
            yield from close()
            number, rows, size = number + 1, [], 0
            path = folder / f"{split}-{number:06d}.tar"
            writer = TarWriter(str(path), mtime=0, encoder=False)
        facts = {
            "utterance_id": item.utterance_id,
            "sample_rate": item.sample_rate,
            "num_samples": item.num_samples,
            "pcm_sha256": item.pcm_sha256,
            "raw_label": item.raw_label,
        }
        writer.write(
            {
                "__key__": item.utterance_id,
                "flac": item.flac,
                "json": json.dumps(facts, sort_keys=True).encode(),
            }
        )
        size += len(item.flac)
        rows.append({**facts, "split": split, "tar": path.name, "bytes": len(item.flac)})
    yield from close()


def read_offsets(folder: Path) -> "pd.DataFrame":
    """Read the offset table: one row per utterance, in the tars' order."""
    import pandas as pd

    return pd.read_parquet(folder / OFFSETS)


def digests(folder: Path) -> dict[str, str]:
    """Return the digests of a shard folder: "content" (all) and "learning" (train and validation)."""
    offsets = read_offsets(folder)
    facts = ["utterance_id", "split", "pcm_sha256", "sample_rate", "num_samples", "raw_label"]
    learning = offsets[offsets.split != "test"]
    return {
        "content": digest_lines(offsets[facts].to_numpy().tolist()),
        "learning": digest_lines(learning[facts].to_numpy().tolist()),
    }


def read_waveform(folder: Path, tar: str, offset: int, size: int) -> tuple[Waveform, int]:
    """Read one utterance by its offset: a waveform (T,) in [-1, 1] and its rate in Hz.

    Raises:
        ShardError: the bytes at that place are not the utterance.
    """
    with (folder / tar).open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    try:
        samples, rate = decode(data)
    except IndexingError as error:
        raise ShardError("A shard does not hold what its offset table says.", got=error, where=folder / tar) from error
    return to_mono(samples), rate


def stream(folder: Path) -> Iterator[tuple[str, Waveform, int]]:
    """Yield (utterance_id, waveform (T,), rate in Hz) of a whole shard folder, in order, with WebDataset.

    Raises:
        ShardError: a tar is truncated, or holds other utterances than the offset table says.
    """
    from webdataset import WebDataset

    offsets = read_offsets(folder)
    for tar, expected in offsets.groupby("tar", sort=True):
        found: list[str] = []
        try:
            for sample in WebDataset(str(folder / str(tar)), shardshuffle=False):
                samples, rate = decode(sample["flac"])
                found.append(json.loads(sample["json"])["utterance_id"])
                yield sample["__key__"], to_mono(samples), rate
        except (tarfile.TarError, IndexingError, KeyError, EOFError, ValueError) as error:
            raise ShardError("A shard is truncated or damaged.", got=error, where=folder / str(tar)) from error
        if found != expected.utterance_id.tolist():
            raise ShardError(
                "A shard does not hold what its offset table says.",
                got=f"{len(found)} utterances",
                expected=f"{len(expected)} utterances",
                where=folder / str(tar),
            )
