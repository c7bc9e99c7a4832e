"""Classify the emotion of audio with CLEP's audio encoder and a head."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.inspection import read_audio, read_samples, read_usable
from clepdg.audio.io import Waveform, to_mono
from clepdg.audio.segments import LONGEST, Cut, cut_pieces
from clepdg.callbacks import Reporting
from clepdg.config.schema import IndexConfig
from clepdg.dataset.shards import waveforms_of
from clepdg.errors import ConfigError, IndexingError
from clepdg.method.audio_embeddings import AudioEmbeddings, build_audio_embeddings
from clepdg.method.heads import Head
from clepdg.models.clap import Clap
from clepdg.models.dual import Dual

if TYPE_CHECKING:
    import pandas as pd

Audio = str | Path | tuple[Waveform, int]
BATCH = 32  # waveforms that are embedded together
MOST_SAMPLES: Final = 1 << 26  # of files that wait for their batch: 256 MB
UTTERANCE: Final = ("utterance_id", "folder", "tar", "offset", "bytes")  # the columns that predict reads
EXPECTED: Final = "a path, (array, rate) with the rate in Hz, or a list of these"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of a file, `start` to `end` in s, and its probabilities (N,)."""

    start: float
    end: float
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class EmotionClassifier:
    """CLEP's audio encoder and a head trained on text embeddings."""

    clap: Clap
    head: Head

    def __repr__(self) -> str:
        """Return the kind of model and the labels, without weights."""
        return f"EmotionClassifier({type(self.clap).__name__}, labels={list(self.head.labels)})"

    def predict(self, audio: "Audio | Sequence[Audio] | pd.DataFrame") -> "pd.DataFrame":
        """Return the emotion and label probabilities, one row per piece.

        Args:
            audio: files, arrays (T,) in [-1, 1] with their rate in Hz, or utterances of load_corpus.

        Raises:
            ConfigError: it is no audio: an array without its rate, or a table without the columns of utterances.
            IndexingError: some can't be used; each one is named with its reason.
        """
        import pandas as pd

        names, waveforms = _named(audio)
        labels = list(self.head.labels)
        probabilities = self.head.probabilities(embed(self.clap, waveforms)) if names else np.zeros((0, len(labels)))
        found = pd.DataFrame(probabilities, columns=labels, index=names)
        found.insert(0, "emotion", [labels[n] for n in probabilities.argmax(axis=1)])
        return found

    def predict_each(
        self, files: Iterable[str | Path], cut: Cut | None = None
    ) -> Iterator[tuple[str, list[Piece] | IndexingError]]:
        """Classify files in order, a batch at a time.

        Memory does not grow with the number of files.

        Args:
            files: paths of audio files.
            cut: of clepdg.audio.segments, for recordings of at most an hour; None: a file is one piece.

        Yields:
            A file's name and its pieces, or the error that says why it can't be used.
        """
        waiting: list[tuple[str, _Cut | IndexingError]] = []
        pieces = samples = 0
        for path in files:
            read = _cut(path, cut)
            waiting.append((str(path), read))
            if not isinstance(read, IndexingError):
                pieces, samples = pieces + len(read.spans), samples + len(read.waveform)
            if pieces >= BATCH or samples >= MOST_SAMPLES:
                yield from self._classify(waiting)
                waiting, pieces, samples = [], 0, 0
        yield from self._classify(waiting)

    def _classify(
        self, waiting: "list[tuple[str, _Cut | IndexingError]]"
    ) -> Iterator[tuple[str, list[Piece] | IndexingError]]:
        """Yield the pieces of files that were read, or their errors."""
        every = [read for _, read in waiting if isinstance(read, _Cut)]
        waveforms = ((read.waveform[a:b], read.rate) for read in every for a, b in read.spans)
        rows = iter(self.head.probabilities(embed(self.clap, waveforms)) if every else ())
        for path, read in waiting:
            if isinstance(read, IndexingError):
                yield path, read
            else:
                times = ((a / read.rate, b / read.rate) for a, b in read.spans)
                yield path, [Piece(start=a, end=b, probabilities=next(rows)) for a, b in times]

    def save(self, folder: str | Path) -> None:
        """Write the classifier as a folder that load_classifier reads.

        It is CLEP's own folder, with the head in one below.
        """
        self.clap.save(Path(folder))
        (Path(folder) / "head").mkdir(parents=True, exist_ok=True)
        self.head.save(Path(folder) / "head")


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """A file that was read: waveform (T,), rate in Hz, samples of its pieces."""

    waveform: Waveform
    rate: int
    spans: list[tuple[int, int]]


def _cut(path: str | Path, cut: Cut | None) -> _Cut | IndexingError:
    """Read a file and cut it, or return the error that says why not."""
    try:
        samples, rate = read_audio(Path(path), IndexConfig(max_seconds=LONGEST) if cut else None)
        waveform = to_mono(samples)
        spans = cut_pieces(waveform, rate, cut) if cut else [(0, len(waveform))]
    except IndexingError as error:
        return error
    return _Cut(waveform=waveform, rate=rate, spans=spans)


def _named(audio: Any) -> tuple[list[Any], Iterator[tuple[Waveform, int]]]:
    """Return names of pieces of audio, and their waveforms and rates."""
    import pandas as pd

    if isinstance(audio, pd.DataFrame):
        if not {*UTTERANCE} <= {*audio.columns}:
            raise ConfigError(
                "This table holds no utterances of load_corpus.",
                got=list(audio.columns),
                expected=UTTERANCE,
                do="for files give their list: predict(list(table.path))",
            )
        return audio.utterance_id.tolist(), waveforms_of(audio)
    items = list(audio) if isinstance(audio, Iterable) and not isinstance(audio, str | Path | tuple) else [audio]
    if wrong := [type(item).__name__ for item in items if not _is_audio(item)]:
        raise ConfigError("This is neither a file nor an array with its rate.", got=wrong[:1], expected=EXPECTED)
    names = [n if isinstance(item, tuple) else str(item) for n, item in enumerate(items)]
    labels = (f"array {name}" if isinstance(name, int) else name for name in names)
    return names, read_usable(zip(labels, items, strict=True), _read)


def _is_audio(item: Any) -> bool:
    """Return whether it is a path, or a pair (array, rate)."""
    if isinstance(item, tuple):
        return len(item) == 2 and not isinstance(item[0], str | Path)
    return isinstance(item, str | Path)


def embed(clap: Clap, waveforms: Iterator[tuple[Waveform, int]]) -> NDArray[np.float32]:
    """Return audio embeddings (U, D), a batch at a time."""
    named = ((str(n), waveform, rate) for n, (waveform, rate) in enumerate(waveforms))
    built = build_audio_embeddings(
        lambda batch: clap.encode_waveforms(batch).cpu().numpy(), named, 0, Reporting(), BATCH
    )
    return built.embeddings


def _read(item: Audio) -> tuple[Waveform, int]:
    return read_samples(*item) if isinstance(item, tuple) else read_audio(Path(item))


def pool_states(clap: Clap, utterances: "pd.DataFrame") -> tuple[AudioEmbeddings, ...]:
    """Return a dual backbone's pooled states of utterances.

    None for a CLAP, which learns from windows.
    """
    if not isinstance(clap, Dual):
        return ()
    named = ((name, *heard) for name, heard in zip(utterances.utterance_id, waveforms_of(utterances), strict=True))
    return (build_audio_embeddings(clap.pool, named, len(utterances), Reporting(), BATCH),)
