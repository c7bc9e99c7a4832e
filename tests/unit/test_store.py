"""Protects the store: what is whole, what is noticed, and that nothing half-done is ever taken for done."""

import json
import os
import threading
from pathlib import Path

import pytest

from clepdg import hashing
from clepdg.errors import StoreError
from clepdg.hashing import canonical, digest, read_json, stage_key, write_json
from clepdg.store.opening import open_store
from clepdg.store.record import MARKER, Record


def record(key="k", **changes):
    facts = dict(stage="clep", name="fold", key=key, version=1, config={}, inputs={}, digests={"content": "d"},
                 figures={}, files={}, seconds=1.0)  # fmt: skip
    return Record(**{**facts, **changes})


def commit(store, key="k", **files):
    with store.lock("clep", key):
        folder = store.partial("clep", key)
        for name, text in files.items():
            (folder / name).write_text(text)
        return store.commit(record(key))


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "a store"))


def test_key_reads_stage_version_config_and_inputs_only():
    key = stage_key("clep", 1, {"epochs": 10, "rate": 1e-5}, {"shard": "a"})
    assert key == stage_key("clep", 1, {"rate": 1e-5, "epochs": 10}, {"shard": "a"})
    others = [
        stage_key("acpt", 1, {"epochs": 10, "rate": 1e-5}, {"shard": "a"}),
        stage_key("clep", 2, {"epochs": 10, "rate": 1e-5}, {"shard": "a"}),
        stage_key("clep", 1, {"epochs": 11, "rate": 1e-5}, {"shard": "a"}),
        stage_key("clep", 1, {"epochs": 10, "rate": 1e-5}, {"shard": "b"}),
        stage_key("clep", 1, {"epochs": 10, "rate": 1e-5}, {"sharp": "a"}),
    ]
    assert len({key, *others}) == 6


def test_canonical_json_has_one_form_and_no_nan():
    assert canonical({"b": (1, 2), "a": Path("x")}) == '{"a":"x","b":[1,2]}'
    assert digest([1, "1"]) != digest(["1", 1])
    with pytest.raises(StoreError, match=r"(?s)not a finite number.*head.scales.1 inf.*clep-dg verify"):
        canonical({"head": {"scales": (0.5, float("inf"))}, "n": 3})
    with pytest.raises(StoreError, match="nan"):
        canonical(float("nan"))


def test_commit_then_lookup(store):
    done = commit(store, a="hello", b="world")
    found = store.lookup("clep", "k")
    assert found == done
    assert found.files["a"][0] == 5
    assert (store.local("clep", "k") / "a").read_text() == "hello"
    assert not (store.root / "clep" / "k.partial").exists()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "a").unlink(), "file missing: a"),
        (lambda f: (f / "a").write_text("hell"), "file truncated or altered: a (4 bytes, 5 expected)"),
        (lambda f: (f / MARKER).unlink(), f"file missing: {MARKER}"),
        (lambda f: (f / MARKER).write_text('{"half'), f"file unreadable: {MARKER}"),
        (lambda f: (f / MARKER).write_text("[1, 2]"), f"file unreadable: {MARKER}"),
    ],
)
def test_damage_is_noticed_and_mended(store, damage, reason):
    commit(store, a="hello", b="world")
    damage(store.local("clep", "k"))
    assert store.lookup("clep", "k") == reason
    commit(store, a="hello", b="world")
    assert isinstance(store.lookup("clep", "k"), Record)
    assert [p.name for p in (store.root / "clep").iterdir()] == ["k"]


def test_an_output_of_another_store_format_is_not_misread(store):
    commit(store, a="hello")
    path = store.local("clep", "k") / MARKER
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    assert "format 99" in store.lookup("clep", "k")


def test_what_is_unknown_is_new(store):
    assert store.lookup("clep", "nothing") == "new"


def test_working_state_is_dropped_at_the_top_only(store):
    with store.lock("clep", "k"):
        folder = store.partial("clep", "k")
        (folder / "training.resume").write_text("state")
        (folder / "tree").mkdir()
        (folder / "tree" / "song.resume").write_text("a corpus's own file")
        (folder / "tree" / MARKER).write_text("another")
        done = store.commit(record())
    assert set(done.files) == {"tree/song.resume", f"tree/{MARKER}"}


def test_a_killed_commit_leaves_no_output(store, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        commit(store, a="hello")
    monkeypatch.undo()
    assert store.lookup("clep", "k") == "new"
    assert (store.partial("clep", "k") / "a").read_text() == "hello"


@pytest.mark.parametrize("durable", [True, False])
def test_files_are_flushed_before_stage_json_names_them(tmp_path, monkeypatch, durable):
    """The order in which a disk gets them is what a power cut shows."""
    store, flushed = open_store(str(tmp_path / "store"), durable=durable), []
    flush = os.fsync

    def watched(descriptor):
        flushed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    with store.lock("clep", "k"):
        folder = store.partial("clep", "k")
        (folder / "tree").mkdir()
        for name in ("a", "tree/b"):
            (folder / name).write_text("hello")
        store.commit(record())
    before = next(number for number, path in enumerate(flushed) if path.name.startswith(f"{MARKER}."))
    data = {folder, folder / "a", folder / "tree", folder / "tree" / "b"}
    assert {*flushed[:before]} & data == (data if durable else set())
    assert flushed[-1] == folder.parent


def test_a_second_run_of_one_key_waits(store):
    order = []
    entered, release = threading.Event(), threading.Event()

    def first():
        with store.lock("clep", "k"):
            entered.set()
            release.wait(20)
            order.append("first")

    def second():
        with store.lock("clep", "k"):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert entered.wait(20)
    threads[1].start()
    with store.lock("clep", "another key"):
        order.append("another")
    release.set()
    for thread in threads:
        thread.join(20)
    assert order == ["another", "first", "second"]


def test_write_json_is_whole_or_old(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}


def test_many_threads_begin_a_store_at_once(tmp_path):
    store, faults = open_store(str(tmp_path / "store")), []
    start = threading.Barrier(16)

    def work(number):
        try:
            start.wait(20)
            commit(store, f"k{number}", a=str(number))
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert faults == []
    assert json.loads((store.root / "store.json").read_text()) == {"format": 1}
    assert not list(store.root.rglob("*.writing"))


def test_addresses(tmp_path):
    assert open_store((tmp_path / "x y").as_uri()).root == tmp_path / "x y"
    with pytest.raises(StoreError, match="not supported"):
        open_store("ftp://host/store")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be created"):
        open_store(str(tmp_path / "file" / "store"))


def test_a_json_file_that_would_not_be_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "JSON_BYTES", 1000)
    write_json(tmp_path / "a.json", ["x" * 900])
    with pytest.raises(StoreError, match=r"(?s)too large.*at most 1000.*a.json"):
        write_json(tmp_path / "a.json", ["x" * 1100])
    assert read_json(tmp_path / "a.json") == ["x" * 900]
