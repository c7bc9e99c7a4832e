"""Read shards: WebDataset tars of 16-bit FLAC and an offset table.

A shard folder holds <split>-000000.tar, ... and offsets.parquet. In a tar an utterance is <utterance_id>.flac and
<utterance_id>.json (audio facts and raw_label). Emotions and splits are joined from the index, so an edited label map
does not encode audio again. Training reads by offset; sequential passes stream the tars.
"""

import os
import re
import tarfile
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.io import Waveform, decode, resample, to_mono, to_pcm
from clepdg.audio.noise import RATE
from clepdg.errors import IndexingError, ShardError
from clepdg.hashing import digest_lines, parse_json
from clepdg.store.readers import read_table

if TYPE_CHECKING:
    import pandas as pd

BABBLE_UTTERANCES: Final = 240
FULL_SCALE: Final = np.float32(1 / 32768)
OFFSETS = "offsets.parquet"
COLUMNS: Final = {  # of the offset table
    "utterance_id": "string",
    "split": "string",
    "tar": "string",
    "offset": "int64",
    "bytes": "int64",
    "sample_rate": "int32",
    "num_samples": "int64",
    "pcm_sha256": "string",  # over the 16-bit samples: independent of the FLAC encoder's version
    "raw_label": "string",
}


def read_offsets(folder: Path) -> "pd.DataFrame":
    """Read the offset table: one row per utterance, in the tars' order.

    Raises:
        StoreError: the table is damaged.
        ShardError: a row points out of the folder, or out of a tar.
    """
    table: pd.DataFrame = read_table(folder / OFFSETS, COLUMNS).to_pandas()
    for tar, part in table.groupby("tar"):
        known = re.fullmatch(r"\w+-\d{6}\.tar", str(tar)) is not None and (folder / str(tar)).is_file()
        ends = part.offset.to_numpy(dtype="float64") + part.bytes.to_numpy(dtype="float64")
        if not known or min(part.offset.min(), part.bytes.min()) < 0 or ends.max() > (folder / str(tar)).stat().st_size:
            raise ShardError("An offset table points to missing data.", got=repr(tar), where=folder / OFFSETS)
    return table


def digests(folder: Path) -> dict[str, str]:
    """Return a shard folder's digests.

    "content" is over all rows, "learning" over train and validation.
    """
    offsets = read_offsets(folder)
    facts = ["utterance_id", "split", "pcm_sha256", "sample_rate", "num_samples", "raw_label"]
    learning = offsets[offsets.split != "test"]
    return {
        "content": digest_lines(offsets[facts].to_numpy().tolist()),
        "learning": digest_lines(learning[facts].to_numpy().tolist()),
    }


def read_waveform(folder: Path, tar: str, offset: int, size: int) -> tuple[Waveform, int]:
    """Read one utterance: a waveform (T,) in [-1, 1] and its rate in Hz.

    Raises:
        ShardError: the tar can't be read, or the bytes at the offset are not audio.
    """
    try:
        with (folder / tar).open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise _unreadable(folder / tar, error) from error
    return _decode(data, folder / tar)


def _decode(data: bytes, tar: Path) -> tuple[Waveform, int]:
    try:
        samples, rate = decode(data)
    except IndexingError as error:
        raise ShardError("A shard does not hold what its offset table says.", got=error, where=tar) from error
    return to_mono(samples), rate


class _OpenFile:
    """A file's descriptor, closed when nothing refers to it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class UtteranceReader:
    """Reads utterances by their position, from any thread.

    Tars stay open, at most `open_files` of them, and decoded samples stay in memory, at most `most_bytes` of them.

    Args:
        utterances: folder, tar, offset, bytes.
    """

    def __init__(self, utterances: "pd.DataFrame", most_bytes: int = 0, open_files: int = 64) -> None:
        self._rows = [utterances[name].tolist() for name in ("folder", "tar", "offset", "bytes")]
        self._open = lru_cache(open_files)(_OpenFile)
        self._kept: dict[int, tuple[NDArray[np.int16], int]] = {}
        self._bytes_left, self._lock = most_bytes, threading.Lock()

    def __len__(self) -> int:
        """Return the number of utterances."""
        return len(self._rows[0])

    def waveform(self, position: int) -> tuple[Waveform, int]:
        """Return a waveform (T,) in [-1, 1] and its rate in Hz.

        Raises:
            ShardError: the tar can't be read, or the bytes at the offset are not audio.
        """
        if position in self._kept:
            pcm, rate = self._kept[position]
            return pcm * FULL_SCALE, rate
        folder, tar, offset, size = (column[position] for column in self._rows)
        path = Path(folder) / tar
        try:
            file = self._open(path)  # named, so that it stays open: another thread may have opened it too
            data = os.pread(file.descriptor, size, offset)
        except OSError as error:
            raise _unreadable(path, error) from error
        waveform, rate = _decode(data, path)
        if 2 * len(waveform) <= self._bytes_left:
            self._keep(position, waveform, rate)
        return waveform, rate

    def pcm(self, position: int) -> tuple[NDArray[np.int16], int]:
        """Return the 16-bit samples (T,) and their rate; else as `waveform`."""
        if position in self._kept:
            return self._kept[position]
        waveform, rate = self.waveform(position)
        return to_pcm(waveform), rate

    def _keep(self, position: int, waveform: Waveform, rate: int) -> None:
        pcm = to_pcm(waveform)
        with self._lock:  # two threads may have read the same utterance
            if position not in self._kept and pcm.nbytes <= self._bytes_left:
                self._bytes_left -= pcm.nbytes
                self._kept[position] = pcm, rate


def read_waveforms(folder: Path, offsets: "pd.DataFrame") -> Iterator[tuple[str, Waveform, int]]:
    """Yield (utterance_id, waveform (T,), rate in Hz) of offset table rows.

    Raises:
        ShardError: the bytes at an offset are not audio.
    """
    reader = reader_of(folder, offsets)
    return ((name, *reader.waveform(n)) for n, name in enumerate(offsets.utterance_id))


def reader_of(folder: Path, offsets: "pd.DataFrame") -> UtteranceReader:
    """Return a reader of offset table rows."""
    return UtteranceReader(offsets.assign(folder=str(folder)))


def waveforms_of(utterances: "pd.DataFrame") -> Iterator[tuple[Waveform, int]]:
    """Yield waveforms (T,) and rates in Hz of utterances, in their order.

    Args:
        utterances: folder, tar, offset, bytes.
    """
    reader = UtteranceReader(utterances)
    return map(reader.waveform, range(len(reader)))


def babble_voices(shard_folders: Sequence[Path], most: int = BABBLE_UTTERANCES) -> list[Waveform]:
    """Return utterances for babble noise: waveforms (T,) at 16 kHz.

    They are drawn from the training parts of all corpora, equally many of each and spread over its speakers.

    Args:
        shard_folders: the corpora's shards.
        most: utterances in all.
    """
    voices: list[Waveform] = []
    for folder in shard_folders:
        offsets = read_offsets(folder)
        training = offsets[offsets.split == "train"].sort_values("utterance_id")  # ordered by speaker
        places = np.linspace(0, len(training) - 1, min(len(training), -(-most // len(shard_folders)))).astype(int)
        voices += [
            resample(waveform, rate, RATE) for _, waveform, rate in read_waveforms(folder, training.iloc[places])
        ]
    return voices


def stream(folder: Path) -> Iterator[tuple[str, Waveform, int]]:
    """Yield (utterance_id, waveform (T,), rate in Hz) of a shard folder.

    The tars are streamed in order. WebDataset reads open files: it takes a path for a URL or a pattern.

    Raises:
        ShardError: a tar is missing or truncated, or its utterances are not those of the offset table.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    offsets = read_offsets(folder)
    for tar, expected in offsets.groupby("tar", sort=True):
        found: list[str] = []
        try:
            with (folder / str(tar)).open("rb") as file:
                for sample in group_by_keys(tar_file_expander([{"url": str(tar), "stream": file}])):
                    samples, rate = decode(sample["flac"])
                    if parse_json(sample["json"])["utterance_id"] != sample["__key__"]:
                        raise ValueError(f"{sample['__key__']} has another utterance_id in its JSON")
                    found.append(sample["__key__"])
                    yield sample["__key__"], to_mono(samples), rate
        except OSError as error:
            raise _unreadable(folder / str(tar), error) from error
        except (tarfile.TarError, IndexingError, KeyError, EOFError, ValueError, TypeError) as error:
            raise ShardError("A shard is truncated or damaged.", got=error, where=folder / str(tar)) from error
        if found != expected.utterance_id.tolist():
            raise ShardError(
                "A shard does not hold what its offset table says.",
                got=f"{len(found)} utterances",
                expected=f"{len(expected)} utterances",
                where=folder / str(tar),
            )


def _unreadable(tar: Path, error: OSError) -> ShardError:
    do = "run the same command again: a missing shard is written again"
    return ShardError("A shard can't be read.", got=error, where=tar, do=do)
