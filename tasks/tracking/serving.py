"""Save outputs as MLflow models from code, without pickles: each loads with mlflow.pyfunc.load_model."""

import base64
import contextlib
import json
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import clepdg
from clepdg.store.record import Record

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

SCRIPT = Path(__file__).with_name("pyfunc_model.py")
TABLE_SCRIPT = Path(__file__).with_name("pyfunc_table.py")
TABLE_REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow")
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


def log_model(
    client: "MlflowClient", own: Path, record: Record, run_id: str, place: Mapping[str, str], *, clep: Path
) -> "LoggedModel":
    """Log an output as a model that mlflow.pyfunc.load_model loads.

    Args:
        own: folder of the output.
        run_id: MLflow run of its stage, whose params become the model's.
        place: tags of the output: fold, row, contexts, seed.
        clep: folder of the CLEP that a classifier needs.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run, key = client.get_run(run_id), record.key
    made = client.create_logged_model(
        run.info.experiment_id,
        "-".join([record.stage, *(place[tag] for tag in ("row", "contexts") if tag in place)]),
        run_id,
        tags={"stage_key": key, **place},
        params=run.data.params,
        model_type=record.stage,
    )
    where, number = made.artifact_location, made.model_id
    logged = Model(artifact_path=where, model_uuid=number, run_id=run_id, model_id=number)
    try:
        with TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            if record.stage == "clep":
                save_clep(folder, own, key, logged=logged)
            elif record.stage == "acpt":
                save_table(folder, read_contexts(own), "context", key, logged=logged)
            elif record.stage == "text_embeddings":
                save_table(folder, read_text_embeddings(own), "emotion", key, logged=logged)
            else:
                save_classifier(folder, own, clep, key, logged=logged)
            client.log_model_artifacts(number, str(folder))
        client.finalize_logged_model(number, "READY")
    except BaseException:
        with contextlib.suppress(Exception):
            client.finalize_logged_model(number, "FAILED")
        raise
    client.log_outputs(run_id, [LoggedModelOutput(number, 0)])
    return made


def save_classifier(folder: Path, head: Path, clep: Path, key: str, *, logged: Any = None) -> None:
    """Save a head and its CLEP as one MLflow model that can be served.

    Args:
        folder: where the model goes.
        head: folder of the classifier stage's output.
        clep: folder of the CLEP stage's output.
        key: the classifier's stage key, stored as metadata.
        logged: MLflow's description (mlflow.models.Model) of the logged model that it becomes.
    """
    from mlflow.types import ColSpec, DataType

    labels = json.loads((head / "head.json").read_text())["labels"]
    answer = {"emotion": DataType.string, **dict.fromkeys(labels, DataType.double)}
    _save_audio_model(
        folder, {"head": head, "clep": clep}, [ColSpec(kind, name) for name, kind in answer.items()], key, logged
    )


def save_clep(folder: Path, clep: Path, key: str, *, logged: Any = None) -> None:
    """Save a CLEP as an MLflow model that answers with audio embeddings.

    Args:
        folder, clep, key, logged: as of save_classifier.
    """
    from mlflow.types import ColSpec, DataType
    from mlflow.types.schema import Array

    _save_audio_model(folder, {"clep": clep}, [ColSpec(Array(DataType.double), "embedding")], key, logged)


def _save_audio_model(
    folder: Path, artifacts: Mapping[str, Path], answer: Sequence[Any], key: str, logged: Any
) -> None:
    """Save a model whose requests are audio.

    A request has path, audio, or samples with sample_rate. The type of audio is open: for binary, MLflow decodes base64
    and drops letters that it does not know.
    """
    from mlflow.types import ColSpec, DataType
    from mlflow.types.schema import AnyType, Array

    asked = {"path": DataType.string, "audio": AnyType(), "samples": Array(DataType.double)}
    asked["sample_rate"] = DataType.long
    _save(
        folder,
        script=SCRIPT,
        artifacts=artifacts,
        signature=([ColSpec(kind, name, required=False) for name, kind in asked.items()], answer),
        example=[{"audio": _half_a_second()}],
        requirements=REQUIREMENTS,
        code=[str(Path(clepdg.__file__).parent)],
        key=key,
        logged=logged,
    )


def read_text_embeddings(folder: Path) -> "pd.DataFrame":
    """Return emotion, context (-1: none) and embedding (D,) of an output."""
    import pandas as pd

    from clepdg.method.text_embeddings import load_text_embeddings

    found = load_text_embeddings(folder)
    emotions = [found.labels[number] for number in found.label_index.tolist()]
    contexts, embeddings = found.context_index.tolist(), found.embeddings.double().tolist()
    return pd.DataFrame({"emotion": emotions, "context": contexts, "embedding": embeddings})


def read_contexts(folder: Path) -> "pd.DataFrame":
    """Return context, token and vector (H,) of ACPT's output."""
    import pandas as pd

    from clepdg.method.acpt import load

    vectors = load(folder).double()
    rows = [(k, m, vector) for k, context in enumerate(vectors.tolist()) for m, vector in enumerate(context)]
    return pd.DataFrame(rows, columns=["context", "token", "vector"])


def save_table(folder: Path, table: "pd.DataFrame", chosen_by: str, key: str, *, logged: Any = None) -> None:
    """Save a table as an MLflow model that answers with its rows.

    Args:
        folder, key, logged: as of save_classifier.
        table: a column of lists of numbers; the others hold one text or integer each.
        chosen_by: the column of which a request names values; an empty request asks for every row.
    """
    from mlflow.types import ColSpec, DataType
    from mlflow.types.schema import Array

    kinds = {"i": DataType.long, "O": Array(DataType.double)}
    answer = {name: kinds.get(table[name].dtype.kind, DataType.string) for name in table}
    answer |= {name: DataType.string for name in table if isinstance(table[name].iloc[0], str)}
    with TemporaryDirectory() as scratch:
        table.to_parquet(path := Path(scratch) / "table.parquet", index=False)
        _save(
            folder,
            script=TABLE_SCRIPT,
            artifacts={"table": path},
            signature=(
                [ColSpec(answer[chosen_by], chosen_by, required=False)],
                [ColSpec(kind, name) for name, kind in answer.items()],
            ),
            example=[{chosen_by: table[chosen_by].tolist()[0]}],
            requirements=TABLE_REQUIREMENTS,
            code=[],
            key=key,
            logged=logged,
        )


def _save(
    folder: Path,
    *,
    script: Path,
    artifacts: Mapping[str, Path],
    signature: tuple[Sequence[Any], Sequence[Any]],
    example: list[dict[str, Any]],
    requirements: Sequence[str],
    code: list[str],
    key: str,
    logged: Any,
) -> None:
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    asked, answered = (Schema(list(columns)) for columns in signature)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*(input example|integer column)"
        )  # the signature describes requests
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(script),
            artifacts={name: path.absolute().as_uri() for name, path in artifacts.items()},  # MLflow reads addresses
            code_paths=code or None,
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in requirements],
            metadata={"stage_key": key},
            signature=ModelSignature(inputs=asked, outputs=answered),
            input_example=pd.DataFrame(example),
            mlflow_model=logged,
        )


def _half_a_second() -> str:
    """Return a tone as base64 of a FLAC file, for input examples."""
    import numpy as np

    from clepdg.audio.io import encode_flac, to_pcm

    time = np.arange(8000) / 16000
    tone = 0.1 * np.sin(2 * np.pi * 200 * time) * np.linspace(0.2, 1, len(time))
    return base64.b64encode(encode_flac(to_pcm(tone.astype(np.float32)), 16000)).decode()
