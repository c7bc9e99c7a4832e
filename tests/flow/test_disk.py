"""Protects the store from a disk that is full or read-only: one clear error, nothing lost, and on when it is mended.

The disk is a real one, a small tmpfs, and is really full: whoever may not mount one skips these tests.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clepdg.dataset import shard_writer
from clepdg.hashing import digest_file
from clepdg.store.opening import open_store
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg.training import loop
from clepdg_flows.cli.main import main
from clepdg_tasks.engine import run_history
from clepdg_tasks.host import preflight
from tests.flow.small import SMALL

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("prefect_server")]

OVERRIDES = {
    **SMALL,
    "synthetic.utterances": 20,
    "clep.epochs": 2,
    "acpt.epochs": 3,
    "rows": "clep-zero-shot,text-acpt",
    "protocols": "supervised",
}
ROOM = 8_000  # bytes that are left on a disk that is nearly full: less than a shard


class Disk:
    """A file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.megabytes = path, 100

    def mount(self, *options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", ",".join([*options, f"size={self.megabytes}m"]), "tmpfs"]
        done = subprocess.run([*command, str(self.path)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a tmpfs can't be mounted here: {done.stderr.strip()}")

    def fill(self, leave: int = 0) -> None:
        with (self.path / "ballast").open("ab", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                ballast.truncate(max(0, ballast.tell() - leave))

    def grow(self) -> None:
        self.megabytes += 150
        self.mount("remount")


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "a dïsk")
    disk.path.mkdir()
    disk.mount()
    yield disk
    subprocess.run(["umount", "-l", str(disk.path)], check=True)


@pytest.fixture
def on_disk(disk, monkeypatch) -> Store:
    """Keep all state on the small disk, and return its store."""
    monkeypatch.setenv("CLEPDG_HOME", str(disk.path / "var"))
    monkeypatch.setenv("CLEPDG_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr(preflight, "NEEDED_BYTES", 0)
    return open_store(str(disk.path / "var" / "store"))


def run():
    from clepdg_flows.clep_dg import clep_dg

    return clep_dg(preset="demo", corpora=["synthetic-1", "synthetic-3"], overrides=OVERRIDES)


def complaint() -> str:
    from clepdg_flows.run.run import StagesFailed

    with pytest.raises(StagesFailed) as caught:
        run()
    return str(caught.value)


def outputs(store: Store) -> set[str]:
    """Return the outputs that are there; each of them is whole."""
    found = set()
    for marker in store.root.glob("*/*/stage.json"):
        folder = marker.parent
        if folder.suffix:
            continue
        record = store.lookup(folder.parent.name, folder.name)
        assert isinstance(record, Record), record
        assert all(digest_file(folder / name) == sha256 for name, (_, sha256) in record.files.items())
        found.add(f"{record.stage}/{record.name}")
    return found


def test_a_full_disk_costs_nothing_that_is_done(disk, on_disk, monkeypatch):
    write_shards, save, resume = shard_writer.write_shards, loop.Training._save, loop.Training._resume
    commit, write, resumed = Store.commit, run_history.RunLog.write, []

    def resumed_at(self):
        resumed.append((self.folder.parent.name, resume(self)))
        return resumed[-1][1]

    monkeypatch.setattr(loop.Training, "_resume", resumed_at)

    def while_sharding(folder, root, *args, **kwargs):
        disk.fill(leave=ROOM)
        return write_shards(folder, root, *args, **kwargs)

    with monkeypatch.context() as full:
        full.setattr(shard_writer, "write_shards", while_sharding)
        said = complaint()
    assert "shard/synthetic-1" in said and "No space left on device" in said and "what is done is kept" in said
    assert "Traceback" not in said
    assert {"source/synthetic-1", "index/synthetic-3"} <= outputs(on_disk)
    disk.grow()

    def while_saving(self, done):
        if self.folder.parent.name == "clep" and done == 3:
            disk.fill()
        save(self, done)

    with monkeypatch.context() as full:
        full.setattr(loop.Training, "_save", while_saving)
        said = complaint()
    assert "clep/supervised.c0: A checkpoint can't be written" in said and "No space left on device" in said
    assert "Traceback" not in said and "resumes from the previous checkpoint" in said
    assert {"shard/synthetic-1", "shard/synthetic-3", "backbone/backbone"} <= outputs(on_disk)
    disk.grow()

    def while_committing(self, record):
        if record.stage == "acpt":
            disk.fill()
        return commit(self, record)

    with monkeypatch.context() as full:
        full.setattr(Store, "commit", while_committing)
        said = complaint()
    assert "acpt/supervised.c0.acpt.l0: A stage could not write its output" in said and "Traceback" not in said
    assert ("clep", 2) in resumed
    disk.grow()

    def at_the_end(self):
        if self.outcome == "completed":
            disk.fill()
        write(self)

    with monkeypatch.context() as full:
        full.setattr(run_history.RunLog, "write", at_the_end)
        done = run()
    assert ("acpt", 2) in resumed
    assert set(done["stages"]) == outputs(on_disk)
    assert not list(on_disk.root.rglob("*.writing"))
    disk.grow()
    assert run()["computed"] == 0


def test_a_read_only_store_is_refused_before_anything_runs(disk, on_disk, capsys, tmp_path, monkeypatch):
    disk.mount("remount", "ro")
    with pytest.raises(SystemExit) as ended:
        main(["run", "--preset", "demo"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("can't be written") == 1 and "Read-only file system" in said and str(on_disk.root) in said
    monkeypatch.setenv("CLEPDG_STORE", str(tmp_path / "elsewhere"))
    with pytest.raises(SystemExit):
        main(["run", "--preset", "demo"])
    assert "The folder of logs and databases can't be written" in capsys.readouterr().err
    monkeypatch.delenv("CLEPDG_STORE")
    main(["status", "--preset", "demo"])
    assert "0 of 214 stages" in capsys.readouterr().out
