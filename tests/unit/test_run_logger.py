"""Protects registration: once by two runs at once, and again where a user deleted things in MLflow."""

import contextlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from clepdg.config.schema import AcptConfig
from clepdg.method import acpt
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine.node import Computed, Node, Ref
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.host.sqlite import mlflow_database, sqlite_url
from clepdg_tasks.tracking import model_registry, run_data
from clepdg_tasks.tracking.client import connect, experiment_id
from clepdg_tasks.tracking.lineage import version_tags
from clepdg_tasks.tracking.marker import MARKER, read_marker
from clepdg_tasks.tracking.run_data import log_inputs
from clepdg_tasks.tracking.run_logger import MlflowLogger


def nothing(work):
    return Computed(digests={})


VECTORS = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
PLACE = {"model": "supervised.c0", "fold": "supervised", "contexts": "acpt", "seed": "c0.l0"}
NODE = Node(stage="acpt", name="supervised.c0.acpt.l0", compute=nothing, config={"tokens": 2}, tags=PLACE)


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    return Settings(home=home, store=str(home / "store"), tracking_url=None, device="cpu", workers=1)


def output(store: Store, key: str) -> Record:
    """Commit an output of NODE."""
    with store.lock("acpt", key):
        acpt.save(store.partial("acpt", key), VECTORS, AcptConfig(contexts=2, tokens=3), ("angry", "happy"))
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
        assert (
            client.get_run(logger.parent).info.run_name == f"open {name}"
        )  # runs that are compared have their own names
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


def test_contexts_load_as_a_model_with_signature_example_and_requirements(settings):
    import mlflow

    store, client = settings.open_store(), connect(settings)
    register(settings, output(store, "loadable"))
    version = max(client.search_model_versions("name = 'clep-dg-acpt'"), key=lambda v: int(v.version))
    logged = client.get_logged_model(version_tags(version)["model_id"])
    assert (logged.status, logged.model_type, logged.tags["stage_key"]) == ("READY", "acpt", "loadable")
    assert logged.params["tokens"] == "2"
    model = mlflow.pyfunc.load_model(f"models:/clep-dg-acpt/{version.version}")
    assert model.metadata.get_input_schema().input_names() == ["context"]
    table = model.predict(model.input_example)
    assert table[["context", "token"]].values.tolist() == [[0, 0], [0, 1], [0, 2]]
    assert (
        np.stack(model.predict(pd.DataFrame({"context": pd.Series([], dtype="int64")})).vector).tolist()
        == VECTORS.reshape(6, 4).tolist()
    )
    with pytest.raises(mlflow.exceptions.MlflowException, match="There is no context 9. context: 0, 1"):
        model.predict([{"context": 9}])
    needed = Path(mlflow.artifacts.download_artifacts(f"models:/clep-dg-acpt/{version.version}/requirements.txt"))
    assert {line.partition("==")[0] for line in needed.read_text().split()} == {"mlflow", "numpy", "pandas", "pyarrow"}


@pytest.mark.parametrize(
    ("stage", "tags", "wanted"),
    [
        ("clep", {"fold": "supervised"}, True),
        ("clep", {"fold": "leave-out-tess"}, False),
        ("clep", {"fold": "supervised", "variant": "lora"}, False),
        ("acpt", {"fold": "supervised", "contexts": "acpt"}, True),
        ("acpt", {"fold": "supervised", "contexts": "random"}, False),
        ("text_embeddings", {"fold": "supervised", "contexts": "none"}, True),
        ("classifier", {"fold": "supervised", "row": "text-acpt"}, True),
        ("classifier", {"fold": "supervised", "row": "text-none"}, True),
        ("classifier", {"fold": "supervised", "row": "majority"}, False),
        ("classifier", {"fold": "supervised", "row": "log-mel"}, False),
        ("classifier", {"fold": "supervised", "row": "clep-probe"}, False),
        ("classifier", {"fold": "leave-out-tess", "row": "text-acpt"}, False),
        ("evaluate", {"fold": "supervised"}, False),
    ],
)
def test_what_can_be_served_becomes_a_version_and_the_rest_stays_a_run(stage, tags, wanted):
    assert model_registry.is_registered_kind(stage, tags) is wanted


def test_a_dataset_has_columns_a_profile_and_its_true_source(settings):
    class Bucket:
        def address(self, stage: str, key: str) -> str:
            return f"s3://a-bucket/{stage}/{key}"

    client, store = connect(settings), settings.open_store()
    facts = {"stage": "index", "name": "tess", "version": 1, "config": {}, "inputs": {}, "files": {}, "seconds": 0.0}
    figures = {"utterances": 7, "speakers": 2, "notes": {}}
    node = Node(stage="shard", name="tess", compute=nothing, config={}, inputs={"index": Ref("index", "tess")})
    found = []
    for place, digest in ((store, "c"), (Bucket(), "d")):
        record = Record(**facts, key="i", digests={"content": digest}, figures=figures)
        run = client.create_run(experiment_id(client, settings, "open")).info.run_id
        log_inputs(client, run, node, {"index/tess": record}, place)
        found.append(client.get_run(run).inputs.dataset_inputs[0].dataset)
    local, bucket = found
    assert json.loads(local.profile) == {"utterances": 7, "speakers": 2}
    columns = {column["name"]: column["type"] for column in json.loads(local.schema)["mlflow_colspec"]}
    assert columns["utterance_id"] == "string" and columns["num_samples"] == "long" and columns["notes"] == "array"
    assert (local.source_type, bucket.source_type) == ("local", "s3")
    assert json.loads(bucket.source) == {"uri": "s3://a-bucket/index/i"}


def test_a_long_stage_logs_the_load_of_the_machine(settings, monkeypatch):
    monkeypatch.setattr(run_data, "SECONDS", 0.05)
    client = connect(settings)
    run = client.create_run(experiment_id(client, settings, "open")).info.run_id
    monitors = run_data.Monitors()
    monitors.start("clep", run)
    monitors.start("classifier", "another")
    for _ in range(100):
        if "system/cpu_utilization_percentage" in client.get_run(run).data.metrics:
            break
        time.sleep(0.1)
    monitors.finish(run)
    monitors.finish(run)
    assert "system/cpu_utilization_percentage" in client.get_run(run).data.metrics
    assert not [thread for thread in threading.enumerate() if thread.name == "SystemMetricsMonitor"]


def test_names_of_figures_sort():
    headline = {"text-acpt": {"uar": 0.5, "low": 0.4, "high": 0.6, "n": 12.0}}
    record = SimpleNamespace(figures={"headline": headline, "utterances": 12, "whole": True})
    assert sorted(run_data.figures_of(record)) == [
        ("text-acpt/n", 12.0, 0),
        ("text-acpt/uar", 0.5, 0),
        ("text-acpt/uar_high", 0.6, 0),
        ("text-acpt/uar_low", 0.4, 0),
        ("utterances", 12.0, 0),
    ]
