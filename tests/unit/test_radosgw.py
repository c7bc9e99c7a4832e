"""Protects the store in a bucket against a real S3 server, whose conditional writes and listings are its own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clepdg.errors import StoreError
from clepdg.store.opening import open_store
from clepdg.store.record import MARKER, Record
from clepdg.store.s3 import transfer
from tests import ceph
from tests.s3 import environment
from tests.unit.test_remote_store import compute, record

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(ceph.missing() is not None, reason=f"no real S3 server here: {ceph.missing()}"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    cluster = ceph.Ceph(tmp_path_factory.mktemp("ceph"))
    yield cluster.url
    cluster.stop()


@pytest.fixture
def machine(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that opens the store, which is new for each test, as another machine."""
    import botocore.session

    for name, value in environment(url).items():
        monkeypatch.setenv(name, value)
    botocore.session.get_session().create_client("s3").create_bucket(Bucket="lab")
    return lambda name: open_store(f"s3://lab/{tmp_path.name}/a store", cache=tmp_path / name)


def test_reuse_in_files_and_packed_and_in_parts(machine: Any) -> None:
    a, b = machine("a"), machine("b")
    shapes = {"few": (3, 1000), "many": (transfer.MANY_FILES, 1000), "large": (1, 40_000_000)}
    for key, (count, size) in shapes.items():
        a.lookup("clep", key)
        folder = a.partial("clep", key)
        data = {f"tree/ä {n}": os.urandom(size) for n in range(count)}
        (folder / "tree").mkdir()
        for name, content in data.items():
            (folder / name).write_bytes(content)
        done = a.commit(record(key))
        assert b.lookup("clep", key) == done
        assert {name: (b.local("clep", key) / name).read_bytes() for name in data} == data
        assert b.fault("clep", key) is None
    assert {(item.kind, item.key) for item in b.items(["clep"])} == {("output", key) for key in shapes}


def test_a_late_writer_takes_the_winners(machine: Any) -> None:
    a, b = machine("a"), machine("b")
    for store, text in ((a, "first"), (b, "second")):
        assert store.lookup("clep", "k") == "new"
        (store.partial("clep", "k") / "out").write_text(text)
    winner = a.commit(record())
    assert b.commit(record()) == winner
    assert (b.local("clep", "k") / "out").read_text() == "first"
    assert set(a.bucket.listing("clep")) == {f"clep/k/{MARKER}", f"clep/k/{winner.attempt}/out"}


def test_damage_checkpoints_and_documents(machine: Any) -> None:
    a, b = machine("a"), machine("b")
    done = compute(a, out="hello")
    a.bucket.write(f"clep/k/{done.attempt}/out", b"hallo")
    with pytest.raises(StoreError, match="damaged"):
        b.local("clep", "k")
    assert a.lookup("clep", "k") == "new"
    a.partial("clep", "t").joinpath("training.resume").write_text("half")
    with pytest.raises(ValueError), a.checkpoints("clep", "t"):
        raise ValueError
    folder = b.partial("clep", "t")
    with b.checkpoints("clep", "t"):
        assert (folder / "training.resume").read_text() == "half"
        (folder / "out").write_text("done")
        assert isinstance(b.commit(record("t")), Record)
    assert not [name for name in b.bucket.listing("clep") if "resume" in name]
    a.documents.write("runs/1.json", {"a": 1})
    assert [said for _, said, _ in b.documents.newest("runs", 5)] == [{"a": 1}]
    b.probe()
