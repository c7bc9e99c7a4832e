"""The registered classifier as an MLflow pyfunc from code: audio in, emotion and probabilities out. No pickle."""

from importlib import metadata
from pathlib import Path

from tasks.settings import PROJECT

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

    mlflow.pyfunc.save_model(
        path=str(folder),
        python_model=str(SCRIPT),
        artifacts={"head": str(head), "clep": str(clep)},
        code_paths=[str(PROJECT / "clepdg")],
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in REQUIREMENTS],
        metadata={"stage_key": key},
    )
