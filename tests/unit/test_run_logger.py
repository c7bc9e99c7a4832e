"""Protects registration: once by two runs at once, and again where a user deleted things in MLflow."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine.node import Computed, Node
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.host.sqlite import mlflow_database, sqlite_url
from clepdg_tasks.tracking import model_registry
from clepdg_tasks.tracking.client import connect, experiment_id
from clepdg_tasks.tracking.marker import MARKER, read_marker
from clepdg_tasks.tracking.run_logger import MlflowLogger


def nothing(work):
    return Computed(digests={})


NODE = Node(stage="acpt", name="supervised.c0.acpt.l0", compute=nothing, config={"tokens": 2})


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    return Settings(home=home, store=str(home / "store"), tracking_url=None, device="cpu", workers=1)


def output(store: Store, key: str) -> Record:
    """Commit an output of NODE."""
    with store.lock("acpt", key):
        (store.partial("acpt", key) / "contexts.safetensors").write_bytes(b"x")
        return store.commit(
            Record(stage="acpt", name=NODE.name, key=key, version=1, config={}, inputs={}, digests={"content": "d"},
                   figures={"loss": 0.5}, files={}, seconds=1.0)
        )  # fmt: skip


def test_two_runs_at_once_register_an_output_once(settings, monkeypatch):
    store, client, node = settings.open_store(), connect(settings), NODE
    record = output(store, "k")
    both = threading.Barrier(2)
    look = model_registry.version_of

    def look_together(*asked):
        found = look(*asked)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(timeout=2)  # where nothing keeps them apart, both find none
        return found

    def register(name: str) -> str:
        logger = MlflowLogger(settings=settings, preset="open", store=store, parameters={}, tags={"run": name})
        logger.client()
        logger.finish(node, record, {node.id: record}, None)
        return str(logger.parent)

    monkeypatch.setattr(model_registry, "version_of", look_together)
    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(register, ("first", "second")))) == 2
    assert (store.local("acpt", "k") / MARKER).is_file()
    assert [v.tags["stage_key"] for v in client.search_model_versions("name = 'clep-dg-acpt'")] == ["k"]
    experiment = client.get_experiment_by_name("clep-dg")
    assert len(client.search_runs([experiment.experiment_id], "tags.stage_key = 'k'")) == 1


def register(settings: Settings, record: Record) -> MlflowLogger:
    """Register an output in a run of its own."""
    store = settings.open_store()
    logger = MlflowLogger(settings=settings, preset="open", store=store, parameters={}, tags={"run": record.key})
    logger.finish(NODE, record, {NODE.id: record}, None)
    return logger


def test_a_deleted_experiment_is_restored_and_the_run_says_so(settings):
    client, store = connect(settings), settings.open_store()
    first = output(store, "before")
    assert "restored" not in " ".join(register(settings, first).notes())
    experiment = client.get_experiment_by_name("clep-dg").experiment_id
    client.delete_experiment(experiment)
    second = output(store, "after")
    logger = register(settings, second)
    assert "experiment was deleted; it is restored" in " ".join(logger.notes())
    assert "did not accept" not in " ".join(logger.notes())
    for record in (first, second):
        marker = read_marker(store, record)
        assert marker["experiment"] == experiment
        assert client.get_run(marker["run_id"]).info.lifecycle_stage == "active"


def test_outputs_are_registered_again_in_a_database_that_replaces_another(settings):
    store, database = settings.open_store(), mlflow_database(settings)
    record = output(store, "again")
    register(settings, record)

    def is_registered() -> bool:
        logger = MlflowLogger(settings=settings, preset="open", store=store, parameters={}, tags={"run": "another"})
        return logger.is_registered(record)

    assert is_registered()
    database.rename(database.with_name("aside.db"))
    assert not is_registered()
    database.with_name("aside.db").rename(database)


@pytest.mark.parametrize("folder", ["shared", "a #b?c{d}%20"])
def test_artifacts_lie_beside_a_database_of_the_user_s(tmp_path, settings, monkeypatch, folder):
    """MLflow's own default is ./mlruns, in whatever folder the command runs."""
    place = tmp_path / folder
    place.mkdir()
    url = sqlite_url(place / "mlflow.db")
    shared = replace(settings, tracking_url=url)
    monkeypatch.chdir(tmp_path)
    client = connect(shared)
    location = client.get_experiment(experiment_id(client, shared, "open")).artifact_location
    assert location == (place / "artifacts").as_uri()
