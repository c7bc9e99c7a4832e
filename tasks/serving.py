"""The registered classifier as an MLflow pyfunc from code: audio in, emotion and probabilities out. No pickle."""

from importlib import metadata
from pathlib import Path
from typing import Any

from clepdg.store import Record
from tasks.settings import PROJECT

SCRIPT = Path(__file__).with_name("pyfunc_model.py")
REQUIREMENTS = ("mlflow", "torch", "torchaudio", "transformers", "safetensors", "numpy", "pandas", "soundfile", "soxr")


def log_classifier(run_id: str, head: Path, clep: Path, record: Record) -> str:
    """Log the head and CLEP's model folder as one servable model of a run; return its address."""
    import mlflow

    logged: Any = mlflow.pyfunc.log_model(
        name="classifier",
        python_model=str(SCRIPT),
        artifacts={"head": str(head), "clep": str(clep)},
        code_paths=[str(PROJECT / "clepdg")],
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in (*REQUIREMENTS, "scipy", "tqdm", "filelock")],
        metadata={"stage_key": record.key, "labels": list(record.figures)},
        run_id=run_id,
    )
    return str(logged.model_uri)
