"""Protects clep-dg fetch --check: each way of asking for sizes and hashes, with right and with wrong values."""

import base64
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import pytest

from clepdg.config import presets
from clepdg.corpora.cards import Address, Card, load_card
from clepdg.download import fetch as fetching
from clepdg.download import http_client, lockfile
from clepdg.download.check import cards
from clepdg.download.check.jobs import Checked, Job, compare, run_jobs
from clepdg.store.documents import Documents
from clepdg_flows.cli import fetch
from clepdg_flows.cli.main import main
from tests.unit.servers import ARCHIVE, Answer, Handler, Server
from tests.unit.test_remote import (  # noqa: F401
    FILES,
    SPEECH,
    bucket,
    dataverse,
    listed,
    own_manifests,
    publish,
    rows_of,
    s3,
    write_table,
)

CARD = replace(load_card("emodb"), sources=())
MD5, SHA256, SIZE = md5(ARCHIVE).hexdigest(), sha256(ARCHIVE).hexdigest(), len(ARCHIVE)
OTHER = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "var"))


def check(address: Address, card: Card = CARD, documents: Documents | None = None) -> Checked:
    card = replace(card, sources=(address,))
    return cards.check(card, address, documents, sleep=lambda seconds: None)


def plain(server: Server, **answer: Any) -> Address:
    """Return the address of an archive that the server answers for."""
    server.answers = [Answer(**answer)]
    return Address(url=server.url)


# --- headers


@pytest.mark.parametrize(
    ("answer", "facts", "result", "good"),
    [
        ({"etag": f'"{MD5}"'}, {"md5": MD5, "bytes": SIZE}, "ok (bytes, md5 as in the card)", True),
        ({"etag": f'"{MD5}"'}, {"md5": MD5.upper()}, "ok (md5 as in the card)", True),
        (
            {"etag": f'"{MD5}"'},
            {"md5": OTHER[:32], "bytes": 1},
            f"differs: bytes 1 -> {SIZE}, md5 {OTHER[:32]} -> {MD5} (compared with the card)",
            False,
        ),
        ({"etag": f'"{MD5}"'}, {}, f"ok (nothing to compare in the card; it reports bytes {SIZE}, md5 {MD5})", True),
        (
            {"headers": {"Content-MD5": base64.b64encode(md5(ARCHIVE).digest()).decode()}},
            {"md5": MD5},
            "ok (md5 as in the card)",
            True,
        ),
        ({"headers": {"Content-MD5": MD5}}, {"md5": MD5}, "ok (md5 as in the card)", True),
        ({"headers": {"Content-MD5": "bm9uZQ=="}}, {"md5": MD5, "bytes": SIZE}, "says no hash (bytes as in", True),
        ({"etag": f'W/"{MD5}"'}, {"md5": OTHER[:32]}, "says no hash (nothing to compare", True),
        ({"etag": f'"{OTHER}"'}, {"sha256": SHA256, "bytes": SIZE}, "says no hash (bytes as in the card)", True),
        ({}, {}, f"says no hash (nothing to compare in the card; it reports bytes {SIZE})", True),
        ({}, {"bytes": 5}, f"differs: bytes 5 -> {SIZE}", False),
        (
            {"etag": None, "length": False},
            {"bytes": 5},
            "says no hash (nothing to compare in the card; it reports",
            True,
        ),
        ({"status": 404}, {}, "not reachable: HTTP 404", False),
        ({"status": 401}, {}, "not reachable: HTTP 401", False),
        ({"status": 503, "headers": {"Retry-After": "60"}}, {}, "not reachable: HTTP 503, asks to wait 60 s", False),
    ],
)
def test_what_headers_say(
    answer: dict[str, Any], facts: dict[str, Any], result: str, good: bool, server: Server
) -> None:
    got = check(replace(plain(server, **answer), **facts))
    assert got.result.startswith(result) and got.good is good
    assert (got.what, got.where) == ("emodb", server.url)
    if answer.get("status", 200) == 200:
        assert server.requests == [("HEAD", None)]


def test_a_server_that_refuses_head_is_asked_by_get_without_a_download(server: Server, monkeypatch: Any) -> None:
    class GetOnly(Handler):
        def do_HEAD(self) -> None:
            self.answer(Answer(status=405), None)

    monkeypatch.setattr(server, "RequestHandlerClass", GetOnly)
    got = check(replace(plain(server, send=1000, stall=True, etag=f'"{MD5}"'), md5=MD5, bytes=SIZE))
    assert got.result == "ok (bytes, md5 as in the card)"


def test_a_busy_server_is_asked_again(server: Server) -> None:
    address = replace(plain(server), bytes=SIZE)
    server.answers = [Answer(status=503), Answer()]
    assert check(address).good


def test_one_that_is_gone_is_told(server: Server, monkeypatch: Any) -> None:
    got = check(Address(url="http://127.0.0.1:1/a.zip"))
    assert got.result.startswith("not reachable: ConnectError") and not got.good
    monkeypatch.setattr(http_client, "INSPECT_SECONDS", 0.2)
    assert check(plain(server, wait=1.0)).result.startswith("not reachable: ReadTimeout")


def test_a_mirror_is_asked_and_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEPDG_MIRRORS", f"https://site.example={server.base}kept")
    server.serve({"kept/a.zip": ARCHIVE})
    got = check(Address(url="https://site.example/a.zip", bytes=SIZE))
    assert got.where == f"https://site.example/a.zip (mirror: {server.base}kept/a.zip)" and got.good


# --- the hub of Hugging Face


@pytest.mark.parametrize(
    ("facts", "result"),
    [
        ({"sha256": SHA256, "bytes": SIZE}, "ok (bytes, sha256 as in the card)"),
        ({"sha256": OTHER}, f"differs: sha256 {OTHER} -> {SHA256}"),
        ({"bytes": SIZE + 1}, f"differs: bytes {SIZE + 1} -> {SIZE}"),
    ],
)
def test_the_hub_names_the_hash_of_what_it_redirects_to(facts: dict[str, Any], result: str, server: Server) -> None:
    linked = {"X-Linked-Etag": f'"{SHA256}"', "X-Linked-Size": str(SIZE), "Location": "/storage"}
    server.routes = {
        "/moved/file": [Answer(status=307, headers={"Location": "/file"}, body=b"moved", etag=None)],
        "/file": [Answer(status=302, headers=linked, body=b"elsewhere", etag=f'"{OTHER[:32]}"')],
    }
    server.answers = [Answer(status=500)]
    got = check(Address(url=f"{server.base}moved/file", **facts))
    assert got.result.startswith(result) and got.good is result.startswith("ok")
    assert len(server.requests) == 2  # the storage is not asked


# --- Zenodo


RECORD = {"files": [{"key": "a b.zip", "size": SIZE, "checksum": f"md5:{MD5}"}]}
ZENODO = Address(url="https://zenodo.org/records/7/files/a%20b.zip?download=1", bytes=SIZE, md5=MD5)


@pytest.fixture
def zenodo(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("CLEPDG_MIRRORS", f"https://zenodo.org={server.base}")
    server.answers = [Answer(status=404)]
    server.routes = {
        "/records/7/files/a%20b.zip?download=1": [Answer()],
        "/api/records/7": [Answer(body=json.dumps(RECORD).encode())],
    }
    return server


def test_zenodo_lists_sizes_and_hashes(zenodo: Server) -> None:
    assert check(ZENODO).result == "ok (bytes, md5 as in the card)"
    assert check(replace(ZENODO, md5=OTHER[:32])).result.startswith(f"differs: md5 {OTHER[:32]} -> {MD5}")
    assert check(replace(ZENODO, bytes=3)).result.startswith(f"differs: bytes 3 -> {SIZE}")
    zenodo.routes["/records/7/files/a%20b.zip?download=1"] = [Answer(status=404)]
    assert check(ZENODO).result == "not reachable: HTTP 404"  # the address itself is asked, too


@pytest.mark.parametrize(
    "answer",
    [Answer(body=b"{}"), Answer(body=b"[]"), Answer(body=b'{"files": [3]}'), Answer(body=b'{"files": []}')],
)
def test_another_answer_of_zenodo_is_told(answer: Answer, zenodo: Server) -> None:
    zenodo.routes["/api/records/7"] = [answer]
    got = check(ZENODO)
    assert got.result.startswith("not reachable: ") and "api/records/7" in got.result and not got.good


def test_a_mirror_without_zenodos_api_says_no_hash_and_zenodo_without_it_is_a_fault(
    zenodo: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in (Answer(status=404), Answer(body=b"<html>")):
        zenodo.routes["/api/records/7"] = [answer]
        assert check(ZENODO).result == "says no hash (bytes as in the card)"
    monkeypatch.setattr(cards, "mirror_of", lambda url: None)
    got = check(ZENODO)
    assert got.result.startswith("not reachable: The listing of emodb can't be read") and not got.good


# --- records of first downloads


def test_a_record_binds_where_the_card_has_no_hash(server: Server, tmp_path: Path) -> None:
    documents, address = Documents(tmp_path), plain(server, etag=f'"{MD5}"')
    lockfile.update(documents, "emodb", address, sha256=SHA256, bytes=SIZE)
    got = check(address, documents=documents)
    assert got.result.startswith("ok (bytes as in recorded 20") and "emodb.json" in got.result
    lockfile.update(documents, "emodb", address, sha256=SHA256, bytes=SIZE - 1)
    got = check(address, documents=documents)
    assert got.result.startswith(f"differs: bytes {SIZE - 1} -> {SIZE} (compared with recorded") and not got.good
    assert check(replace(address, md5=MD5), documents=documents).result == "ok (md5 as in the card)"
    (tmp_path / "pins" / "emodb.json").write_text("no json")
    got = check(address, documents=documents)
    assert "record of first downloads is damaged" in got.result and not got.good


# --- Dataverse


@pytest.fixture
def dataset(dataverse: Card) -> Card:  # noqa: F811
    return replace(dataverse, expected=replace(dataverse.expected, utterances=len(SPEECH)))


def of_dataset(card: Card, documents: Documents | None = None) -> Checked:
    return cards.check(card, card.sources[0], documents, sleep=lambda seconds: None)


def test_a_datasets_listing_is_held_to_the_card_and_the_record(dataset: Card, server: Server, tmp_path: Path) -> None:
    size, documents = sum(map(len, SPEECH.values())), Documents(tmp_path)
    got = of_dataset(dataset)
    assert got.result == f"ok (4 files, as in the card, {size} bytes, hashes of 4; bytes of 3 addresses)" and got.good
    assert server.paths == ["/api/datasets/:persistentId/?persistentId=doi:10.5683/SP2/E8H2MF"]
    fetching.fetch(dataset, None, tmp_path / "out", pins=documents)
    got = of_dataset(dataset, documents)
    assert got.good and "listing as recorded 20" in got.result
    name = list(SPEECH)[0]
    publish(server, {**SPEECH, name: b"X" + SPEECH[name][1:]})
    got = of_dataset(dataset, documents)
    assert got.result.startswith("differs: listing ") and not got.good
    publish(server, {**SPEECH, "AudioWAV/1009_DFA_ANG_XX.wav": b"newly recorded"})
    assert of_dataset(dataset).result.startswith("differs: files 4 -> 5 ")


def test_a_datasets_addresses_are_asked_and_hashes_that_lack_are_told(dataset: Card, server: Server) -> None:
    listing = next(path for path in server.routes if "persistentId" in path)
    said = server.routes[listing][0].body
    server.routes[listing] = [Answer(body=said.replace(b"MD5", b"SHA-1").replace(b'"md5"', b'"other"'))]
    got = of_dataset(dataset)
    assert got.result.startswith("says no hash (4 files") and "hashes of 0" in got.result and got.good
    server.routes[listing] = [Answer(body=said)]
    server.routes["/api/access/datafile/96000"] = [Answer(body=b"short")]
    got = of_dataset(dataset)
    assert got.result.startswith("differs: AudioWAV/") and "-> 5" in got.result and not got.good
    server.routes["/api/access/datafile/96000"] = [Answer(status=404)]
    got = of_dataset(dataset)
    assert got.result.startswith("not reachable: ") and "HTTP 404" in got.result and "datafile/96000" in got.result
    server.routes[listing] = [Answer(body=b"{}")]
    assert "not the listing of a dataset" in of_dataset(dataset).result


# --- tables of files, git lfs


class Lfs(Handler):
    """Answers batches of git lfs from the server's `objects`, and notes what it was asked."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        with server.lock:
            server.asked.append((self.path, self.headers["Accept"], self.headers["Content-Type"], asked))
        said = [server.objects[each["oid"]] for each in asked["objects"] if each["oid"] in server.objects]
        body = server.body or json.dumps({"transfer": "basic", "objects": said}).encode()
        self.command = "GET"  # which has a body
        self.answer(Answer(status=server.status, body=body), None)


@pytest.fixture
def lfs(listed: Card, server: Server, monkeypatch: pytest.MonkeyPatch) -> Card:  # noqa: F811
    """Return a card whose files are git lfs objects, all of which the server has."""
    monkeypatch.setattr(server, "RequestHandlerClass", Lfs)
    monkeypatch.setattr(cards, "LFS_GROUP", 7)
    sums = {sha256(data).hexdigest(): len(data) for data in FILES.values()}
    objects = {name: {"oid": name, "size": size, "actions": {}} for name, size in sums.items()}
    for name, value in {"objects": objects, "asked": [], "status": 200, "body": b""}.items():
        setattr(server, name, value)
    return replace(listed, sources=(replace(listed.sources[0], lfs=f"{server.base}repo.git"),))


def of_files(card: Card) -> Checked:
    return cards.check(card, card.sources[0], None, sleep=lambda seconds: None)


def test_git_lfs_is_asked_for_all_objects_in_groups(lfs: Card, server: Any) -> None:
    got = of_files(lfs)
    assert got.result == "ok (bytes and sha256 of 20 objects in git lfs; bytes of 3 of 20 addresses)" and got.good
    assert sorted(len(asked["objects"]) for _, _, _, asked in server.asked) == [6, 7, 7]
    assert {(path, accept, kind) for path, accept, kind, _ in server.asked} == {
        ("/repo.git/info/lfs/objects/batch", cards.LFS_TYPE, cards.LFS_TYPE)
    }
    assert all(asked["operation"] == "download" and asked["transfers"] == ["basic"] for *_, asked in server.asked)
    assert server.requests == [("HEAD", None)] * 3
    assert server.paths == []


@pytest.mark.parametrize("wrong", ["size", "missing", "error"])
def test_an_object_that_git_lfs_has_not_is_a_difference(wrong: str, lfs: Card, server: Any) -> None:
    path, data = list(FILES.items())[5]
    name, size = sha256(data).hexdigest(), len(data)
    says = {"size": f"{path}: bytes {size} -> 1", "missing": f"{path}: not answered", "error": f"{path}: 404 is gone"}
    match wrong:
        case "size":
            server.objects[name]["size"] = 1
        case "missing":
            del server.objects[name]
        case _:
            server.objects[name] = {"oid": name, "size": size, "error": {"code": 404, "message": "is gone"}}
    got = of_files(lfs)
    assert got.result.startswith(f"differs: {says[wrong]} (compared: ") and not got.good


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (503, b"", "HTTP 503"),
        (404, b"", "HTTP 404"),
        (200, b"<html>", "JSONDecodeError"),
        (200, b'{"message": "no"}', "not of git lfs"),
        (200, b'{"objects": [{"oid": []}]}', "not of git lfs"),
        (200, b'{"objects": [{"oid": "0", "error": "no"}]}', "not of git lfs"),
    ],
)
def test_git_lfs_that_does_not_answer_is_told(status: int, body: bytes, says: str, lfs: Card, server: Any) -> None:
    server.status, server.body = status, body
    got = of_files(lfs)
    assert got.result.startswith("not reachable: git lfs: ") and says in got.result and not got.good
    assert f"{server.base}repo.git" in got.result


def test_raw_addresses_are_asked_beside_git_lfs(lfs: Card, server: Any) -> None:
    last = list(FILES)[-1]
    server.routes[f"/{last}"] = [Answer(body=b"a pointer")]
    got = of_files(lfs)
    assert got.result.startswith(f"differs: {last}: bytes {len(FILES[last])} -> 9") and not got.good
    server.routes[f"/{last}"] = [Answer(status=404)]
    got = of_files(lfs)
    assert got.result.startswith(f"not reachable: {last}: HTTP 404") and not got.good


def test_many_differences_are_one_short_line(lfs: Card, server: Any) -> None:
    server.objects.clear()
    got = of_files(lfs)
    assert "not answered" in got.result and "; and 17 more (" in got.result and len(got.line) < 900
    rude = Checked(what="a", where="b", result="x\x1b[2Jy\n" + "z" * 5000, good=True)
    assert "\x1b" not in rude.line and "\n" not in rude.line and len(rude.line) < 700


def test_a_table_without_git_lfs_is_asked_for_three_files(listed: Card, server: Server) -> None:  # noqa: F811
    got = of_files(listed)
    assert got.result == "says no hash (bytes of 3 of 20 addresses)" and got.good
    assert len(server.requests) == 3


def test_git_lfs_needs_bytes_and_sha256(lfs: Card, own_manifests: Path) -> None:  # noqa: F811
    write_table(own_manifests / "crema-d.files.csv", [{**row, "bytes": ""} for row in rows_of(FILES)])
    assert "the table lacks them" in of_files(lfs).result


def test_the_field_of_git_lfs_is_in_no_identity() -> None:
    """Keys and records of what was downloaded before the field was there stay."""
    from clepdg import hashing
    from clepdg.download import file_lists
    from clepdg.download import source as sources

    card = load_card("crema-d")
    assert card.sources[0].lfs == "https://github.com/CheyneyComputerScience/CREMA-D.git"
    without = replace(card, sources=(replace(card.sources[0], lfs=None),))
    assert sources.identify(card, None) == sources.identify(without, None)
    file = file_lists.Remote(path="a", address=Address(url="https://x/a", bytes=1, md5="0" * 32))
    assert replace(file, address=replace(file.address, lfs="https://x")).identity == file.identity
    assert file.identity == "230629c22af622d3ccd45d65d5568142e1dec88a22680f435d69ffff8ecdf7ea"
    assert (
        hashing.digest(sources.identify(card, None))
        == "29d376e373b468aa9fd08fc16bafc610f854210cbd32c10bbd648803090c1125"
    )


# --- other places


def test_an_object_store_and_a_file_beside_the_card(bucket: Any, tmp_path: Path) -> None:  # noqa: F811
    bucket.put_object(Bucket="speech", Key="corpus.zip", Body=ARCHIVE)
    address = Address(url="s3://speech/corpus.zip", bytes=SIZE, md5=MD5)
    assert check(address).result == "ok (bytes, md5 as in the card)"
    assert check(replace(address, md5=OTHER[:32])).result.startswith("differs: md5")
    assert check(Address(url="s3://speech/gone.zip")).result.startswith("not reachable: ")
    (tmp_path / "corpus.zip").write_bytes(ARCHIVE)
    assert check(Address(url=str(tmp_path / "corpus.zip"), bytes=1)).result.startswith(f"differs: bytes 1 -> {SIZE}")
    assert not check(Address(url=str(tmp_path / "gone.zip"))).good


# --- side by side, and the command


def test_all_are_asked_side_by_side_in_order_and_none_holds_up_the_others() -> None:
    awake, meeting = threading.Event(), threading.Barrier(4, timeout=10)

    def met(number: int) -> list[Checked]:
        meeting.wait()
        return [Checked(what=str(number), where="", result="ok", good=True)]

    def never() -> list[Checked]:
        awake.wait(30)
        return []

    jobs = [Job(what=str(number), where="there", ask=partial(met, number)) for number in range(4)]
    lines = list(run_jobs([*jobs[:2], Job(what="late", where="nowhere", ask=never), *jobs[2:]], 1.0))
    awake.set()
    assert [line.what for line in lines] == ["0", "1", "late", "2", "3"]
    assert lines[2].result == "not reachable: no answer within 1 s" and lines[2].where == "nowhere"
    assert [line.good for line in lines] == [True, True, False, True, True]


@pytest.fixture
def two(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Let two corpora of the user's own stand for those of preset open, each with one archive."""
    server.serve({"one.zip": ARCHIVE, "two.zip": ARCHIVE})
    head = (Path(fetching.__file__).parents[2] / "data_manifests/emodb.toml").read_text().partition("[[sources]]")[0]
    (tmp_path / "cards").mkdir()
    for name in ("one", "two"):
        source = f'[[sources]]\nurl = "{server.base}{name}.zip"\nbytes = {SIZE}\n'
        (tmp_path / f"cards/{name}.toml").write_text(head.replace('"emodb"', f'"{name}"', 1) + source)
    monkeypatch.setenv("CLEPDG_CARDS", str(tmp_path / "cards"))
    monkeypatch.setattr(fetch, "CHECKS", [])
    monkeypatch.setitem(presets.PRESETS, "open", lambda: replace(load_open(), corpora=("one", "two")))
    load_open = presets.PRESETS["demo"]
    yield server
    os.environ.pop("CLEPDG_CARDS", None)


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["fetch", *arguments])
    return int(caught.value.code or 0)


def test_the_command_prints_a_line_for_each_and_its_code_tells(
    two: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("--check") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{name}  {two.base}{name}.zip  says no hash (bytes as in the card)" for name in ("one", "two")]
    assert {method for method, _ in two.requests} == {"HEAD"}
    two.routes["/two.zip"] = [Answer(body=b"other")]
    assert command("--check") == 1
    assert f"two.zip  differs: bytes {SIZE} -> 5" in capsys.readouterr().out
    assert command("--check", "--corpora", "one") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    two.routes["/one.zip"] = [Answer(status=404)]
    assert command("--check", "--corpora", "one") == 1


def test_what_else_is_asked_has_lines_of_its_own(
    two: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Checked(what="model weights", where="hub", result="differs: bytes 1 -> 2", good=False)
    job = Job(what="model weights", where="hub", ask=lambda: [weights])
    monkeypatch.setattr(fetch, "CHECKS", [lambda: [job]])
    assert command("--check") == 1
    assert capsys.readouterr().out.splitlines()[-1] == "model weights  hub  differs: bytes 1 -> 2"
    assert command("--check", "--corpora", "one") == 0  # whoever names corpora asks for these alone


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["there", "--check"], "takes a folder or --check"),
        ([], "takes a folder or --check"),
        (["--check", "--source", "one=/x"], "takes a folder or --check"),
        (["--check", "--corpora", "iemocap"], "can't be checked"),
        (["--check", "--corpora", "one,synthetic-1"], "can't be checked"),
        (["--check", "--corpora", "nobody"], "no such corpus"),
    ],
)
def test_wrong_arguments_end_with_2(
    arguments: list[str], says: str, two: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments) == 2
    said = capsys.readouterr()
    assert says in said.err and said.out == "" and not two.requests


def test_compared_is_for_others_too() -> None:
    assert (
        compare("model weights", "hub", {"sha256": SHA256}, {"sha256": SHA256}, "PINS").result
        == "ok (sha256 as in PINS)"
    )
