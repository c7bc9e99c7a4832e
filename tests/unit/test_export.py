"""Protects what leaves the project by export: it loads again, predicts the same, and its card says what it is."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import clepdg
from clepdg.config.folds import SUPERVISED
from clepdg.errors import ClepError, ConfigError
from clepdg.method.emotion_classifier import EmotionClassifier
from clepdg.method.heads import Head
from clepdg.models.clap import load_clap
from clepdg.store.record import Record
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.tracking.hub import export as exporting
from tests.rehearsal.clap import make_clap

LINEAGE = {"fold": SUPERVISED, "run": "a-run", "war": "0.700"}
TAGS = {"uar": "0.612", "interval": "[0.512, 0.712]", "n": "40", "row": "text-acpt", "stage_key": "k" * 64}


@pytest.fixture(params=["micro", "laion"])
def model(request, tmp_path, micro_factory) -> EmotionClassifier:
    if request.param == "micro":
        clap = micro_factory()
    else:
        clap = load_clap(make_clap(tmp_path / "published", tiny=True), allow_unknown=True)
    width = clap.model.config.projection_dim if request.param == "laion" else 128
    weight = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
    return EmotionClassifier(
        clap,
        Head(labels=("angry", "happy"), cosine=True, weight=weight, bias=torch.zeros(2), mean=torch.zeros(width)),
    )


@pytest.fixture
def settings(model, tmp_path, monkeypatch) -> Settings:
    """A registry of one version, and a store with its run and an evaluation without RAVDESS."""
    settings = Settings(
        home=tmp_path / "home", store=str(tmp_path / "store"), tracking_url=None, device="cpu", workers=1
    )
    store = settings.open_store()
    headline = {"text-acpt": {"uar": 0.5074, "low": 0.45, "high": 0.56, "n": 300.0}}
    with store.lock("evaluate", "e"):
        store.partial("evaluate", "e")
        facts = {
            "config": {},
            "inputs": {},
            "digests": {"content": "d"},
            "figures": {"headline": headline},
            "files": {},
        }
        store.commit(Record(stage="evaluate", name="leave-out-ravdess", key="e", version=1, seconds=1.0, **facts))
    content = {
        "arguments": {},
        "config": {"corpora": ["ravdess", "tess"], "backbone": {"name": "a-backbone"}},
        "stages": {"evaluate/leave-out-ravdess": {"key": "e"}},
    }
    store.documents.write("runs/a-run.json", content)
    version = SimpleNamespace(version="3", tags={**TAGS, "lineage": json.dumps(LINEAGE)})
    monkeypatch.setattr(exporting, "find_version", lambda *asked: version)
    monkeypatch.setattr(exporting, "load_classifier", lambda *asked: model)
    return settings


def test_it_loads_again_and_predicts_the_same(settings, model, tmp_path, tone):
    out = tmp_path / "my model"
    said = exporting.export(settings, "open", "champion", out)
    assert "version 3 of clep-dg-classifier" in said
    audio = (tone(1.0, 16000), 16000)
    ours, theirs = model.predict(audio), clepdg.load_classifier(out).predict(audio)
    assert ours.emotion.tolist() == theirs.emotion.tolist()
    np.testing.assert_array_equal(ours.drop(columns="emotion"), theirs.drop(columns="emotion"))
    card = (out / "README.md").read_text()
    for words in (
        "CC BY-NC-SA 4.0",
        "Livingstone",
        "0.612",
        "[0.512, 0.712]",
        "0.507 | [0.450, 0.560] | 300",
        "2507.04048",
    ):
        assert words in card
    is_theirs = (out / "preprocessor_config.json").exists()
    assert ("The folder is also a CLAP of transformers" in card) is is_theirs
    assert ("transformers can't load this folder" in card) is not is_theirs
    with pytest.raises(ConfigError, match="not empty"):
        exporting.check_export(out, None)


@pytest.mark.parametrize("name", ["no-user", "a/b/c", "a b/c", "a/--b", "a/"])
def test_a_name_that_the_hub_does_not_take_is_refused_first(tmp_path, name):
    with pytest.raises(ConfigError, match="no repository of this name"):
        exporting.check_export(tmp_path / "new", name)


class Stub(BaseHTTPRequestHandler):
    """The hub's interface for making a repository and committing small files to it."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        if self.server.refuses:
            return self.answer(403, {"error": "this token may not write"})
        if self.path.endswith("/repos/create"):
            return self.answer(200, {"url": f"{self.server.url}/ann/model"})
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        if "/commit/" in self.path:
            return self.answer(
                200, {"commitUrl": f"{self.server.url}/ann/model/commit/{'0' * 40}", "commitOid": "0" * 40}
            )
        return self.answer(200, {})  # validate-yaml: {"errors": [], "warnings": []}

    def do_GET(self) -> None:
        self.server.asked.append((self.path, None, b""))
        self.answer(200, {"id": "ann/model", "sha": "0" * 40, "siblings": []})

    def answer(self, status: int, content: dict) -> None:
        body = json.dumps({"errors": [], "warnings": [], **content}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub.constants as constants
    from huggingface_hub import HfApi

    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    server.asked, server.refuses, server.url = [], False, f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "__init__", _at(server.url, HfApi.__init__))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def _at(url, init):
    return lambda self, *args, **given: init(self, *args, **{"endpoint": url, "token": "a-token", **given})


@pytest.mark.parametrize("model", ["micro"], indirect=True)
def test_push_uploads_the_whole_folder_to_a_private_repository(settings, hub, tmp_path):
    out = tmp_path / "out"
    said = exporting.export(settings, "open", "3", out, "ann/model")
    assert "ann/model" in said
    made = next(body for path, _, body in hub.asked if path.endswith("/repos/create"))
    assert json.loads(made).get("visibility") == "private" or json.loads(made).get("private") is True
    (committed,) = [body for path, _, body in hub.asked if "/commit/" in path]
    files = [json.loads(line)["value"] for line in committed.splitlines() if json.loads(line)["key"] == "file"]
    sent = {file["path"]: base64.b64decode(file["content"]) for file in files}
    assert sent == {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert all(token == "Bearer a-token" for path, token, _ in hub.asked if path.endswith("/repos/create"))


@pytest.mark.parametrize("model", ["micro"], indirect=True)
def test_a_hub_that_refuses_is_one_error_and_the_folder_stays(settings, hub, tmp_path):
    hub.refuses = True
    with pytest.raises(ClepError, match="(?s)does not take the model; the folder is written.*hf auth login"):
        exporting.export(settings, "open", "3", tmp_path / "out", "ann/model")
    assert (tmp_path / "out" / "README.md").is_file()
