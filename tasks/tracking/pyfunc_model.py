"""Classify emotions as an MLflow model: CLEP's audio tower and a head.

It needs only the package clepdg, which is logged with the model.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel

EXPECTED = (
    "each row needs `path` (an audio file), `audio` (a file's bytes; base64 in JSON), or `samples` and `sample_rate`"
)


class EmotionClassifier(PythonModel):  # type: ignore[misc]
    """Predicts emotions and their probabilities from audio."""

    _skip_type_hint_validation = True  # else MLflow warns at every load: type hints can't describe our table

    def load_context(self, context: Any) -> None:
        """Load CLEP and the head from the logged artifacts."""
        from clepdg.method.heads import load_head
        from clepdg.models.clap import load_clap

        self.clap = load_clap(Path(context.artifacts["clep"]))
        self.head = load_head(Path(context.artifacts["head"]))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # hints ask for a signature
        """Return a table with `emotion` and one column of probabilities per label.

        Args:
            model_input: a table, or a list of records, with either `path` (an audio file), `audio` (a file's bytes), or
                `samples` (T values in [-1, 1]) and `sample_rate` (Hz).

        Raises:
            MlflowException: there is no row, or a row has no valid audio; the message names the row.
        """
        import pandas as pd

        table = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        if not len(table):  # MLflow drops columns that are not in the signature
            raise _refused("There is nothing to classify")
        waveforms = [_waveform(number, row.to_dict()) for number, (_, row) in enumerate(table.iterrows())]
        probabilities = self.head.probabilities(self.clap.encode_waveforms(waveforms).cpu().numpy())
        answer = pd.DataFrame(probabilities, columns=list(self.head.labels))
        answer.insert(0, "emotion", [self.head.labels[n] for n in probabilities.argmax(axis=1)])
        return answer


def _waveform(number: int, row: Mapping[Any, Any]) -> tuple[Any, int]:
    import numpy as np

    from clepdg.audio.io import decode, to_mono
    from clepdg.errors import ClepError

    given = {name: value for name, value in row.items() if np.ndim(value) or value == value and value is not None}
    if "samples" in given and "sample_rate" in given:
        samples, rate = np.asarray(given["samples"], dtype=np.float32), int(given["sample_rate"])
        waveform = samples if samples.ndim == 1 and rate > 0 else np.zeros(0, np.float32)
    elif "audio" in given or "path" in given:
        try:
            read, rate = decode(_bytes(given["audio"]) if "audio" in given else Path(given["path"]))
        except ClepError as error:
            raise _refused(f"Row {number} is not audio ({' '.join(str(error).split())})") from error
        waveform = to_mono(read)
    else:
        raise _refused(f"Row {number} has no audio (columns with values: {', '.join(map(str, given)) or 'none'})")
    if not waveform.size or not np.isfinite(waveform).all():
        raise _refused(f"Row {number} has no samples, or some that are not finite")
    return waveform, rate


def _bytes(audio: str | bytes) -> bytes:
    """Return a file's bytes, which JSON requests send as base64."""
    try:
        return base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError):
        return audio.encode() if isinstance(audio, str) else bytes(audio)


def _refused(what: str) -> MlflowException:
    return MlflowException(f"{what}: {EXPECTED}.", INVALID_PARAMETER_VALUE)


mlflow.models.set_model(EmotionClassifier())
