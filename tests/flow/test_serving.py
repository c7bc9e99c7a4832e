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


def test_every_way_to_give_audio_gives_the_same_answer(loaded, speech, expected, monkeypatch):
    monkeypatch.setenv("CLEPDG_SERVING_AUDIO", str(speech.parent))
    samples, rate = decode(speech)
    audio = speech.read_bytes()
    encoded = base64.b64encode(audio).decode()
    for row in (
        {"path": str(speech)},
        {"path": speech.name},
        {"audio": audio},
        {"audio": encoded},
        {"audio": base64.urlsafe_b64encode(audio).decode()},
        {"audio": base64.encodebytes(audio).decode()},  # in lines
        {"samples": to_mono(samples), "sample_rate": rate},
        {"samples": to_mono(samples).tolist(), "sample_rate": rate},
    ):
        answer = loaded.predict([row])
        assert answer.emotion.tolist() == [LABELS[expected.argmax()]]
        np.testing.assert_allclose(answer.iloc[0, 1:].astype(float), expected, atol=1e-5)
    assert len(loaded.predict([{"path": str(speech)}, {"audio": audio}])) == 2


TONE = [0.1, -0.1] * 8000


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([], ["There is nothing to classify"]),
        ([{"file": "a.wav"}], ["There is nothing to classify"]),
        ([{"audio": b"no audio"}], ["row 0: not readable as audio"]),
        ([{"audio": "not base64!"}], ["row 0: its audio is not base64"]),
        ([{"audio": "data:audio/wav;base64,UklGRg=="}], ["row 0: its audio is not base64"]),
        ([{"path": "nowhere.wav"}], ["row 0: there is no such file"]),
        ([{"path": "http:/127.0.0.1:9/a.mp4"}], ["row 0: there is no such file"]),
        ([{"path": "../secret.wav"}], ["row 0: its path lies outside of the folder", "CLEPDG_SERVING_AUDIO"]),
        ([{"path": "/etc/passwd"}], ["row 0: its path lies outside of the folder"]),
        ([{"path": "link.wav"}], ["row 0: its path lies outside of the folder"]),
        ([{"path": "a\0b"}], ["row 0: its path can't be used"]),
        ([{"samples": [], "sample_rate": 16000}], ["row 0: holds no samples"]),
        ([{"samples": [*TONE, float("nan")], "sample_rate": 16000}], ["row 0: holds samples that are not finite"]),
        ([{"samples": [1e38] * 16000, "sample_rate": 16000}], ["row 0: beyond full scale"]),
        ([{"samples": [1.5] * 16000, "sample_rate": 16000}], ["row 0: beyond full scale: its peak is 1.5"]),
        ([{"samples": TONE, "sample_rate": 1}], ["row 0: rate too low: 1 Hz, at least 8000 Hz"]),
        ([{"samples": TONE, "sample_rate": 10**9}], ["row 0: rate too high"]),
        ([{"samples": TONE * 40, "sample_rate": 8000}], ["row 0: too long: 80.0 s, at most 60.0 s"]),
        ([{"samples": [0.1, 0.2]}], ["row 0: has no audio"]),
        ([{"audio": b"x"}, {"audio": b""}], ["row 0: not readable as audio", "row 1: the file is empty"]),
    ],
)
def test_what_is_no_audio_is_refused_in_one_message(loaded, rows, what, tmp_path, monkeypatch):
    from mlflow.exceptions import MlflowException

    (tmp_path / "allowed").mkdir()
    (tmp_path / "secret.wav").write_bytes(b"secret")
    (tmp_path / "allowed" / "link.wav").symlink_to(tmp_path / "secret.wav")
    monkeypatch.setenv("CLEPDG_SERVING_AUDIO", str(tmp_path / "allowed"))
    with pytest.raises(MlflowException, match="Each row needs") as caught:
        loaded.predict(rows)
    assert all(each in str(caught.value) for each in what)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_no_path_is_read_where_the_operator_names_no_folder(loaded, speech, monkeypatch):
    from mlflow.exceptions import MlflowException

    monkeypatch.delenv("CLEPDG_SERVING_AUDIO", raising=False)
    with pytest.raises(MlflowException, match="row 0: `path` is not allowed.*CLEPDG_SERVING_AUDIO"):
        loaded.predict([{"path": str(speech)}])


def test_a_request_loses_no_byte_of_its_audio(loaded, speech, expected):
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    client = TestClient(scoring_server.init(loaded), raise_server_exceptions=False)
    audio = speech.read_bytes()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        record = {"audio": encode(audio).decode()}
        for request in ({"dataframe_records": [record]}, {"inputs": [record]}):
            answer = client.post("/invocations", json=request).json()["predictions"][0]
            np.testing.assert_allclose([answer[label] for label in LABELS], expected, atol=1e-5)
    for text in (base64.b64encode(audio).decode()[:-3], base64.b64encode(audio[: len(audio) // 2]).decode(), "*"):
        answer = client.post("/invocations", json={"dataframe_records": [{"audio": text}]})
        assert answer.status_code == 400 and "row 0: " in answer.text


def test_it_loads_and_predicts_from_its_own_requirements(clean, model, speech, expected, tmp_path):
    script = (
        "import sys, json, mlflow.pyfunc\n"
        f"table = mlflow.pyfunc.load_model({str(model)!r}).predict([{{'path': {speech.name!r}}}])\n"
        "print(json.dumps({'answer': table.to_dict('records')[0],\n"
        "    'ours': [name for name in ('clepdg_tasks', 'clepdg_flows', 'prefect') if name in sys.modules]}))"
    )
    done = subprocess.run(
        [clean / "python", "-c", script],
        cwd=tmp_path,
        env=alone(clean) | {"CLEPDG_SERVING_AUDIO": str(speech.parent)},
        capture_output=True,
        text=True,
        timeout=300,
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
