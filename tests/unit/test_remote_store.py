"""Protects a store in a bucket: two machines share it, nothing half-done or altered is taken, outages cost no work."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clepdg.errors import StoreError
from clepdg.store.opening import open_store
from clepdg.store.record import MARKER, Record
from clepdg.store.s3 import bucket, documents, sizes, transfer
from clepdg.store.store import Store
from tests.s3 import S3, environment

URL = "s3://lab/a store"


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    started = S3()
    yield started
    started.stop()


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An empty bucket `lab`, which everybody in the process finds by the environment."""
    for name, value in environment(server.url).items():
        monkeypatch.setenv(name, value)
    server.fault, server.conditional = lambda method, path: None, True
    client = server.client()
    client.create_bucket(Bucket="lab")
    server.requests.clear()
    yield server
    server.fault = lambda method, path: None
    for name in server.objects("lab"):
        client.delete_object(Bucket="lab", Key=name)
    client.delete_bucket(Bucket="lab")


@pytest.fixture
def machine(s3: S3, tmp_path: Path) -> Callable[..., Store]:
    """A function that returns the store as another machine opens it."""

    def opened(name: str = "a", **options: Any) -> Store:
        return open_store(URL, cache=tmp_path / name, **options)

    return opened


def record(key: str = "k", stage: str = "clep", **changes: Any) -> Record:
    facts: dict[str, Any] = dict(stage=stage, name="fold", key=key, version=1, config={"a": 1}, inputs={},
                                 digests={"content": "d"}, figures={"n": 0.1}, files={}, seconds=1.0)  # fmt: skip
    return Record(**{**facts, **changes})


def compute(store: Store, key: str = "k", stage: str = "clep", **files: str) -> Record:
    """Do what a run does: look, work, commit."""
    with store.lock(stage, key):
        found = store.lookup(stage, key)
        if isinstance(found, Record):
            return found
        if kept := store.complete(stage, key):
            return kept
        folder = store.partial(stage, key)
        with store.checkpoints(stage, key):
            for name, text in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text)
            return store.commit(record(key, stage))


def once(fault: str, method: str, part: str, times: int = 1) -> Callable[[str, str], str | None]:
    """Return a fault of the first requests of a kind."""
    left = [times]

    def rule(m: str, path: str) -> str | None:
        if m == method and part in path and left[0]:
            left[0] -= 1
            return fault
        return None

    return rule


# --- two machines


def test_what_one_machine_computed_the_other_reuses(machine: Any, s3: S3) -> None:
    done = compute(machine("a"), a="hello", **{"tree/b": "world"})
    other = machine("b")
    assert other.lookup("clep", "k") == done
    folder = other.local("clep", "k")
    assert (folder / "a").read_text() == "hello" and (folder / "tree/b").read_text() == "world"
    assert machine("b").local("clep", "k") == folder
    assert other.lookup("clep", "nothing") == "new"


def test_a_lookup_is_one_request_and_no_listing_and_what_is_here_is_not_read_again(machine: Any, s3: S3) -> None:
    compute(machine("a"), a="hello")
    store = machine("b")
    s3.requests.clear()
    store.lookup("clep", "k")
    assert [method for method, _ in s3.requests] == ["GET"]
    store.local("clep", "k")
    s3.requests.clear()
    for _ in range(3):
        store.local("clep", "k")
    assert s3.requests == []
    assert machine("a").local("clep", "k").parts[-2:] == ("clep", "k")
    assert not [path for method, path in s3.requests if path.endswith("/a")]  # machine a made it itself


def test_a_late_writer_drops_its_work_and_takes_the_winners(machine: Any, s3: S3) -> None:
    a, b = machine("a"), machine("b")
    for store in (a, b):
        assert store.lookup("clep", "k") == "new"
    for store, text in ((a, "first"), (b, "second")):
        (store.partial("clep", "k") / "out").write_text(text)
        (store.partial("clep", "k") / text).write_text(text)
    winner = a.commit(record())
    assert b.commit(record()) == winner
    for store in (a, b, machine("c")):
        assert (store.local("clep", "k") / "out").read_text() == "first"
        assert {path.name for path in store.local("clep", "k").iterdir()} == {"out", "first", MARKER}
    attempts = {name.split("/")[3] for name in s3.objects("lab") if name.startswith("a store/clep/k/")}
    assert attempts == {MARKER, winner.attempt}
    assert not list(b.root.glob("clep/*.partial"))


def test_many_writers_at_once_leave_one_output(machine: Any, s3: S3) -> None:
    stores = [machine(str(number)) for number in range(5)]
    for number, store in enumerate(stores):
        store.lookup("clep", "k")
        (store.partial("clep", "k") / "out").write_text(str(number) * 1000)
    done: list[Record] = []
    threads = [threading.Thread(target=lambda s=store: done.append(s.commit(record()))) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 5 and len({one.attempt for one in done}) == 1
    texts = {(store.local("clep", "k") / "out").read_text() for store in stores}
    assert len(texts) == 1 and len(set(texts.pop())) == 1


def test_redo_replaces_what_stands(machine: Any, s3: S3) -> None:
    a, b = machine("a"), machine("b")
    first = compute(a, out="old")
    assert b.local("clep", "k").joinpath("out").read_text() == "old"
    with a.lock("clep", "k"):
        a.lookup("clep", "k")
        (a.partial("clep", "k") / "out").write_text("new")
        second = a.commit(record())
    assert second.attempt != first.attempt
    assert isinstance(b.lookup("clep", "k"), Record)
    assert b.local("clep", "k").joinpath("out").read_text() == "new"


def test_an_output_that_was_replaced_while_it_was_wanted_is_fetched_anew(machine: Any, s3: S3) -> None:
    a, b = machine("a"), machine("b")
    first = compute(a, out="old")
    b.lookup("clep", "k")
    a.lookup("clep", "k")
    (a.partial("clep", "k") / "out").write_text("new")
    a.commit(record())
    a.bucket.delete_below(f"clep/k/{first.attempt}")
    assert b.local("clep", "k").joinpath("out").read_text() == "new"
    assert isinstance(b.lookup("clep", "k"), Record)


def test_many_files_travel_as_one_object(machine: Any, s3: S3) -> None:
    files = {f"tree/Schauspieler ä/{n:04d}.wav": f"audio {n}" for n in range(transfer.MANY_FILES + 10)}
    compute(machine("a"), **files)
    assert len(s3.objects("lab")) == 3  # the store's format, the marker, a tar
    folder = machine("b").local("clep", "k")
    assert {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.wav")} == files


# --- nothing altered is trusted


def put(s3: S3, name: str, data: bytes) -> None:
    s3.client().put_object(Bucket="lab", Key=f"a store/{name}", Body=data)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("damage", ["altered", "short", "missing", "long", "junk"])
def test_a_damaged_object_is_refused_and_computed_again(machine: Any, s3: S3, many: bool, damage: str) -> None:
    files = {f"f{n}": f"text {n}" for n in range(transfer.MANY_FILES if many else 2)}
    done = compute(machine("a"), **files)
    name = f"clep/k/{done.attempt}/{'files.tar' if many else 'f1'}"
    whole = s3.client().get_object(Bucket="lab", Key=f"a store/{name}")["Body"].read()
    altered = whole.replace(b"text 1", b"Text 1")
    data = {"altered": altered, "short": whole[: len(whole) // 2], "long": whole + whole * 99, "junk": os.urandom(999)}
    if damage == "missing":
        s3.client().delete_object(Bucket="lab", Key=f"a store/{name}")
    else:
        put(s3, name, data[damage])
    other = machine("b")
    assert isinstance(other.lookup("clep", "k"), Record)
    with pytest.raises(StoreError, match=r"(?s)damaged.*clep/k.*run again"):
        other.local("clep", "k")
    assert not (other.root / "clep" / "k").exists()
    assert other.lookup("clep", "k") == "new"
    compute(other, **files)
    assert machine("c").local("clep", "k").joinpath("f1").read_text() == "text 1"


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw | {"files": {"../../escaped": [1, "0" * 64]}},
        lambda raw: raw | {"files": {"/tmp/escaped": [1, "0" * 64]}},
        lambda raw: raw | {"files": {"a": ["1", "0" * 64]}},
        lambda raw: raw | {"files": {"a": [1, "zz"]}},
        lambda raw: raw | {"files": ["a"]},
        lambda raw: raw | {"attempt": "../other"},
        lambda raw: raw | {"attempt": ""},
        lambda raw: raw | {"key": "another"},
        lambda raw: raw | {"figures": []},
        lambda raw: raw | {"surprise": 1},
        lambda raw: [],
        lambda raw: None,
    ],
)
def test_a_malicious_marker_is_no_output(machine: Any, s3: S3, tmp_path: Path, change: Any) -> None:
    compute(machine("a"), a="hello")
    raw = json.loads(s3.client().get_object(Bucket="lab", Key=f"a store/clep/k/{MARKER}")["Body"].read())
    put(s3, f"clep/k/{MARKER}", json.dumps(change(raw)).encode())
    store = machine("b")
    assert isinstance(store.lookup("clep", "k"), str)
    with pytest.raises(StoreError):
        store.local("clep", "k")
    assert not list(tmp_path.rglob("escaped"))
    compute(store, a="hello")
    assert isinstance(machine("c").lookup("clep", "k"), Record)


def test_a_tar_that_leads_out_is_refused(machine: Any, s3: S3, tmp_path: Path) -> None:
    import io
    import tarfile

    files = {f"f{n}": "text" for n in range(transfer.MANY_FILES)}
    done = compute(machine("a"), **files)
    for kind, name in (("file", "../../escaped"), ("link", "f0"), ("twice", "f0")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for member in [name] * 2 if kind == "twice" else [name]:
                info = tarfile.TarInfo(member)
                info.size = 0 if kind == "link" else 4
                info.type, info.linkname = (tarfile.SYMTYPE, "/etc/passwd") if kind == "link" else (tarfile.REGTYPE, "")
                tar.addfile(info, io.BytesIO(b"text"))
        put(s3, f"clep/k/{done.attempt}/files.tar", buffer.getvalue())
        put(s3, f"clep/k/{MARKER}", json.dumps(done.__dict__).encode())
        with pytest.raises(StoreError, match="damaged"):
            machine(kind).local("clep", "k")
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("conditional", [False, None])
def test_a_server_that_ignores_conditional_writes_is_refused_at_first_use(
    machine: Any, s3: S3, conditional: bool | None
) -> None:
    s3.conditional = conditional
    for use in (lambda store: store.probe(), lambda store: compute(store, a="hello")):
        with pytest.raises(StoreError, match=r"(?s)ignores conditional writes.*s3://lab"):
            use(machine("a"))
    assert machine("b").lookup("clep", "k") == "new"
    s3.conditional = True
    machine("a").probe()  # the work is kept
    assert compute(machine("a")).files


def test_no_more_of_an_object_is_read_than_its_record_says(machine: Any, s3: S3, monkeypatch: Any) -> None:
    done = compute(machine("a"), a="hello", b="world")
    put(s3, f"clep/k/{done.attempt}/a", b"x" * (4 << 20))
    read: list[int] = []
    original = sizes._Size.relative_update
    monkeypatch.setattr(sizes._Size, "relative_update", lambda self, n=1: (read.append(n), original(self, n))[1])
    with pytest.raises(StoreError, match=r"(?s)damaged.*a \(4194304 bytes, 5 expected\)"):
        machine("b").local("clep", "k")
    assert sum(read) <= 5


@pytest.mark.parametrize("data", [b"", b"[" * 99_999, b"x" * 5000, b'{"a":' * 900 + b"1" + b"}" * 900])
def test_documents_that_are_no_json_are_one_error_and_no_output(machine: Any, s3: S3, data: bytes, monkeypatch) -> None:
    monkeypatch.setattr(documents, "JSON_BYTES", 4000)
    monkeypatch.setattr(bucket, "JSON_BYTES", 4000)
    compute(machine("a"), a="hello")
    put(s3, f"clep/k/{MARKER}", data)
    put(s3, "pins/c.json", data)
    put(s3, "runs/1.json", data)
    store = machine("b")
    assert store.lookup("clep", "k") == f"file unreadable: {MARKER}"
    assert store.previous("clep", "k") is None
    assert list(store.documents.newest("runs", 9)) == []
    assert [item.kind for item in store.items(["clep"])]
    with pytest.raises(StoreError, match="can't be read"):
        store.documents.read("pins/c.json")
    assert len(store.bucket.read("pins/c.json")) <= 4001


def test_a_store_of_another_format_is_refused(machine: Any, s3: S3) -> None:
    compute(machine("a"), a="hello")
    put(s3, "store.json", b'{"format": 99}')
    with pytest.raises(StoreError, match=r"(?s)another version.*format 99.*format 1.*s3://lab"):
        machine("b")
    put(s3, "store.json", b"{")
    with pytest.raises(StoreError, match="can't be read"):
        machine("b")


# --- faults


@pytest.mark.parametrize("fault", ["500", "503", "reset", "half", "slow"])
def test_faults_that_pass_are_ridden_out(machine: Any, s3: S3, fault: str) -> None:
    files = {f"f{n}": f"{n}" * 10_000 for n in range(3)}
    kinds = ["PUT"] if fault != "half" else []
    rules = [once(fault, kind, part) for kind in (*kinds, "GET") for part in ("f0", "f2", MARKER)]
    a = machine("a")
    s3.fault = lambda method, path: next((f for rule in rules if (f := rule(method, path))), None)
    compute(a, **files)
    b = machine("b")
    assert isinstance(b.lookup("clep", "k"), Record)
    assert (b.local("clep", "k") / "f2").read_text() == files["f2"]


def test_a_marker_whose_answer_was_lost_is_ours_all_the_same(machine: Any, s3: S3) -> None:
    a = machine("a")
    s3.fault = once("lost", "PUT", MARKER)
    done = compute(a, a="hello")
    s3.fault = lambda method, path: None
    assert machine("b").lookup("clep", "k") == done
    assert (machine("b").local("clep", "k") / "a").read_text() == "hello"


@pytest.mark.parametrize("many", [False, True])
def test_an_outage_costs_no_finished_work(machine: Any, s3: S3, many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "ATTEMPTS", 2)
    files = {f"f{n}": "text" for n in range(transfer.MANY_FILES if many else 3)}
    store = machine("a")
    s3.fault = lambda method, path: "503" if method in ("PUT", "POST") else None
    with pytest.raises(StoreError, match=r"(?s)could not be uploaded.*uploads the output, which is kept in"):
        compute(store, **files)
    s3.fault = lambda method, path: None
    assert machine("b").lookup("clep", "k") == "new"

    def forbidden(*args: Any) -> Any:
        raise AssertionError("it is computed again")

    again = machine("a")
    monkeypatch.setattr(again, "partial", forbidden)
    compute(again, **files)
    assert {p.name for p in machine("b").local("clep", "k").iterdir()} == {*files, MARKER}


def test_a_kill_between_upload_and_marker_is_made_up(machine: Any, s3: S3, monkeypatch: Any) -> None:
    class Killed(BaseException):
        pass

    def killed(*args: Any) -> Any:
        raise Killed

    store = machine("a")
    monkeypatch.setattr(store, "_mark", killed)
    with pytest.raises(Killed):
        compute(store, a="hello")
    assert machine("b").lookup("clep", "k") == "new"
    done = compute(machine("a"))  # computes nothing: what is there is uploaded
    assert set(done.files) == {"a"}
    assert (machine("b").local("clep", "k") / "a").read_text() == "hello"


def test_work_that_was_altered_after_an_outage_is_computed_again(machine: Any, s3: S3, monkeypatch: Any) -> None:
    store = machine("a")
    monkeypatch.setattr(store, "_mark", lambda record: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        compute(store, a="hello")
    (store.root / "clep" / "k.partial" / "a").write_text("hullo")
    assert machine("a").complete("clep", "k") is None


def test_nobody_there_is_one_error_in_seconds(tmp_path: Path, s3: S3, monkeypatch: Any) -> None:
    import socket

    with socket.socket() as silent:  # takes connections, answers nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for url in ("http://127.0.0.1:1", f"http://127.0.0.1:{silent.getsockname()[1]}"):
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            started = time.monotonic()
            with pytest.raises(StoreError, match=r"(?s)can't be reached.*s3://lab.*AWS_"):
                open_store(URL, cache=tmp_path)
            assert time.monotonic() - started < 60
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    with pytest.raises(StoreError, match="no such bucket"):
        open_store("s3://nowhere/store", cache=tmp_path)
    for url in ("s3://me:hush@lab/store", "s3://lab/store?token=hush"):
        with pytest.raises(StoreError, match="no credentials") as caught:
            open_store(url, cache=tmp_path)
        assert "hush" not in str(caught.value)


# --- the cache


def test_the_cache_is_bounded_and_what_is_in_use_stays(machine: Any, s3: S3) -> None:
    maker = machine("maker")
    for number in range(6):
        compute(maker, f"k{number}", out=str(number) * 10_000)
    small = machine("b", cache_gigabytes=25_000 / 1e9)
    used = small.local("clep", "k0")
    (used.parent / "kept.partial").mkdir()

    def another(key: str) -> Path:  # another process, which has ended since
        reader = machine("b", cache_gigabytes=25_000 / 1e9)
        folder: Path = reader.local("clep", key)
        reader.cache._list.close()
        return folder

    folders = [another(f"k{number}") for number in range(1, 5)]
    assert used.exists() and (used.parent / "kept.partial").exists()
    assert [folder.exists() for folder in folders] == [False, False, False, True]
    assert (another("k1") / "out").read_text() == "1" * 10_000
    total = sum(p.stat().st_size for p in small.root.glob("clep/*/out"))
    assert total <= 25_000


def test_a_copy_in_the_cache_that_is_short_is_fetched_again(machine: Any, s3: S3) -> None:
    compute(machine("a"), out="hello")
    store = machine("b")
    (store.local("clep", "k") / "out").write_text("hell")
    assert (machine("b").local("clep", "k") / "out").read_text() == "hello"


# --- checkpoints


def test_another_machine_goes_on_from_the_checkpoint(machine: Any, s3: S3) -> None:
    a, b = machine("a"), machine("b")

    def train(store: Store, fail: bool) -> str | None:
        with store.lock("clep", "k"):
            store.lookup("clep", "k")
            folder = store.partial("clep", "k")
            with store.checkpoints("clep", "k"):
                path = folder / "training.resume"
                found = path.read_text() if path.exists() else None
                path.write_text("half")
                (folder / "writing-training.resume").write_text("ha")
                (folder / "download.resume").mkdir(exist_ok=True)
                if fail:
                    raise ValueError("the machine is taken away")
                (folder / "out").write_text("done")
                store.commit(record())
            return found

    with pytest.raises(ValueError, match="taken away"):
        train(a, fail=True)
    assert train(b, fail=False) == "half"
    assert not [name for name in s3.objects("lab") if "resume" in name]
    assert set(machine("c").lookup("clep", "k").files) == {"out"}


def test_checkpoints_are_kept_at_an_interval_and_one_s_own_comes_first(machine: Any, s3: S3) -> None:
    a, b = machine("a", upload_seconds=0.1), machine("b")
    with a.checkpoints("clep", "k"):
        folder = a.partial("clep", "k")
        for text in ("first", "second"):
            (folder / "training.resume").write_text(text)
            place = "a store/clep/k/resume"
            kept = {f"{place}.json", f"{place}/{hashlib.sha256(text.encode()).hexdigest()}"}
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                if {name for name in s3.objects("lab") if name.startswith(place)} == kept:
                    break  # an older one is deleted last
                time.sleep(0.05)
            else:
                raise AssertionError(f"{text} was not kept")
        mine = b.partial("clep", "k") / "training.resume"
        mine.write_text("mine")
        with pytest.raises(ValueError), b.checkpoints("clep", "k"):
            assert mine.read_text() == "mine"
            raise ValueError
        with pytest.raises(ValueError), machine("c").checkpoints("clep", "k"):
            raise ValueError


def test_a_damaged_checkpoint_and_an_outage_cost_the_checkpoint_alone(machine: Any, s3: S3, monkeypatch: Any) -> None:
    a = machine("a")
    a.partial("clep", "k").joinpath("training.resume").write_text("state")
    with pytest.raises(ValueError), a.checkpoints("clep", "k"):
        raise ValueError
    (kept,) = [name for name in s3.objects("lab") if "/resume/" in name]
    put(s3, kept.removeprefix("a store/"), b"STATE")
    b = machine("b")
    folder = b.partial("clep", "k")
    with b.checkpoints("clep", "k"):
        assert list(folder.iterdir()) == []
    for said in (b"[", b'{"../x.resume": "a"}', b'{"a.resume": "../../x"}', b'{"a.resume": 5}', b"[1]"):
        put(s3, "clep/k/resume.json", said)
        with b.checkpoints("clep", "k"):
            assert list(folder.iterdir()) == []
    monkeypatch.setattr(bucket, "ATTEMPTS", 1)
    c = machine("c")
    s3.fault = lambda method, path: "500" if "resume" in path else None
    with c.checkpoints("clep", "k"):
        pass


# --- documents


def test_documents_are_shared(machine: Any, s3: S3) -> None:
    a, b = machine("a").documents, machine("b").documents
    assert b.read("pins/tess.json") is None
    a.write("pins/tess.json", {"x": 1})
    assert b.read("pins/tess.json") == {"x": 1}
    for number in range(4):
        a.write(f"runs/{number}.json", {"number": number})
    put(s3, "runs/9.json", b"{half")
    assert [said["number"] for _, said, _ in b.newest("runs", 3)] == [3, 2]
    put(s3, "pins/tess.json", b"[" * 100_000)
    with pytest.raises(StoreError, match=r"(?s)can't be read.*pins/tess.json"):
        b.read("pins/tess.json")
    with pytest.raises(StoreError, match="name of a document"):
        b.read("../other/secret.json")
