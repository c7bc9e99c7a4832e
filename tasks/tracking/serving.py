"""Save classifiers as MLflow models from code, without pickles."""

import json
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import clepdg

SCRIPT = Path(__file__).with_name("pyfunc_model.py")
REQUIREMENTS = (
    "mlflow",
    "torch",
    "torchaudio",
    "transformers",
    "safetensors",
    "numpy",
    "pandas",
    "pydantic",
    "soundfile",
    "soxr",
    "scipy",
    "tqdm",
    "filelock",
    "av",
)


def save_classifier(folder: Path, head: Path, clep: Path, key: str) -> None:
    """Save a head and its CLEP as one MLflow model that can be served.

    Args:
        folder: where the model goes.
        head: folder of the classifier stage's output.
        clep: folder of the CLEP stage's output.
        key: the classifier's stage key, stored as metadata.
    """
    import mlflow

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example")  # the signature describes requests
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(SCRIPT),
            artifacts={"head": head.absolute().as_uri(), "clep": clep.absolute().as_uri()},  # MLflow reads addresses
            code_paths=[str(Path(clepdg.__file__).parent)],
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in REQUIREMENTS],
            metadata={"stage_key": key},
            signature=_signature(json.loads((head / "head.json").read_text())["labels"]),
        )


def _signature(labels: list[str]) -> Any:
    """Return the signature of requests and responses.

    A request has path, audio, or samples with sample_rate. The type of audio is open: for binary, MLflow decodes base64
    and drops letters that it does not know.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array

    inputs = {"path": DataType.string, "audio": AnyType(), "samples": Array(DataType.double)}
    inputs["sample_rate"] = DataType.long
    outputs = {"emotion": DataType.string, **dict.fromkeys(labels, DataType.double)}
    return ModelSignature(
        inputs=Schema([ColSpec(kind, name, required=False) for name, kind in inputs.items()]),
        outputs=Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
    )
