"""Protects a store's maintenance: verify finds every altered byte, gc removes no output that is in use."""

import contextlib
import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from filelock import FileLock, Timeout
from prefect.states import Completed

from clepdg.errors import StoreError
from clepdg.store import layout
from clepdg.store.opening import open_store
from clepdg.store.record import MARKER, Record
from clepdg.store.store import Store
from clepdg_flows.cli.main import main
from clepdg_flows.run import executor
from clepdg_tasks.admin import maintenance
from clepdg_tasks.engine import node as stages
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.node import Computed, Node, Ref
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host.settings import Settings, load_settings
from clepdg_tasks.tracking import client
from tests.s3 import S3, environment

OLD = 40 * 86400.0


@pytest.fixture(scope="module")
def server():
    started = S3()
    yield started
    started.stop()


@pytest.fixture(params=["local", pytest.param("remote", marks=pytest.mark.slow)])
def settings(request, server, tmp_path, monkeypatch) -> Settings:
    """Settings of a machine whose store is a folder, or lies in a bucket."""
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "var"))
    if request.param == "remote":
        for name, value in environment(server.url).items():
            monkeypatch.setenv(name, value)
        with contextlib.suppress(Exception):
            server.client().create_bucket(Bucket="lab")
        monkeypatch.setenv("CLEPDG_STORE", f"s3://lab/{tmp_path.name}")
    return load_settings()


@pytest.fixture
def store(settings) -> Store:
    return settings.open_store()


def commit(store: Store, key: str, stage: str = "clep", text: str = "hello") -> Record:
    with store.lock(stage, key):
        store.lookup(stage, key)
        folder = store.partial(stage, key)
        (folder / "a").write_text(text)
        facts: dict[str, Any] = dict(stage=stage, name="fold", key=key, version=1, config={}, inputs={},
                                     digests={"content": "d"}, figures={}, files={}, seconds=1.0)  # fmt: skip
        return store.commit(Record(**facts))


def log(store: Store, keys: dict[str, str], outcome: str = "completed") -> run_history.RunLog:
    opened = run_history.start(store, Arguments(), {"preset": "demo", "backbone": {"name": "micro"}, "corpora": []})
    opened.stages = {node_id: {"key": key, "outcome": "Completed"} for node_id, key in keys.items()}
    opened.outcome = outcome
    opened.path = opened.path.with_name(f"{time.time_ns():020d}.json")
    opened.write()
    return opened


def aged(monkeypatch, store: Store, seconds: float = OLD) -> None:
    """Let everything in the store be older than it is."""
    items = type(store).items

    def older(self, *names):
        return [layout.Item(**{**item.__dict__, "age": item.age + seconds}) for item in items(self, *names)]

    monkeypatch.setattr(type(store), "items", older)


def alter(store: Store, server: S3, record: Record, data: bytes) -> None:
    place = f"{store.beside(record, 'a')}"
    if (store.root / place).exists():
        (store.root / place).write_bytes(data)
    else:
        prefix = store.url.removeprefix("s3://lab/")
        server.client().put_object(Bucket="lab", Key=f"{prefix}/{place}", Body=data)


# --- verify


def test_verify_finds_an_altered_byte_and_the_next_run_computes_it_again(store, server):
    records = [commit(store, f"k{n}") for n in range(3)]
    assert maintenance.verify(store, dry_run=False) == (3, [])
    alter(store, server, records[1], b"hallo")
    assert isinstance(store.lookup("clep", "k1"), Record)  # its size is right
    for dry_run in (True, False):
        count, damaged = maintenance.verify(store, dry_run=dry_run)
        assert (count, [item.key for item, _ in damaged]) == (3, ["k1"])
        assert "a" in damaged[0][1] and "sha256" in damaged[0][1]
    assert isinstance(store.lookup("clep", "k1"), str)
    commit(store, "k1")
    assert maintenance.verify(store, dry_run=False) == (3, [])


def test_verify_reports_a_marker_that_can_not_be_read(store, server):
    record = commit(store, "k0")
    if hasattr(store, "bucket"):
        store.bucket.write(f"clep/k0/{MARKER}", b"[" * 100_000)
    else:
        (store.local("clep", "k0") / MARKER).write_bytes(b"[" * 100_000)
    assert [fault for _, fault in maintenance.verify(store, dry_run=True)[1]] == [f"file unreadable: {MARKER}"]
    maintenance.verify(store, dry_run=False)
    assert commit(store, "k0").files == record.files


def test_verify_names_what_another_version_wrote_and_leaves_it_alone(store):
    commit(store, "k0")
    name = f"clep/k0/{MARKER}"
    store.documents.write(name, store.documents.read(name) | {"format": 99})
    ((_, fault),) = maintenance.verify(store, dry_run=False)[1]
    assert "format 99" in fault
    assert store.documents.read(name)["format"] == 99


def test_the_commands(settings, store, server, capsys, monkeypatch):
    for words in (["verify"], ["verify", "--dry-run"], ["gc"], ["gc", "--dry-run"]):  # of an empty store
        main(words)
    assert capsys.readouterr().out.count("0 outputs") == 2
    for words in (["verify", "now"], ["gc", "--dry"], ["gc", "--force"]):
        with pytest.raises(SystemExit) as caught:
            main([*words, "--nothing"])
        assert caught.value.code == 2
    capsys.readouterr()
    record = commit(store, "k0")
    alter(store, server, record, b"hallo")
    with pytest.raises(SystemExit, match="1"):  # a script is to notice
        main(["verify", "--dry-run"])
    assert "1 output in" in (out := capsys.readouterr().out) and "1 damaged." in out and "k0" in out
    aged(monkeypatch, store)
    main(["gc", "--dry-run"])
    assert "1 item (" in (out := capsys.readouterr().out) and "clep/k0" in out
    assert isinstance(store.lookup("clep", "k0"), Record)
    main(["gc"])
    assert "1 of 1 item (" in capsys.readouterr().out
    assert store.lookup("clep", "k0") == "new"


# --- gc


def test_gc_keeps_what_the_last_runs_reach(store, settings, monkeypatch):
    for number in range(maintenance.RUNS + 2):
        commit(store, f"own{number}")
        log(store, {"clep/x": f"own{number}", "source/c": "shared"})
    commit(store, "shared", "source")
    commit(store, "nobody", "index")
    assert maintenance.garbage(store, settings).items == []  # all of it is young
    aged(monkeypatch, store)
    found = maintenance.garbage(store, settings)
    assert {(item.stage, item.key) for item in found.items} == {("clep", "own0"), ("clep", "own1"), ("index", "nobody")}
    assert found.bytes == sum(item.bytes for item in found.items) > 0
    assert len(maintenance.remove(store, found)) == 3
    assert store.lookup("clep", "own0") == "new"
    assert isinstance(store.lookup("source", "shared"), Record)
    assert {item.key for item in store.items(stages.STAGES)} == {"shared", *(f"own{n}" for n in range(2, 12))}


def test_gc_keeps_a_run_that_has_not_ended_and_what_an_alias_stands_for(store, settings, monkeypatch):
    for key in ("unended", "champion", "of its run", "evaluated", "nobody"):
        commit(store, key, "evaluate" if key == "evaluated" else "clep")
    log(store, {"clep/x": "unended"}, outcome=run_history.UNFINISHED)
    run = log(store, {"clep/y": "of its run"})
    for _ in range(maintenance.RUNS):
        log(store, {})
    tags = {"stage_key": "champion", "evaluate_key": "evaluated", "run": run.path.stem}
    aged(monkeypatch, store)
    with monkeypatch.context() as patched:
        patched.setattr(client, "aliased_versions", lambda settings: [("clep", tags)])
        assert {item.key for item in maintenance.garbage(store, settings).items} == {"nobody"}
        later = time.time() + 86400 * (maintenance.UNFINISHED_DAYS + 1)
        assert {item.key for item in maintenance.garbage(store, settings, later).items} == {"nobody", "unended"}

    def away(settings):
        raise StoreError("MLflow does not answer")

    monkeypatch.setattr(client, "aliased_versions", away)
    with pytest.raises(StoreError):
        maintenance.garbage(store, settings)


def test_gc_keeps_a_working_folder_that_is_young_or_locked(store, settings, monkeypatch):
    for key in ("old", "locked"):
        (store.partial("clep", key) / "training.resume").write_text("state")
    for name in ("k.stale-1", "k.stale-download"):
        (store.root / "clep" / name).mkdir()
    assert maintenance.garbage(store, settings).items == []
    aged(monkeypatch, store)
    entered, release = threading.Event(), threading.Event()

    def at_work():
        with store.lock("clep", "locked"):
            entered.set()
            release.wait(60)

    thread = threading.Thread(target=at_work)
    thread.start()
    assert entered.wait(20)
    try:
        found = maintenance.garbage(store, settings)
        assert {item.place for item in found.items} == {"clep/old.partial", "clep/k.stale-1", "clep/k.stale-download"}
        locked = layout.Item(kind="partial", stage="clep", key="locked", bytes=0, age=OLD, place="clep/locked.partial")
        found.items.append(locked)
        assert len(maintenance.remove(store, found)) == 3
    finally:
        release.set()
        thread.join(20)
    assert sorted(path.name for path in (store.root / "clep").iterdir()) == ["locked.partial"]


def test_gc_removes_abandoned_attempts_and_checkpoints_of_finished_outputs(store, settings, monkeypatch):
    if not hasattr(store, "bucket"):
        pytest.skip("a folder has none")
    stands = commit(store, "k0")
    log(store, {"clep/x": "k0"})
    for name in ("clep/k0/20200101T000000-dead/a", "clep/k1/20200101T000000-dead/a", "clep/k0/resume/abc"):
        store.bucket.write(name, b"x" * 10)
    store.bucket.write("clep/k0/resume.json", b"{}")
    store.bucket.write("clep/k2/resume.json", b"{}")
    store.bucket.write("clep/k2/resume/abc", b"x")
    assert maintenance.garbage(store, settings).items == []
    aged(monkeypatch, store, maintenance.GRACE_HOURS * 3600)
    found = maintenance.garbage(store, settings)
    assert {(item.kind, item.key) for item in found.items} == {("leftover", "k0"), ("leftover", "k1")}
    assert len(maintenance.remove(store, found)) == 3
    names = set(store.bucket.listing("clep"))
    assert names == {
        "clep/k0/stage.json", f"clep/k0/{stands.attempt}/a", "clep/k2/resume.json", "clep/k2/resume/abc"
    }  # fmt: skip
    assert store.fault("clep", "k0") is None


def test_gc_while_a_run_computes_removes_nothing_that_it_uses(store, settings, monkeypatch):
    """A run that reuses outputs which no recent run reached, and computes on them while gc is at work."""
    aged(monkeypatch, store)
    seen: dict[str, Any] = {}

    def compute(work):
        if work.folder.parent.name == "shard":
            found = maintenance.garbage(store, settings)
            seen["garbage"] = {(item.stage, item.key) for item in found.items}
            maintenance.remove(store, found)
            seen["input"] = (work.inputs["index"] / "out.txt").read_text()
        (work.folder / "out.txt").write_text(work.folder.parent.name)
        return Computed(digests={"content": work.folder.parent.name})

    def node(stage: str, need: str | None = None) -> Node:
        inputs = {need: Ref(need, "c")} if need else {}
        return Node(stage=stage, name="c", compute=compute, config={}, inputs=inputs)

    chain = [node("source"), node("index", "source"), node("shard", "index")]
    bring_up_to_date(store, settings, chain[:2])
    for _ in range(maintenance.RUNS):
        log(store, {})
    commit(store, "nobody")
    records = bring_up_to_date(store, settings, chain)
    assert seen == {"garbage": {("clep", "nobody")}, "input": "index"}
    for record in records.values():
        assert store.fault(record.stage, record.key) is None


def test_gc_while_a_run_waits_for_the_device_removes_nothing_that_it_reuses(store, settings, monkeypatch):
    """The run reuses outputs which no recent run reached; another one has the device."""
    aged(monkeypatch, store)

    def compute(work):
        (work.folder / "out.txt").write_text(work.folder.parent.name)
        return Computed(digests={"content": work.folder.parent.name})

    first = Node(stage="backbone", name="c", compute=compute, config={})
    second = Node(stage="clep", name="c", compute=compute, config={}, inputs={"backbone": Ref("backbone", "c")})
    kept = bring_up_to_date(store, settings, [first])["backbone/c"]
    for _ in range(maintenance.RUNS):
        log(store, {})
    commit(store, "nobody")
    device = FileLock(store.root / "locks" / "device-cpu-0")
    with device:
        thread = threading.Thread(
            target=bring_up_to_date, args=(store, replace(settings, device="cpu"), [first, second])
        )
        thread.start()
        deadline = time.monotonic() + 30
        while not list(store.root.glob("clep/*.partial")):  # it is about to wait, or waits
            assert time.monotonic() < deadline
            time.sleep(0.01)
        removed = maintenance.remove(store, maintenance.garbage(store, settings))
    thread.join(60)
    assert {item.key for item in removed} == {"nobody"}
    assert store.fault("backbone", kept.key) is None


def test_gc_looks_again_under_the_locks_of_runs(store, settings, monkeypatch):
    """Between the decision and the removal a run begins to rely on an output, and another output is computed anew."""
    for key in ("wanted", "anew", "nobody"):
        commit(store, key)
    with monkeypatch.context() as patched:
        aged(patched, store)
        found = maintenance.garbage(store, settings)
    assert len(found.items) == 3
    log(store, {"clep/x": "wanted"}, outcome=run_history.UNFINISHED)
    items = type(store).items

    def older(self, *names):
        found = items(self, *names)
        return [layout.Item(**{**i.__dict__, "age": i.age + OLD * (i.key != "anew")}) for i in found]

    monkeypatch.setattr(type(store), "items", older)
    assert [item.key for item in maintenance.remove(store, found)] == ["nobody"]


def test_verify_withdraws_under_the_lock_under_which_it_decides(store, server, monkeypatch):
    record = commit(store, "k0")
    alter(store, server, record, b"hallo")
    withdraw, locked = type(store).withdraw, []

    def watched(self, stage, key):
        with pytest.raises(Timeout), self.lock(stage, key, seconds=0):
            pass
        locked.append(key)
        withdraw(self, stage, key)

    monkeypatch.setattr(type(store), "withdraw", watched)
    maintenance.verify(store, dry_run=False)
    assert locked == ["k0"]


def test_what_is_deleted_while_a_run_computes_is_computed_again(store, settings):
    """It is there when the run starts, and a later stage reads it."""
    again: list[str] = []

    def compute(work):
        again.append(work.folder.parent.name)
        if delete and work.folder.parent.name == "backbone":
            for item in [item for item in store.items(("clep",)) if item.key in delete]:
                store.remove(item)
        (work.folder / "out.txt").write_text("x")
        return Computed(digests={"content": "x"})

    def nodes(setting: int) -> list[Node]:
        settings = {"backbone": {"a": setting}, "clep": {}}
        return [Node(stage=stage, name="c", compute=compute, config=config) for stage, config in settings.items()]

    delete: list[str] = []
    delete.append(bring_up_to_date(store, settings, nodes(1))["clep/c"].key)
    again.clear()
    records = bring_up_to_date(store, settings, nodes(2))
    assert again == ["backbone", "clep"]
    assert store.fault("clep", records["clep/c"].key) is None


class AtOnce:
    """Stands in for a Prefect task and runs it at once."""

    def __call__(self, title, node, decision, run, return_state=True):
        run.unquote().compute(node.unquote(), decision.unquote())
        return Completed()

    def submit(self, *call):
        return SimpleNamespace(state=self(*call), wait=lambda: None)


def bring_up_to_date(store: Store, settings: Settings, nodes: list[Node]) -> dict[str, Record]:
    """Do what the flow does, without Prefect and MLflow."""
    from clepdg_flows.run.display import silent
    from clepdg_flows.run.run import Run

    class Nobody:
        def is_registered(self, record):
            return True

        def start(self, node, key):
            return None

        def log_metrics(self, run_id, points):
            pass

        def finish(self, node, record, records, run_id):
            pass

        def fail(self, run_id, error):
            pass

    config = {"preset": "demo", "backbone": {"name": "micro"}, "corpora": []}
    opened = run_history.start(store, Arguments(), config)
    opened.write()
    run = Run(settings, store, opened, Nobody(), frozenset(), silent(), dict)  # type: ignore[arg-type]
    with mock.patch.object(executor, "compute_stage", AtOnce()):
        executor.execute(run, nodes, ["cpu"])
    opened.outcome = "completed"
    opened.stages = {}  # so that only runs under way reach something
    opened.write()
    return run.records


def test_damaged_run_files_are_passed_over_and_lead_nowhere(store, settings):
    key = "../../outside"
    for number, said in enumerate(
        ([], {}, {"arguments": {}, "config": {}, "stages": {"clep/x": {"key": key}}}, {"stages": 5}, None)
    ):
        store.documents.write(f"runs/{number}.json", said)
    assert run_history.logs(store) == []
    assert run_history.last_keys(store, {"preset": "demo", "backbone": {"name": "micro"}, "corpora": []}) == {}
    with pytest.raises(StoreError, match="name of an output"):
        store.lookup("clep", key)
    main(["gc", "--dry-run"])


def test_a_store_of_another_format_is_refused_by_status_and_run(store, settings, capsys):
    commit(store, "k0")
    store.documents.write("store.json", {"format": 99})
    for words in (["status", "--preset", "demo"], ["run", "--preset", "demo"], ["verify"], ["gc"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert "another version of clep-dg" in said and "format 99" in said and "Traceback" not in said


def test_a_store_without_a_format_is_one_of_the_first_and_is_read(store, settings):
    commit(store, "k0")
    if hasattr(store, "bucket"):
        store.bucket.delete(["store.json"])
    else:
        (store.root / "store.json").unlink()
        path = store.local("clep", "k0") / MARKER
        raw = json.loads(path.read_text())
        del raw["attempt"]
        path.write_text(json.dumps(raw))
    assert isinstance(settings.open_store().lookup("clep", "k0"), Record)


def test_links_out_of_a_folder_are_not_an_output(tmp_path):
    store = open_store(str(tmp_path / "store"))
    commit(store, "k0", text="secret")
    outside = tmp_path / "outside"
    outside.write_text("secret")
    path = Path(store.local("clep", "k0") / "a")
    path.unlink()
    os.symlink(outside, path)
    assert store.lookup("clep", "k0") == "not a file: a"
