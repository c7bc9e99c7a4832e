"""Classify or embed audio as an MLflow model: CLEP's audio tower, with or without a head.

It needs only the package clepdg, which is logged with the model.
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

EXPECTED = (
    "Each row needs `audio` (a file's bytes; base64 in JSON), `samples` and `sample_rate`, or `path` (an audio file)"
)
FOLDER = "CLEPDG_SERVING_AUDIO"  # environment variable; without it no path is read
STANDARD = str.maketrans("-_", "+/")  # of URL-safe base64


class AudioModel(PythonModel):  # type: ignore[misc]
    """Predicts emotions and their probabilities; without a head, embeddings."""

    max_seconds = 60.0  # of a file
    _skip_type_hint_validation = True  # else MLflow warns at every load: type hints can't describe our table

    def load_context(self, context: Any) -> None:
        """Load CLEP and the head from the logged artifacts."""
        from clepdg.method.heads import load_head
        from clepdg.models.folder import load_model

        self.clap = load_model(Path(context.artifacts["clep"]))
        self.head = load_head(Path(context.artifacts["head"])) if "head" in context.artifacts else None

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # hints ask for a signature
        """Return a table with `emotion` and one column of probabilities per label.

        Without a head: with `embedding`, a list of D numbers of length 1.

        Args:
            model_input: a table, or a list of records, with `samples` (T values in [-1, 1]) and `sample_rate` (Hz),
                `audio` (a file's bytes, or base64 of them), or `path` (an audio file below the folder that the
                environment variable CLEPDG_SERVING_AUDIO names).

        Raises:
            MlflowException: there is no row, or some have no usable audio; the message names each one.
        """
        import pandas as pd

        from clepdg.audio.inspection import read_usable
        from clepdg.errors import IndexingError

        table = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        if not len(table):  # MLflow drops columns that are not in the signature
            raise _refused("There is nothing to classify")
        rows = ((f"row {number}", row.to_dict()) for number, (_, row) in enumerate(table.iterrows()))
        try:
            features = self.clap.encode_waveforms(read_usable(rows, lambda row: _read(row, self.max_seconds)))
        except IndexingError as error:
            raise _refused(
                "\n- ".join(["Some rows can't be used", *(fault.what for fault in error.children)])
            ) from error
        if self.head is None:
            return pd.DataFrame({"embedding": features.cpu().double().tolist()})
        probabilities = self.head.probabilities(features.cpu().numpy())
        answer = pd.DataFrame(probabilities, columns=list(self.head.labels))
        answer.insert(0, "emotion", [self.head.labels[n] for n in probabilities.argmax(axis=1)])
        return answer


def _read(row: Mapping[Any, Any], max_seconds: float = 60.0) -> tuple[Any, int]:
    """Return the samples (T, C) of a row and their rate in Hz."""
    import numpy as np

    from clepdg.audio.inspection import read_audio, read_samples
    from clepdg.config.schema import IndexConfig
    from clepdg.errors import IndexingError

    limits = IndexConfig(max_seconds=max_seconds)
    given = {name: value for name, value in row.items() if np.ndim(value) or value == value and value is not None}
    if "samples" in given and "sample_rate" in given:
        return read_samples(given["samples"], given["sample_rate"], limits)
    if "audio" in given:
        return read_audio(_bytes(given["audio"]), limits)
    if "path" in given:
        return read_audio(_allowed(given["path"]), limits)
    raise IndexingError(f"has no audio (columns with values: {', '.join(map(str, given)) or 'none'})")


def _bytes(audio: Any) -> bytes:
    """Return a file's bytes; requests send them as base64."""
    from clepdg.errors import IndexingError

    if isinstance(audio, bytes | bytearray):
        return bytes(audio)
    try:
        return base64.b64decode("".join(audio.split()).translate(STANDARD), validate=True)
    except (AttributeError, ValueError) as error:
        raise IndexingError("its audio is not base64 of a file's bytes") from error


def _allowed(path: Any) -> Path:
    """Return a path below the folder that the server's operator names."""
    from clepdg.errors import IndexingError

    folder = os.environ.get(FOLDER)
    if not folder:
        raise IndexingError(f"`path` is not allowed: this server's environment names no folder ({FOLDER})")
    try:
        root = Path(folder).resolve(strict=True)
        found: Path = (root / path).resolve()
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise IndexingError(f"its path can't be used: {error}") from error
    if not found.is_relative_to(root):
        raise IndexingError(f"its path lies outside of the folder that this server's environment names ({FOLDER})")
    return found


def _refused(what: str) -> MlflowException:
    return MlflowException(f"{what}\n{EXPECTED}.", INVALID_PARAMETER_VALUE)


mlflow.models.set_model(AudioModel())
