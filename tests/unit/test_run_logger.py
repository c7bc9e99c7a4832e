"""Protects registration by two runs at once: one MLflow run, one version, one marker."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

from clepdg.store.opening import open_store
from clepdg.store.record import Record
from clepdg_tasks.engine.node import Computed, Node
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.tracking import model_registry
from clepdg_tasks.tracking.client import connect
from clepdg_tasks.tracking.marker import MARKER
from clepdg_tasks.tracking.run_logger import MlflowLogger


def nothing(work):
    return Computed(digests={})


def test_two_runs_at_once_register_an_output_once(tmp_path, monkeypatch):
    store = open_store(str(tmp_path / "store"))
    settings = Settings(home=tmp_path, store=str(store.root), tracking_url=None, device="cpu", workers=1)
    client = connect(settings)
    node = Node(stage="acpt", name="supervised.c0.acpt.l0", compute=nothing, config={"tokens": 2})
    with store.lock("acpt", "k"):
        (store.partial("acpt", "k") / "contexts.safetensors").write_bytes(b"x")
        record = store.commit(
            Record(stage="acpt", name=node.name, key="k", version=1, config={}, inputs={}, digests={"content": "d"},
                   figures={"loss": 0.5}, files={}, seconds=1.0)
        )  # fmt: skip
    both = threading.Barrier(2)
    look = model_registry._version_of

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

    monkeypatch.setattr(model_registry, "_version_of", look_together)
    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(register, ("first", "second")))) == 2
    assert (store.local("acpt", "k") / MARKER).is_file()
    assert [v.tags["stage_key"] for v in client.search_model_versions("name = 'clep-dg-acpt'")] == ["k"]
    experiment = client.get_experiment_by_name("clep-dg")
    assert len(client.search_runs([experiment.experiment_id], "tags.stage_key = 'k'")) == 1
