"""Protects the execution of a stage: reuse, readable reasons, damage, and failures that leave nothing."""

import contextlib
import errno
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from clepdg.callbacks import Reporting
from clepdg.config.schema import IndexConfig, ShardConfig
from clepdg.corpora.cards import Card, Expected, Split
from clepdg.dataset import shard_writer, shards, tables
from clepdg.dataset.index import build_index
from clepdg.errors import StoreError
from clepdg.hashing import plain
from clepdg.store.opening import open_store
from clepdg.store.record import MARKER, Record
from clepdg.store.store import Store
from clepdg_flows.graph.recorded import RECORDED
from clepdg_tasks.engine import execute, versions
from clepdg_tasks.engine import node as stages
from clepdg_tasks.engine.node import Computed, Node, Ref, decide
from clepdg_tasks.host.settings import Settings


@pytest.fixture
def world(tmp_path):
    """A store and three stages in a row; each writes what its config says, from what its inputs hold."""
    store = open_store(str(tmp_path / "store"))
    settings = Settings(home=tmp_path, store=str(store.root), tracking_url=None, device="cpu", workers=1)
    return World(store, settings)


class World:
    def __init__(self, store, settings):
        self.store, self.settings = store, settings
        self.calls, self.records, self.last = [], {}, {}
        self.config = {"source": {"text": "a", "noise": 0}, "index": {"upper": False}, "shard": {"times": 2}}

    def nodes(self):
        def compute(work):
            name = work.folder.parent.name
            self.calls.append(name)
            if name == "source":
                text = work.config["text"]
            else:
                text = (next(iter(work.inputs.values())) / "out.txt").read_text()
                text = text.upper() if work.config.get("upper") else text * work.config.get("times", 1)
            (work.folder / "out.txt").write_text(text)
            return Computed(digests={"content": text}, figures={"length": len(text)})

        chain = [("source", None), ("index", "source"), ("shard", "index")]
        return [
            Node(
                stage=stage,
                name="c",
                compute=compute,
                config=self.config[stage],
                inputs={need: Ref(need, "c")} if need else {},
            )
            for stage, need in chain
        ]

    def run(self, redo=frozenset()):
        """Run all; return stage -> reason."""
        self.calls.clear()
        self.records = {}
        reasons = {}
        for node in self.nodes():
            outcome = execute.run(
                node,
                decide(node, self.records, self.store, lambda: self.last, redo),
                self.records,
                self.store,
                self.settings,
                redo=redo,
                reporting=lambda node, decision: contextlib.nullcontext(Reporting()),
            )
            self.records[node.id] = outcome.record
            reasons[node.stage] = outcome.reason
        self.last = {node_id: record.key for node_id, record in self.records.items()}
        return reasons

    def folder(self, stage):
        return self.store.local(stage, self.last[f"{stage}/c"])


def test_the_second_run_reuses_all(world):
    assert world.run() == {"source": "new", "index": "new", "shard": "new"}
    assert world.run() == {"source": stages.UNCHANGED, "index": stages.UNCHANGED, "shard": stages.UNCHANGED}
    assert world.calls == []


def test_a_changed_setting_is_named_and_only_what_depends_on_it_runs(world):
    world.run()
    world.config["index"] = {"upper": True}
    assert world.run() == {
        "source": stages.UNCHANGED,
        "index": "config upper False -> True",
        "shard": "input index changed",
    }


def test_equal_results_stop_the_change(world):
    world.run()
    world.config["source"]["noise"] = 1  # in the key, but not in what comes out
    assert world.run() == {"source": "config noise 0 -> 1", "index": stages.UNCHANGED, "shard": stages.UNCHANGED}
    assert world.calls == ["source"]


def test_going_back_reuses_what_was_there(world):
    world.run()
    world.config["index"] = {"upper": True}
    world.run()
    world.config["index"] = {"upper": False}
    assert set(world.run().values()) == {stages.UNCHANGED}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "out.txt").unlink(), "file missing: out.txt"),
        (lambda folder: (folder / "out.txt").write_text(""), "file truncated or altered"),
        (lambda folder: (folder / MARKER).unlink(), f"file missing: {MARKER}"),
    ],
)
def test_damaged_output_is_redone_and_what_follows_is_reused(world, damage, reason):
    world.run()
    damage(world.folder("index"))
    reasons = world.run()
    assert reason in reasons.pop("index")
    assert set(reasons.values()) == {stages.UNCHANGED}
    assert world.calls == ["index"]


def test_a_deleted_output_is_not_called_new(world):
    import shutil

    world.run()
    shutil.rmtree(world.folder("index"))
    assert world.run() == {"source": stages.UNCHANGED, "index": "its output was deleted", "shard": stages.UNCHANGED}


def test_redo_computes_again(world):
    world.run()
    reasons = world.run(redo=frozenset({"index"}))
    assert reasons == {"source": stages.UNCHANGED, "index": "to be computed again (--redo)", "shard": stages.UNCHANGED}


def test_a_raised_version_is_named(world, monkeypatch):
    world.run()
    monkeypatch.setitem(versions.VERSIONS, "index", versions.VERSIONS["index"] + 1)
    before = versions.VERSIONS["index"] - 1
    assert world.run()["index"] == f"version {before} -> {before + 1}"


def test_deciding_says_what_a_stale_stage_holds_up(world):
    world.run()
    world.config["source"]["text"] = "b"
    nodes, records = world.nodes(), {}
    first = decide(nodes[0], records, world.store, lambda: world.last)
    assert (first.record, first.reason) == (None, "config text a -> b")
    assert decide(nodes[1], records, world.store, lambda: world.last).reason == "depends on source c"


def test_a_failed_stage_leaves_no_output_and_its_error_passes(world):
    def broken(work):
        (work.folder / "out.txt").write_text("half")
        raise ValueError("bug")

    node = Node(stage="source", name="c", compute=broken, config={})
    for _ in range(2):
        with pytest.raises(ValueError, match="bug"):
            run_one(world, node)
    assert decide(node, {}, world.store, dict).record is None


def test_leftovers_of_a_killed_run_are_cleared_but_for_its_resume_files(world):
    seen = []

    def compute(work):
        seen.append(sorted(p.name for p in work.folder.iterdir()))
        (work.folder / "out.txt").write_text("whole")
        return Computed(digests={"content": "x"})

    node = Node(stage="source", name="c", compute=compute, config={})
    key = decide(node, {}, world.store, dict).key
    partial = world.store.partial("source", key)
    (partial / "half.tar").write_text("half")
    (partial / "tree").mkdir()
    (partial / "tree" / "x").write_text("x")
    (partial / "training.resume").write_text("state")
    run_one(world, node)
    assert seen == [["training.resume"]]
    assert set(world.store.lookup("source", key).files) == {"out.txt"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_is_one_clear_error(world, number):
    def full(work):
        raise OSError(number, "no")

    with pytest.raises(StoreError, match="what is done is kept"):
        run_one(world, Node(stage="source", name="c", compute=full, config={}))


def test_another_os_error_is_not_called_a_disk_error(world):
    def missing(work):
        (work.folder / "nothing").read_text()

    with pytest.raises(FileNotFoundError):
        run_one(world, Node(stage="source", name="c", compute=missing, config={}))


def test_a_refusal_comes_on_every_run_and_keeps_the_output(world):
    def refuse(record, place):
        raise StoreError("refused")

    node = world.nodes()[0]
    refused = Node(**{**node.__dict__, "accept": refuse})
    for _ in range(2):
        with pytest.raises(StoreError, match="refused"):
            run_one(world, refused)
    assert world.calls == ["source"]
    assert run_one(world, node).reused


def run_one(world, node, **options):
    return execute.run(
        node,
        decide(node, {}, world.store, dict),
        {},
        world.store,
        world.settings,
        reporting=lambda node, decision: contextlib.nullcontext(Reporting()),
        **options,
    )


def test_who_waits_for_another_run_says_so_once(world):
    node, said, begun = world.nodes()[0], [], threading.Event()
    key = decide(node, {}, world.store, dict).key

    def hold():
        with world.store.lock(node.stage, key):
            begun.set()
            time.sleep(0.5)

    other = threading.Thread(target=hold)
    other.start()
    begun.wait()
    outcome = run_one(world, node, waiting=said.append)
    other.join()
    assert said == ["source/c waits: another run computes it"] and not outcome.reused
    run_one(world, node, waiting=said.append)
    assert len(said) == 1


def test_what_was_computed_but_not_put_in_place_is_not_computed_again(world, monkeypatch):
    """A kill at the last moment of a commit, or an outage of a bucket, costs no finished training."""

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, "_publish", killed)
        with pytest.raises(KeyboardInterrupt):
            world.run()
    assert world.calls == ["source"]
    assert world.run()["source"] == "computed by an earlier run, which could not store it"
    assert world.calls == ["index", "shard"]


def test_what_was_altered_before_it_was_put_in_place_is_computed_again(world, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Store, "_publish", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.run()
    (out,) = world.store.root.glob("source/*.partial/out.txt")
    out.write_text("b")  # of the same size
    assert world.run()["source"] == "new"
    assert world.calls == ["source", "index", "shard"]


def test_redo_takes_nothing_that_an_earlier_run_left(world, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Store, "_publish", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.run()
    world.run(redo=frozenset({"source"}))
    assert world.calls[0] == "source"


def test_an_output_whose_record_lacks_what_others_read_is_redone(world):
    nodes = world.nodes
    world.nodes = lambda: [replace(node, recorded={"figures.length": "count"}) for node in nodes()]
    world.run()
    (path,) = world.store.root.glob(f"index/*/{MARKER}")
    for figures in ({}, {"length": "three"}, {"length": None}):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"figures": figures}))
        reasons = world.run()
        assert f"{MARKER} lacks figures.length" in reasons["index"]
        assert reasons["source"] == reasons["shard"] == stages.UNCHANGED


def test_what_stages_record_is_what_the_graph_asks_for(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["path,speaker,label,split"]
    for number, split in enumerate(("train", "train", "validation", "test")):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * rng.standard_normal(8000), 16000)
        rows.append(f"{number}.wav,{split},glad,{split}")
    (tmp_path / "utterances.csv").write_text("\n".join(rows))
    card = Card(name="calls", title="c", grammar="table", language="en", licence="l", citation="c", homepage="h",
                labels={"glad": "happy"}, split=Split(unit="official"), expected=Expected())  # fmt: skip
    utterances, quarantine, figures = build_index(tmp_path, {}, card, IndexConfig())
    assert record("index", tables.digests(utterances, quarantine), figures).lacks(RECORDED["index"]) is None
    found = shard_writer.write_shards(tmp_path, tmp_path, utterances, ShardConfig())
    assert record("shard", shards.digests(tmp_path), found).lacks(RECORDED["shard"]) is None


def record(stage, digests, figures):
    return Record(stage=stage, name="n", key="k", version=1, config={}, inputs={}, digests=digests,
                  figures=plain(figures), files={}, seconds=1.0)  # fmt: skip
