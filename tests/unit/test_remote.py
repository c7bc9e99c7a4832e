"""Protects sources of many files: lists, Dataverse datasets and buckets; each file is whole or it is not there."""

import csv
import errno
import io
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import pytest

from clepdg import hashing
from clepdg.config import manifests
from clepdg.corpora.cards import Address, Card, load_card
from clepdg.download import fetch as fetching
from clepdg.download import file_lists, many_files, one_file
from clepdg.download import source as sources
from clepdg.errors import SourceError
from clepdg.store.documents import Documents
from tests.unit.servers import Answer, Server

CARD = replace(load_card("crema-d"), sources=())
FILES = {f"AudioWAV/{1001 + number}_DFA_ANG_XX.wav": f"sound {number} ".encode() * 900 for number in range(20)}
GIVEN = {name: data for name, data in FILES.items()}
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"


@pytest.fixture
def own_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that stands for data_manifests."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    monkeypatch.setattr(manifests, "MANIFESTS", folder)
    return folder


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(buffer.getvalue())
    return path


def rows_of(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    return [{"path": p, "bytes": len(data), "sha256": sha256(data).hexdigest()} for p, data in files.items()]


@pytest.fixture
def listed(server: Server, own_manifests: Path) -> Card:
    """Return a card whose address is a table of files, all of which the server has."""
    server.serve(FILES)
    write_table(own_manifests / "crema-d.files.csv", rows_of(FILES))
    return replace(CARD, sources=(Address(url=server.base, files="crema-d.files.csv"),))


def fetch(card: Card, given: str | None, out: Path, **options: Any) -> dict[str, Any]:
    options.setdefault("sleep", lambda seconds: None)
    return fetching.fetch(card, given, out, **options)


def assert_whole(out: Path, files: Mapping[str, bytes] = FILES) -> None:
    root = sources.root(out)
    assert {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()} == files
    table = sources.read_files(out)
    assert dict(zip(table.path, table.sha256, strict=True)) == {n: sha256(d).hexdigest() for n, d in files.items()}


# --- a table of files


def test_all_files_of_a_table_come_several_at_once(listed: Card, server: Server, tmp_path: Path) -> None:
    for answers in server.routes.values():
        answers[0].wait = 0.05
    seen: list[tuple[int, int]] = []
    figures = fetch(listed, None, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert figures == {"files": 20, "bytes": sum(map(len, FILES.values()))}
    assert_whole(tmp_path / "out")
    assert 2 <= server.most_at_once <= many_files.PARALLEL_FILES
    downloading = [done for done, total in seen if total == figures["bytes"]]
    assert figures["bytes"] in downloading
    assert len(server.paths) == 20


def test_progress_is_told_in_the_callers_context(listed: Card, tmp_path: Path) -> None:
    """A run's page is found by it."""
    run = ContextVar("run", default="none")
    run.set("mine")
    seen: set[str] = set()
    fetch(listed, None, tmp_path / "out", progress=lambda done, total: seen.add(run.get()))
    assert seen == {"mine"}


def test_a_killed_run_goes_on_with_the_first_file_that_is_missing(listed: Card, server: Server, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    for answers in server.routes.values():
        answers[0].wait = 0.05

    def killing(done: int, total: int) -> None:
        if done > total / 3:
            raise Killed

    with pytest.raises(Killed):
        fetch(listed, None, tmp_path / "out", progress=killing)
    assert not (tmp_path / "out" / sources.TREE).exists()
    before = set(server.paths)
    kept = list((tmp_path / "out").glob("files-*.resume/*"))
    assert kept and len(before) < 20
    server.paths.clear()
    fetch(listed, None, tmp_path / "out")
    assert_whole(tmp_path / "out")
    whole = [path for path in kept if path.is_file()]
    assert len(server.paths) == 20 - len(whole)


def test_a_file_whose_bytes_were_lost_in_a_power_cut_comes_again(listed: Card, server: Server, tmp_path: Path) -> None:
    fetch(listed, None, tmp_path / "out")
    whole = next(path for path in (tmp_path / "out").glob("files-*.resume/*") if path.is_file())
    whole.unlink()
    whole.write_bytes(b"\0" * 9000)
    server.paths.clear()
    fetch(listed, None, tmp_path / "out")
    assert_whole(tmp_path / "out")
    assert len(server.paths) == 1


def test_an_earlier_output_is_used_without_a_request(listed: Card, server: Server, tmp_path: Path) -> None:
    fetch(listed, None, tmp_path / "first")
    server.paths.clear()
    fetch(listed, None, tmp_path / "second", previous=tmp_path / "first")
    assert_whole(tmp_path / "second")
    assert not server.paths
    spoiled = sorted((tmp_path / "first" / sources.TREE).rglob("*.wav"))[3]
    spoiled.unlink()
    spoiled.write_bytes(b"spoiled")
    fetch(listed, None, tmp_path / "third", previous=tmp_path / "first")
    assert_whole(tmp_path / "third")
    assert len(server.paths) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(body=POINTER), "git lfs pointer"),
        (Answer(body=b"<html>sign in</html>"), "web page"),
        (Answer(body=b"other bytes"), "11 bytes"),
        (Answer(body=b"X" + FILES["AudioWAV/1004_DFA_ANG_XX.wav"][1:]), "sha256"),
        (Answer(status=404), "HTTP 404"),
    ],
)
def test_one_bad_file_is_named_and_the_others_are_kept(
    answer: Answer, words: str, listed: Card, server: Server, tmp_path: Path
) -> None:
    bad = "/AudioWAV/1004_DFA_ANG_XX.wav"
    good, server.routes[bad] = server.routes[bad], [answer]
    with pytest.raises(SourceError, match=rf"(?s)1004_DFA_ANG_XX.wav: .*{words}.*19 files are kept"):
        fetch(listed, None, tmp_path / "out")
    assert not (tmp_path / "out" / sources.FILES).exists()
    server.routes[bad] = good
    server.paths.clear()
    fetch(listed, None, tmp_path / "out")
    assert_whole(tmp_path / "out")
    assert server.paths == [bad]


def test_a_server_that_is_down_is_given_up_after_a_few_files(listed: Card, server: Server, tmp_path: Path) -> None:
    server.routes = {}
    server.answers = [Answer(status=503)]
    with pytest.raises(SourceError, match="503"):
        fetch(listed, None, tmp_path / "out")
    assert len(set(server.paths)) <= many_files.FAILED_FILES + many_files.PARALLEL_FILES


def test_retry_after_is_heeded_for_single_files(listed: Card, server: Server, tmp_path: Path) -> None:
    busy = "/AudioWAV/1002_DFA_ANG_XX.wav"
    server.routes[busy].insert(0, Answer(status=429, headers={"Retry-After": "7"}))
    waits: list[float] = []
    fetch(listed, None, tmp_path / "out", sleep=waits.append)
    assert_whole(tmp_path / "out")
    assert waits == [7.0]


def test_a_break_in_one_file_is_resumed(listed: Card, server: Server, tmp_path: Path) -> None:
    broken = "/AudioWAV/1002_DFA_ANG_XX.wav"
    etag = server.routes[broken][0].etag
    server.routes[broken].insert(0, Answer(body=FILES[broken[1:]], send=4000, etag=etag))
    fetch(listed, None, tmp_path / "out")
    assert_whole(tmp_path / "out")
    assert ("GET", "bytes=4000-") in server.requests


def test_a_full_disk_is_one_error_and_ends_all_downloads(
    listed: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced: list[Any] = []

    def full(source: Any, target: Any) -> None:
        if not Path(target).suffix:  # a file gets its name
            if len(replaced) >= 4:
                raise OSError(errno.ENOSPC, "No space left on device")
            replaced.append(target)
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SourceError, match="disk is full"):
        fetch(listed, None, tmp_path / "out")
    monkeypatch.undo()
    assert not [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]
    assert len([path for path in (tmp_path / "out").glob("files-*.resume/*") if path.is_file()]) == 4


def test_state_and_reach_of_a_table(listed: Card, server: Server, own_manifests: Path) -> None:
    first = sources.identify(listed, None)
    assert not server.requests
    sources.check_reachable(listed, None)
    assert [method for method, _ in server.requests] == ["HEAD"]
    write_table(own_manifests / "crema-d.files.csv", rows_of(FILES)[1:])
    assert sources.identify(listed, None) != first


# --- the user's own list


def test_the_users_own_list_needs_no_checksums(server: Server, tmp_path: Path) -> None:
    server.serve(FILES)
    rows = [{"url": server.base + name, "path": name if number % 2 else ""} for number, name in enumerate(FILES)]
    table = write_table(tmp_path / "my list.csv", rows)
    fetch(CARD, str(table), tmp_path / "out")
    assert_whole(tmp_path / "out", {n if k % 2 else Path(n).name: d for k, (n, d) in enumerate(FILES.items())})
    assert sources.identify(CARD, str(table)) == {
        "kind": "list",
        "name": "my list.csv",
        "sha256": hashing.digest_file(table),
    }


def test_all_faults_of_a_list_are_named(tmp_path: Path) -> None:
    rows = [
        {"path": "a.wav", "url": "http://127.0.0.1:1/a.wav", "bytes": "5"},
        {"path": "../b.wav", "url": "http://127.0.0.1:1/b.wav", "bytes": ""},
        {"path": "c.wav", "url": "c.wav", "bytes": ""},
        {"path": "d.wav", "url": "", "bytes": ""},
        {"path": "a.wav", "url": "http://127.0.0.1:1/e.wav", "bytes": "many"},
        {"path": "a.wav", "url": "http://127.0.0.1:1/f.wav", "bytes": ""},
    ]
    table = write_table(tmp_path / "list.csv", rows)
    for call in (lambda: sources.identify(CARD, str(table)), lambda: fetch(CARD, str(table), tmp_path / "out")):
        with pytest.raises(SourceError) as caught:
            call()
        for words in ("../b.wav: leads out", "line 4: c.wav is not an address", "line 5: no url", "line 6: many"):
            assert words in str(caught.value)
        assert "a.wav: is there twice" in str(caught.value)


def test_a_list_made_on_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbfpath;url\r\nann\\a 1.wav;http://127.0.0.1:9/1.wav\r\n")
    assert [file.path for file in file_lists.list_table(CARD, tmp_path / "list.csv")] == ["ann/a 1.wav"]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('a.wav,"http://127.0.0.1:9/a', "line 2: a quotation mark is not closed"),
        ("a.wav,http://127.0.0.1:9/a,5", "line 2: 3 cells, not 2"),
        ("C:\\a.wav,http://127.0.0.1:9/a", "leads out of the corpus's folder"),
        ("a,http://127.0.0.1:9/a\na/b,http://127.0.0.1:9/b", "a: is a file, and a folder of another one"),
    ],
)
def test_a_list_whose_lines_can_t_be_used_is_one_error(lines: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"path,url\n{lines}\n")
    with pytest.raises(SourceError, match=says):
        file_lists.list_table(CARD, tmp_path / "list.csv")


def test_a_wrong_checksum_of_the_users_own_list_is_that_lists(server: Server, tmp_path: Path) -> None:
    server.serve(FILES)
    rows = [{"url": server.base + name, "md5": "0" * 32} for name in FILES]
    with pytest.raises(SourceError, match=r"(?s)is not the one that its list names.*md5 0000"):
        fetch(CARD, str(write_table(tmp_path / "list.csv", rows[:1])), tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "value"), [("md5", "0" * 31), ("sha256", "0" * 32), ("md5", "not a sum at all, is it?")]
)
def test_a_malformed_checksum_of_a_list_is_refused_before_anything_is_asked(
    kind: str, value: str, server: Server, tmp_path: Path
) -> None:
    table = write_table(tmp_path / "list.csv", [{"url": server.url, kind: value}])
    with pytest.raises(SourceError, match=f"line 2: {value[:31]}.* is not a {kind}"):
        fetch(CARD, str(table), tmp_path / "out")
    assert not server.requests


@pytest.mark.parametrize("content", [b"", b"url\n", b"file,link\na,b\n", b"\xff\xfe\x00"])
def test_what_is_no_list_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(SourceError, match="list.csv"):
        sources.identify(CARD, str(tmp_path / "list.csv"))


# --- Dataverse


SPEECH = {name: data for name, data in list(FILES.items())[:4]}


def dataset(files: Mapping[str, bytes]) -> bytes:
    """Return a listing of the shape that Dataverse's native API gives."""
    items: list[dict[str, Any]] = [
        {
            "label": Path(name).name,
            "directoryLabel": Path(name).parent.as_posix(),
            "dataFile": {
                "id": 96000 + number,
                "filename": Path(name).name,
                "contentType": "audio/x-wav",
                "filesize": len(data),
                "md5": md5(data).hexdigest(),
                "checksum": {"type": "MD5", "value": md5(data).hexdigest()},
            },
        }
        for number, (name, data) in enumerate(files.items())
    ]
    items.append({"label": "about.txt", "dataFile": {"id": 1, "filename": "about.txt", "filesize": 3, "md5": "x"}})
    return json.dumps(
        {"status": "OK", "data": {"latestVersion": {"versionState": "RELEASED", "files": items}}}
    ).encode()


@pytest.fixture
def dataverse(server: Server) -> Card:
    publish(server, SPEECH)
    return replace(CARD, sources=(Address(url=server.base, dataverse="doi:10.5683/SP2/E8H2MF"),))


def publish(server: Server, files: Mapping[str, bytes]) -> None:
    server.serve({f"api/access/datafile/{96000 + number}": data for number, data in enumerate(files.values())})
    listing = "/api/datasets/:persistentId/?persistentId=doi:10.5683/SP2/E8H2MF"
    server.routes[listing] = [Answer(body=dataset(files))]


def test_a_dataset_gives_its_audio_under_its_md5_sums(dataverse: Card, server: Server, tmp_path: Path) -> None:
    fetch(dataverse, None, tmp_path / "out", pins=Documents(tmp_path))
    assert_whole(tmp_path / "out", SPEECH)
    (record,) = json.loads((tmp_path / "pins" / "crema-d.json").read_text()).values()
    assert record["bytes"] == sum(map(len, SPEECH.values()))
    server.routes["/api/access/datafile/96002"] = [Answer(body=b"X" + list(SPEECH.values())[2][1:])]
    with pytest.raises(SourceError, match=r"(?s)1003_DFA_ANG_XX.wav.*md5"):
        fetch(dataverse, None, tmp_path / "other")


def test_a_busy_repository_is_asked_again(dataverse: Card, server: Server, tmp_path: Path) -> None:
    listing = next(path for path in server.routes if "persistentId" in path)
    server.routes[listing].insert(0, Answer(status=503, headers={"Retry-After": "9"}))
    waits: list[float] = []
    fetch(dataverse, None, tmp_path / "out", sleep=waits.append)
    assert_whole(tmp_path / "out", SPEECH)
    assert waits == [9.0]


def test_a_dataset_that_changed_never_replaces_what_was_recorded(
    dataverse: Card, server: Server, tmp_path: Path
) -> None:
    fetch(dataverse, None, tmp_path / "out", pins=Documents(tmp_path))
    publish(server, {**SPEECH, "AudioWAV/1004_DFA_ANG_XX.wav": b"newly recorded"})
    with pytest.raises(SourceError, match=r"(?s)changed since the first download.*crema-d.json.*delete"):
        fetch(dataverse, None, tmp_path / "again", pins=Documents(tmp_path))
    (tmp_path / "pins" / "crema-d.json").unlink()
    fetch(dataverse, None, tmp_path / "again", pins=Documents(tmp_path))


@pytest.mark.parametrize("body", [b"[]", b"{}", b"<html>", b'{"data": {"latestVersion": {"files": []}}}'])
def test_what_is_no_dataset_is_one_clear_error(body: bytes, dataverse: Card, server: Server, tmp_path: Path) -> None:
    server.routes = {}
    server.answers = [Answer(body=body)]
    with pytest.raises(SourceError, match="crema-d"):
        fetch(dataverse, None, tmp_path / "out")


# --- buckets


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Start moto's S3 server and return its address."""
    from moto.server import ThreadedMotoServer

    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    yield f"http://{host}:{port}"
    started.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a client of a new bucket `speech`, which everything else in the process reaches by its settings."""
    import botocore.session

    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    client = botocore.session.get_session().create_client("s3")
    client.create_bucket(Bucket="speech")
    yield client
    for item in client.list_objects_v2(Bucket="speech").get("Contents", []):
        client.delete_object(Bucket="speech", Key=item["Key"])
    client.delete_bucket(Bucket="speech")


def test_a_folder_of_a_bucket(bucket: Any, tmp_path: Path) -> None:
    for name, data in FILES.items():
        bucket.put_object(Bucket="speech", Key=f"crema/{name}", Body=data)
    bucket.put_object(Bucket="speech", Key="crema/.DS_Store", Body=b"x")
    first = sources.identify(CARD, "s3://speech/crema")
    sources.check_reachable(CARD, "s3://speech/crema")
    assert set(first) == {"kind", "url", "listing"}
    fetch(CARD, "s3://speech/crema", tmp_path / "out")
    assert_whole(tmp_path / "out")
    assert sources.identify(CARD, "s3://speech/crema") == first
    bucket.put_object(Bucket="speech", Key="crema/AudioWAV/1001_DFA_ANG_XX.wav", Body=b"changed")
    assert sources.identify(CARD, "s3://speech/crema") != first
    fetch(CARD, "s3://speech/crema", tmp_path / "again", previous=tmp_path / "out")
    assert_whole(tmp_path / "again", FILES | {"AudioWAV/1001_DFA_ANG_XX.wav": b"changed"})


def test_markers_of_folders_in_a_bucket_are_no_files(bucket: Any, tmp_path: Path) -> None:
    for key in ("crema/", "crema/AudioWAV/", "crema/AudioWAV"):
        bucket.put_object(Bucket="speech", Key=key, Body=b"")
    bucket.put_object(Bucket="speech", Key="crema/AudioWAV/1001_DFA_ANG_XX.wav", Body=b"x")
    fetch(CARD, "s3://speech/crema", tmp_path / "out")
    assert_whole(tmp_path / "out", {"AudioWAV/1001_DFA_ANG_XX.wav": b"x"})


def test_only_what_changed_in_a_bucket_is_read_again(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, data in SPEECH.items():
        bucket.put_object(Bucket="speech", Key=f"crema/{name}", Body=data)
    fetch(CARD, "s3://speech/crema", tmp_path / "out")
    bucket.put_object(Bucket="speech", Key="crema/AudioWAV/1001_DFA_ANG_XX.wav", Body=b"changed")
    read: list[str] = []
    download = one_file.download

    def counted(card: Card, address: Address, *others: Any, **more: Any) -> Path:
        read.append(address.url)
        return download(card, address, *others, **more)

    monkeypatch.setattr(one_file, "download", counted)
    fetch(CARD, "s3://speech/crema", tmp_path / "again", previous=tmp_path / "out")
    assert read == ["s3://speech/crema/AudioWAV/1001_DFA_ANG_XX.wav"]


@pytest.mark.parametrize("url", ["s3://speech/nothing.zip", "s3://nowhere/crema.zip"])
def test_what_a_bucket_does_not_have_is_one_clear_error(url: str, bucket: Any, tmp_path: Path) -> None:
    for call in (
        lambda: sources.identify(CARD, url),
        lambda: sources.check_reachable(CARD, url),
        lambda: fetch(CARD, url, tmp_path / "out"),
    ):
        with pytest.raises(SourceError, match=r"(?s)crema-d is not available.*" + url):
            call()


def test_a_store_that_does_not_answer_is_one_clear_error(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SourceError, match=r"(?s)can't be reached.*s3://speech/crema.zip"):
        sources.identify(CARD, "s3://speech/crema.zip")


def test_a_bucket_without_credentials_says_which_are_missing(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "CONFIG_FILE": "/no",
        "SHARED_CREDENTIALS_FILE": "/no",
        "EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with pytest.raises(
        SourceError, match=r"(?s)can't be reached.*do: set the credentials.*AWS_ACCESS_KEY_ID"
    ) as caught:
        sources.identify(CARD, "s3://speech/crema.zip")
    assert "try again later" not in str(caught.value)
