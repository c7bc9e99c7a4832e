"""Classify the emotion of audio with CLEP's audio encoder and a head."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clepdg.audio.inspection import read_audio, read_samples, read_usable
from clepdg.audio.io import Waveform
from clepdg.callbacks import Reporting
from clepdg.dataset.shards import read_waveform
from clepdg.method.audio_embeddings import AudioEmbeddings, build_audio_embeddings
from clepdg.method.heads import Head
from clepdg.models.clap import Clap
from clepdg.models.dual import Dual

if TYPE_CHECKING:
    import pandas as pd

Audio = str | Path | tuple[Waveform, int]
BATCH = 32  # waveforms that are embedded together


@dataclass(frozen=True)
class EmotionClassifier:
    """CLEP's audio encoder and a head trained on text embeddings."""

    clap: Clap
    head: Head

    def predict(self, audio: "Audio | Sequence[Audio] | pd.DataFrame") -> "pd.DataFrame":
        """Return the emotion and label probabilities, one row per piece.

        Args:
            audio: files, arrays (T,) in [-1, 1] with their rate in Hz, or utterances of load_corpus.

        Raises:
            IndexingError: some can't be used; each one is named with its reason.
        """
        import pandas as pd

        names, waveforms = _named(audio)
        probabilities = self.head.probabilities(embed(self.clap, waveforms)) if names else np.zeros((0, 1))
        found = pd.DataFrame(probabilities, columns=list(self.head.labels)[: probabilities.shape[1]], index=names)
        found.insert(0, "emotion", [self.head.labels[n] for n in probabilities.argmax(axis=1)])
        return found

    def save(self, folder: str | Path) -> None:
        """Write the classifier as a folder that load_classifier reads."""
        self.clap.save(Path(folder) / "clep")
        (Path(folder) / "head").mkdir(parents=True, exist_ok=True)
        self.head.save(Path(folder) / "head")


def _named(audio: Any) -> tuple[list[Any], Iterator[tuple[Waveform, int]]]:
    """Return names of pieces of audio, and their waveforms and rates."""
    import pandas as pd

    if isinstance(audio, pd.DataFrame):
        return audio.utterance_id.tolist(), waveforms_of(audio)
    items = [audio] if isinstance(audio, str | Path | tuple) else list(audio)
    names = [n if isinstance(item, tuple) else str(item) for n, item in enumerate(items)]
    labels = (f"array {name}" if isinstance(name, int) else name for name in names)
    return names, read_usable(zip(labels, items, strict=True), _read)


def waveforms_of(utterances: "pd.DataFrame") -> Iterator[tuple[Waveform, int]]:
    """Yield waveforms (T,) and rates in Hz of utterances, in their order."""
    row: Any
    for row in utterances.itertuples(index=False):
        yield read_waveform(Path(row.folder), row.tar, row.offset, row.bytes)


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
