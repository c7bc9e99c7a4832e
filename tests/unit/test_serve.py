"""Protects `clep-dg serve` and the documented request: any size of file, and limits with one clear answer each."""

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from clepdg.method.emotion_classifier import EmotionClassifier
from clepdg.method.heads import Head
from clepdg_flows.cli import main as cli
from clepdg_tasks.host.scoring_app import make_app
from clepdg_tasks.tracking.model_cards import model_description

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(micro: Any) -> EmotionClassifier:
    head = Head(
        labels=("angry", "sad"), cosine=True, weight=torch.ones(2, 128), bias=torch.zeros(2), mean=torch.zeros(128)
    )
    return EmotionClassifier(micro, head)


@pytest.fixture(scope="module")
def client(model: EmotionClassifier) -> Any:
    from fastapi.testclient import TestClient

    return TestClient(make_app(model, most_bytes=200_000, most_files=3, most_seconds=2.0))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speech") / "a.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    return path


def ask(client: Any, *rows: Any) -> tuple[int, Any]:
    answer = client.post("/invocations", json={"dataframe_records": list(rows)})
    return answer.status_code, answer.json()


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
def test_a_file_is_answered_as_by_the_library(client, model, speech, encode):
    status, answer = ask(client, {"audio": encode(speech.read_bytes()).decode()})
    expected = model.predict(speech).iloc[0]
    assert status == 200
    (found,) = answer["predictions"]
    assert found["emotion"] == expected.emotion and found["sad"] == pytest.approx(expected.sad, abs=1e-6)


def test_each_limit_is_refused_in_one_sentence(client, speech):
    audio = {"audio": base64.b64encode(speech.read_bytes()).decode()}
    status, answer = ask(client, *[audio] * 5)
    assert (status, answer["message"]) == (413, "The request is too large: at most 0.2 MB")
    status, answer = ask(client, *[{"path": "a.wav"}] * 4)
    assert (status, answer["message"]) == (400, "Too many files in a request: 4, at most 3")
    status, answer = ask(client, {"samples": [0.1, -0.1] * 8500, "sample_rate": 8000})
    assert status == 400 and answer["message"].splitlines()[1] == "- row 0: too long: 2.1 s, at most 2.0 s"
    status, answer = ask(client, {"audio": base64.b64encode(speech.read_bytes()[:16_000]).decode()})
    assert status == 400 and "row 0: truncated: its header promises 32000 bytes" in answer["message"]


@pytest.mark.parametrize("chunks", [30, 10_000])
def test_a_large_request_without_a_length_is_refused(client, chunks):
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(chunks):
            sent += 10_000
            yield b" " * 10_000

    answer = client.post("/invocations", content=body(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize("words", [("--port", "99999"), ("--max-files", "0"), ("--max-seconds", "0.1")])
def test_options_that_can_not_be_meant_are_refused(words, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        cli.main(["serve", *words])
    assert end.value.code == 2 and "Traceback" not in capsys.readouterr().err


def documented() -> list[str]:
    """Return the documented requests: of the page, and of the model's card in MLflow."""
    texts = ((PROJECT / "docs/serving.md").read_text(), model_description("classifier", "demo", "x"))
    return [match for text in texts for match in re.findall(r"^ *printf.*\|\n.*curl .*$", text, re.MULTILINE)]


@pytest.mark.parametrize("line", documented())
def test_the_documented_request_sends_a_file_of_any_size(line, tmp_path):
    (tmp_path / "FILE.wav").write_bytes(os.urandom(3_000_000))  # more than the arguments of a program may hold
    (tmp_path / "curl").write_text("#!/bin/sh\nexec tr -d '\\r\\n'\n")  # as curl's -d @- does
    (tmp_path / "curl").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, timeout=60, check=True
    )
    (row,) = json.loads(done.stdout)["dataframe_records"]
    assert base64.b64decode(row["audio"], validate=True) == (tmp_path / "FILE.wav").read_bytes()


def test_the_request_is_documented_at_both_places():
    assert len(documented()) >= 2
