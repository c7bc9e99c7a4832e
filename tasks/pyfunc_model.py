"""What MLflow loads as the classifier: CLEP's audio tower and a head. Runs with clepdg alone, without this project."""

from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel


class EmotionClassifier(PythonModel):  # type: ignore[misc]
    """Audio to emotion and probabilities."""

    _skip_type_hint_validation = True  # or MLflow warns at every load that it has no hints, which can't say our table

    def load_context(self, context: Any) -> None:
        """Load CLEP and the head from the logged artifacts."""
        from clepdg.clap import load_clap
        from clepdg.classifier import load_head

        self.clap = load_clap(Path(context.artifacts["clep"]))
        self.head = load_head(Path(context.artifacts["head"]))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # hints ask for a signature
        """Return a table with `emotion` and one column of probabilities per label.

        Args:
            model_input: a table, or list of records, with either `path` (an audio file), `audio` (a file's bytes), or
                `samples` (T values in [-1, 1]) and `sample_rate` (Hz).
        """
        import pandas as pd

        table = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        embeddings = self.clap.encode_waveforms([_waveform(dict(row)) for _, row in table.iterrows()])
        probabilities = self.head.probabilities(embeddings.cpu().numpy())
        answer = pd.DataFrame(probabilities, columns=list(self.head.labels))
        answer.insert(0, "emotion", [self.head.labels[n] for n in probabilities.argmax(axis=1)])
        return answer


def _waveform(row: dict[str, Any]) -> tuple[Any, int]:
    import base64

    import numpy as np

    from clepdg.audio import decode, to_mono

    if row.get("samples") is not None:
        return np.asarray(row["samples"], dtype=np.float32), int(row["sample_rate"])
    audio = row.get("audio")
    if isinstance(audio, str):  # bytes arrive as base64 in JSON
        audio = base64.b64decode(audio)
    samples, rate = decode(audio if audio is not None else Path(row["path"]))
    return to_mono(samples), rate


mlflow.models.set_model(EmotionClassifier())
