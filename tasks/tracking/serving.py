"""The registered classifier as an MLflow pyfunc from code: audio in, emotion and probabilities out. No pickle."""

import json
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.host.settings import PROJECT

SCRIPT = Path(__file__).with_name("pyfunc_model.py")
REQUIREMENTS = (
    "mlflow",
    "torch",
    "torchaudio",
    "transformers",
    "safetensors",
    "numpy",
    "pandas",
    "soundfile",
    "soxr",
    "scipy",
    "tqdm",
    "filelock",
    "av",
)


def save_classifier(folder: Path, head: Path, clep: Path, key: str) -> None:
    """Write the head and CLEP's model folder as one servable MLflow model into a folder."""
    import mlflow

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example")  # the signature says what a request holds
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(SCRIPT),
            artifacts={"head": str(head), "clep": str(clep)},
            code_paths=[str(PROJECT / "clepdg")],
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in REQUIREMENTS],
            metadata={"stage_key": key},
            signature=_signature(json.loads((head / "head.json").read_text())["labels"]),
        )


def _signature(labels: list[str]) -> Any:
    """Return what a request may hold (one of path, audio, or samples with sample_rate) and what an answer holds."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    asked = {"path": DataType.string, "audio": DataType.binary, "samples": Array(DataType.double)}
    asked["sample_rate"] = DataType.long
    answered = {"emotion": DataType.string, **dict.fromkeys(labels, DataType.double)}
    return ModelSignature(
        inputs=Schema([ColSpec(kind, name, required=False) for name, kind in asked.items()]),
        outputs=Schema([ColSpec(kind, name) for name, kind in answered.items()]),
    )
