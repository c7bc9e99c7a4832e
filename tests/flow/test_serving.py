"""Protects what leaves the project: the registered classifier in an environment made only from its own requirements."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
import torch

from clepdg.audio.io import decode, to_mono
from clepdg.method.heads import Head
from clepdg_tasks.tracking.serving import save_classifier
from tests.conftest import CORPORA

LABELS = ("angry", "happy", "neutral", "sad")


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    """Return a wav: a real one where the corpora are at hand."""
    import zipfile

    path = tmp_path_factory.mktemp("speech") / "an utterance.wav"
    archive = CORPORA / "ravdess_actors_01-06.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as file:
            path.write_bytes(file.read(next(name for name in file.namelist() if name.endswith(".wav"))))
    else:
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 48_000), 48_000)
    return path


@pytest.fixture(scope="module")
def head() -> Head:
    weight = torch.randn(4, 128, generator=torch.Generator().manual_seed(0))
    return Head(labels=LABELS, cosine=True, weight=weight, bias=torch.zeros(4), mean=torch.zeros(128))


@pytest.fixture(scope="module")
def model(tmp_path_factory, micro_factory, head) -> Path:
    """The classifier as the registry logs it."""
    folder = tmp_path_factory.mktemp("a model")
    for name in ("head", "clep"):
        (folder / name).mkdir()
    head.save(folder / "head")
    micro_factory().save(folder / "clep")
    save_classifier(folder / "model", folder / "head", folder / "clep", "0" * 64)
    return folder / "model"


@pytest.fixture(scope="module")
def clean(tmp_path_factory, model) -> Path:
    """Return the bin folder of an environment made from the logged requirements and nothing else."""
    folder = tmp_path_factory.mktemp("clean") / "env"
    uv = str(Path(sys.executable).with_name("uv"))
    for command in (
        ["venv", "-q", "--python", sys.executable, str(folder)],
        ["pip", "install", "-q", "--python", str(folder / "bin/python"), "-r", str(model / "requirements.txt")],
    ):
        subprocess.run([uv, *command], check=True, timeout=600)
    return folder / "bin"


@pytest.fixture(scope="module")
def expected(micro, head, speech) -> np.ndarray:
    samples, rate = decode(speech)
    return head.probabilities(micro.encode_waveforms([(to_mono(samples), rate)]).numpy())[0]


def alone(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing leads to this project."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
    return {**kept, "PATH": f"{folder}:/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def loaded(model):
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(model))


def test_its_signature_names_what_may_be_asked_and_what_is_answered(loaded):
    asked, answered = loaded.metadata.get_input_schema(), loaded.metadata.get_output_schema()
    assert [(c.name, c.required) for c in asked.inputs] == [
        *(("path", False), ("audio", False), ("samples", False), ("sample_rate", False)),
    ]
    assert answered.input_names() == ["emotion", *LABELS]


def test_every_way_to_give_audio_gives_the_same_answer(loaded, speech, expected):
    samples, rate = decode(speech)
    audio = speech.read_bytes()
    encoded = base64.b64encode(audio)
    for row in (
        {"path": str(speech)},
        {"audio": audio},
        {"audio": encoded.decode()},  # `dataframe_records` and `dataframe_split` of a request
        {"audio": encoded},  # `inputs` of a request: MLflow leaves it encoded there
        {"samples": to_mono(samples), "sample_rate": rate},
        {"samples": to_mono(samples).tolist(), "sample_rate": rate},
    ):
        answer = loaded.predict([row])
        assert answer.emotion.tolist() == [LABELS[expected.argmax()]]
        np.testing.assert_allclose(answer.iloc[0, 1:].astype(float), expected, atol=1e-5)
    assert len(loaded.predict([{"path": str(speech)}, {"audio": audio}])) == 2


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([], "nothing to classify"),
        ([{"file": "a.wav"}], "nothing to classify"),
        ([{"audio": b"no audio"}], "Row 0 is not audio"),
        ([{"audio": "not base64!"}], "Row 0 is not audio"),
        ([{"path": "nowhere.wav"}], "Row 0 is not audio"),
        ([{"samples": [], "sample_rate": 16000}], "Row 0 has no samples"),
        ([{"samples": [0.1, float("nan")], "sample_rate": 16000}], "not finite"),
        ([{"samples": [0.1, 0.2], "sample_rate": 0}], "Row 0 has no samples"),
        ([{"samples": [0.1, 0.2]}], "Row 0 has no audio"),
    ],
)
def test_what_is_no_audio_is_refused_in_one_message(loaded, rows, what):
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException, match=f"{what}.*each row needs"):
        loaded.predict(rows)


def test_it_loads_and_predicts_from_its_own_requirements(clean, model, speech, expected, tmp_path):
    script = (
        "import sys, json, mlflow.pyfunc\n"
        f"table = mlflow.pyfunc.load_model({str(model)!r}).predict([{{'path': {str(speech)!r}}}])\n"
        "print(json.dumps({'answer': table.to_dict('records')[0],\n"
        "    'ours': [name for name in ('clepdg_tasks', 'clepdg_flows', 'prefect') if name in sys.modules]}))"
    )
    done = subprocess.run(
        [clean / "python", "-c", script], cwd=tmp_path, env=alone(clean), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["ours"] == []
    assert said["answer"]["emotion"] == LABELS[expected.argmax()]
    np.testing.assert_allclose([said["answer"][label] for label in LABELS], expected, atol=1e-5)


def test_mlflow_serves_it(clean, model, speech, expected, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [clean / "mlflow", "models", "serve", "-m", str(model), "-p", str(port), "--env-manager", "local"]
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=tmp_path, env=alone(clean), stdout=output, stderr=output)
    try:
        for _ in range(240):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/ping").status_code == 200:
                    break
            except httpx.HTTPError:
                assert server.poll() is None, log.read_text()
            time.sleep(0.5)
        audio = base64.b64encode(speech.read_bytes()).decode()
        request = {"dataframe_records": [{"audio": audio}]}
        answer = httpx.post(f"http://127.0.0.1:{port}/invocations", json=request, timeout=120)
        assert answer.status_code == 200, answer.text
        said = answer.json()["predictions"][0]
        assert said["emotion"] == LABELS[expected.argmax()]
        np.testing.assert_allclose([said[label] for label in LABELS], expected, atol=1e-5)
        empty = httpx.post(f"http://127.0.0.1:{port}/invocations", json={"dataframe_records": []}, timeout=120)
        assert empty.status_code == 400 and "There is nothing to classify" in empty.text
    finally:
        import psutil

        children = psutil.Process(server.pid).children(recursive=True)
        for process in [server, *children]:
            process.kill()
        server.wait()
