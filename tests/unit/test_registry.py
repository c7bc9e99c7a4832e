"""Protects what a registry may do: name outputs of the store, never run its code or pickles."""

import os
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pandas as pd
import pytest
import soundfile
import torch

import clepdg
from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import MAIN_ROW
from clepdg.errors import ClepError, ConfigError, StoreError
from clepdg.method.heads import Head
from clepdg.store.record import Record
from clepdg_flows.cli import main as cli
from clepdg_flows.cli import registry
from clepdg_tasks.host.settings import Settings, load_settings
from clepdg_tasks.host.sqlite import check_mlflow_database, mlflow_database
from clepdg_tasks.tracking import model_registry
from clepdg_tasks.tracking.client import connect
from clepdg_tasks.tracking.serving import save_classifier
from clepdg_tasks.tracking.version_lookup import look_up_version

MODEL = "demo-clep-dg-classifier"
TAGS = {"fold": SUPERVISED, "row": MAIN_ROW, "model": "supervised.c0", "run": "a-run", "stage_key": "k", "digest": "d"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory, micro_factory) -> Settings:
    """A store with a CLEP, a head and the file of the run that made them, and a registry without versions.

    The names of their folders hold what URLs and patterns are made of.
    """
    top = tmp_path_factory.mktemp("top")
    home, elsewhere = top / "a #b?c{d}::e%20f'g", str(top / "h?i#[j]*k")
    settings = Settings(home=home, store=elsewhere, tracking_url=None, device="cpu", workers=1)
    store = settings.open_store()
    head = Head(
        labels=("angry", "happy"), cosine=True, weight=torch.eye(2, 128), bias=torch.zeros(2), mean=torch.zeros(128)
    )
    for stage, key, save in (("clep", "c", micro_factory().save), ("classifier", "k", head.save)):
        with store.lock(stage, key):
            save(store.partial(stage, key))
            facts = {"config": {}, "inputs": {}, "digests": {"content": "d"}, "figures": {}, "files": {}}
            store.commit(Record(stage=stage, name="n", key=key, version=1, seconds=1.0, **facts))
    stages = {"clep/supervised.c0": {"key": "c"}, "classifier/x": {"key": "k"}}
    store.documents.write("runs/a-run.json", {"arguments": {}, "config": {}, "stages": stages})
    (top / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top / "empty")
        client = connect(settings)
    client.create_registered_model(MODEL)
    client.create_experiment("e", artifact_location=(home / "artifacts").as_uri())
    return settings


@pytest.fixture(autouse=True)
def home(settings, monkeypatch) -> None:
    monkeypatch.setenv("CLEPDG_HOME", str(settings.home))
    monkeypatch.setenv("CLEPDG_STORE", settings.store)
    monkeypatch.delenv("CLEPDG_TRACKING_URL", raising=False)


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def plant(folder: Path, kind: str) -> Path:
    """Write an MLflow model that makes the folder `ran` when MLflow loads it, and return that folder."""
    ran, model = folder / "ran", folder / "model"
    (model / "code").mkdir(parents=True)
    (model / "python_model.pkl").write_bytes(pickle.dumps(Planted(ran)))
    code = f"import os\nos.mkdir({str(ran)!r})\ndef _load_pyfunc(path): pass\n"
    (model / "code" / "planted.py").write_text(code)
    loader = {"pickle": "mlflow.pyfunc.model\n    python_model: python_model.pkl", "code": "planted\n    code: code"}
    (model / "MLmodel").write_text(f"flavors:\n  python_function:\n    loader_module: {loader[kind]}\n")
    return ran


def register(settings: Settings, tags: dict[str, str], files: Path | None = None) -> str:
    """Register a version with an MLflow model's files, make it the champion, and return its number."""
    client = connect(settings)
    run = client.create_run(client.get_experiment_by_name("e").experiment_id).info
    if files:
        (client.log_artifacts if files.is_dir() else client.log_artifact)(run.run_id, str(files), "model")
    version = client.create_model_version(MODEL, f"{run.artifact_uri}/model", run.run_id, tags=tags).version
    client.set_registered_model_alias(MODEL, "champion", version)
    return str(version)


@pytest.fixture
def speech(tmp_path, tone) -> Path:
    soundfile.write(tmp_path / "a.wav", tone(1.0, 16000), 16000)
    return tmp_path / "a.wav"


@pytest.mark.parametrize("kind", ["pickle", "code"])
def test_neither_pickles_nor_code_of_a_version_run(settings, tmp_path, speech, capsys, kind):
    ran = plant(tmp_path, kind)
    for tags in ({}, TAGS):
        register(settings, tags, tmp_path / "model")
        for use in (
            lambda: cli.main(["predict", "--preset", "demo", str(speech)]),
            lambda: clepdg.load_classifier(preset="demo").predict(speech),
        ):
            try:
                use()
            except (SystemExit, ClepError):
                assert not tags
    assert not ran.exists()


def test_the_model_is_that_of_the_store(settings, speech, micro):
    number = register(settings, TAGS)
    found = [clepdg.load_classifier(name, preset="demo").predict(speech) for name in ("champion", number)]
    pd.testing.assert_frame_equal(*found)
    assert list(found[0].columns) == ["emotion", "angry", "happy"]


def test_a_champion_of_another_preset_answers_with_a_warning(settings, caplog, monkeypatch):
    register(settings, TAGS)
    read = model_registry.run_history.read
    for made_by, warned in (("demo", False), ("speech", True)):
        caplog.clear()
        made = lambda *asked, by=made_by: {**read(*asked), "config": {"preset": by}}  # noqa: E731
        monkeypatch.setattr(model_registry.run_history, "read", made)
        model_registry.load_classifier(load_settings(), "demo")
        assert ("is of preset speech, not demo" in caplog.text) == warned


@pytest.mark.parametrize(
    ("tags", "error", "what"),
    [
        ({}, ConfigError, "can't be served.*clep-dg compare"),
        ({**TAGS, "row": "clep-probe"}, ConfigError, "can't be served"),
        ({**TAGS, "fold": "leave-out-tess"}, ConfigError, "can't be served"),
        ({**TAGS, "run": "../../x"}, StoreError, "does not hold.*clep None.*CLEPDG_STORE"),
        ({**TAGS, "run": "another"}, StoreError, "does not hold.*clep None.*CLEPDG_STORE"),
        ({**TAGS, "model": "leave-out.c0"}, StoreError, "does not hold"),
        ({**TAGS, "stage_key": "elsewhere"}, StoreError, "classifier elsewhere: new.*CLEPDG_STORE"),
        ({**TAGS, "stage_key": "../clep/c"}, StoreError, "can't be the name"),
        ({**TAGS, "digest": "other"}, StoreError, "another output than the registered"),
    ],
)
def test_what_the_store_does_not_hold_is_refused(settings, tags, error, what):
    register(settings, tags)
    with pytest.raises(error, match=f"(?s){what}"):
        model_registry.load_classifier(load_settings(), "demo")


def test_an_altered_output_is_refused(settings):
    register(settings, TAGS)
    path = settings.open_store().local("classifier", "k") / "head.json"
    before = path.read_text()
    path.write_text(before.replace("angry", "bored"))
    try:
        with pytest.raises(StoreError, match="(?s)does not hold.*file altered: head.json"):
            model_registry.load_classifier(load_settings(), "demo")
    finally:
        path.write_text(before)


@pytest.mark.parametrize("name", ["999", "9" * 23, "challenger"])
def test_an_unknown_version_is_one_message(name):
    with pytest.raises(ConfigError, match="(?s)no such registered.*clep-dg compare"):
        model_registry.load_classifier(load_settings(), "demo", name)


def test_a_server_that_fails_is_not_an_unknown_version(settings, monkeypatch):
    from mlflow.exceptions import MlflowException

    def fail(*asked):
        raise MlflowException("the disk is full")

    client = SimpleNamespace(get_model_version_by_alias=fail)
    monkeypatch.setattr(model_registry, "connect", lambda settings: client)
    with pytest.raises(ClepError, match="(?s)MLflow refuses.*disk is full") as raised:
        model_registry.load_classifier(load_settings(), "demo", "challenger")
    assert not isinstance(raised.value, ConfigError)


def test_mlflow_writes_below_its_home_and_nowhere_else(settings):
    register(settings, TAGS, Path(__file__).parent / "trees.py")
    client = connect(settings)
    run = client.search_runs([client.get_experiment_by_name("e").experiment_id])[0]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "model")] == ["model/trees.py"]
    check_mlflow_database(mlflow_database(settings))
    top = settings.home.parent
    assert {path.name for path in top.iterdir()} == {"empty", settings.home.name, Path(settings.store).name}
    assert not [*(top / "empty").iterdir()]
    assert {path.name for path in settings.home.iterdir()} <= {"mlflow", "artifacts"}


def test_a_served_model_is_made_of_folders_of_any_name(settings, tmp_path):
    store = settings.open_store()
    save_classifier(tmp_path / "model", store.local("classifier", "k"), store.local("clep", "c"), "k")
    found = {path.name for path in (tmp_path / "model" / "artifacts").rglob("*") if path.is_file()}
    assert {"head.safetensors", "head.json", "model.safetensors"} <= found


def test_mlflow_unpickles_nothing_in_our_processes(settings):
    from clepdg_tasks.host.processes import environment

    assert environment(settings)["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    connect(settings)
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


def test_a_version_is_found_without_mlflow_where_that_is_possible(settings, monkeypatch):
    """The fast way finds what MLflow finds, and leaves everything else to MLflow."""
    number = register(settings, TAGS)
    name, known = MODEL, connect(settings)
    for chosen in ("champion", number):
        found = look_up_version(settings, name, chosen)
        assert (found.version, found.tags) == (number, TAGS)
    assert [look_up_version(settings, name, chosen) for chosen in ("999", "challenger", "9" * 40)] == [None] * 3
    known.delete_model_version(name, number)
    assert look_up_version(settings, name, number) is None
    register(settings, TAGS)


@pytest.mark.parametrize(("status", "finds"), [(200, True), (404, False), (500, False)])
def test_a_version_is_found_on_a_server(settings, monkeypatch, status, finds):
    asked = []

    def get(url, **given):
        asked.append((url, given["params"], given["auth"]))
        body = {"model_version": {"name": MODEL, "version": "3", "tags": [{"key": "run", "value": "a-run"}]}}
        return httpx.Response(status, json=body, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    remote = replace(settings, tracking_url="http://127.0.0.1:5000/")
    found = look_up_version(remote, MODEL, "champion")
    place = "http://127.0.0.1:5000/api/2.0/mlflow/registered-models/alias"
    assert asked == [(place, {"name": MODEL, "alias": "champion"}, ("ann", "secret"))]
    assert (found is not None) == finds
    if found:
        assert (found.version, found.tags) == ("3", {"run": "a-run"})


@pytest.mark.parametrize("variable", ["TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"])
def test_commands_show_no_bars_of_transformers(settings, monkeypatch, variable):
    monkeypatch.setenv(variable, "")
    monkeypatch.delenv(variable)
    monkeypatch.setattr(registry, "load_settings", lambda: settings)
    registry.registry_settings("demo")
    assert os.environ[variable] in ("error", "1")
