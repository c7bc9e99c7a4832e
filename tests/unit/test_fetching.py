"""Protects the order of mirrors, the record of first downloads, and archives in archives or in buckets."""

import io
import json
import tarfile
import zipfile
from dataclasses import replace
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import pytest

from clepdg.corpora.cards import Address, Card, load_card
from clepdg.download import archive_members, archives, source
from clepdg.download import fetch as fetching
from clepdg.errors import SourceError
from clepdg.store.documents import Documents
from tests.unit.servers import ARCHIVE, CONTENT, Answer, Server
from tests.unit.test_remote import bucket, s3  # noqa: F401

CARD = replace(load_card("emodb"), sources=())
DEAD = Address(url="http://127.0.0.1:1/corpus.zip")
RIGHT = sha256(ARCHIVE).hexdigest()


def with_sources(*addresses: Address) -> Card:
    return replace(CARD, sources=addresses)


def fetch(card: Card, given: str | None, out: Path, **options: Any) -> dict[str, Any]:
    return fetching.fetch(card, given, out, sleep=lambda seconds: None, **options)


def assert_whole(out: Path) -> None:
    root = source.root(out)
    assert {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()} == CONTENT


# --- mirrors


@pytest.mark.parametrize(
    ("answer", "facts"),
    [
        (Answer(status=404), {}),
        (Answer(status=503), {}),
        (Answer(body=b"<!doctype html>gone"), {}),
        (Answer(body=b"PK\x03\x04 no archive at all"), {}),
        (Answer(body=ARCHIVE[:-1] + b"X"), {"sha256": RIGHT}),
        (Answer(body=ARCHIVE + b"X"), {"bytes": len(ARCHIVE)}),
    ],
)
def test_the_second_mirror_is_taken_where_the_first_fails_and_why_is_told(
    answer: Answer, facts: dict[str, Any], server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.routes = {"/first.zip": [answer], "/second.zip": [Answer()]}
    first, second = Address(url=f"{server.base}first.zip", **facts), Address(url=f"{server.base}second.zip")
    fetch(with_sources(first, second), None, tmp_path / "out")
    assert_whole(tmp_path / "out")
    assert server.paths[-1] == "/second.zip"
    (told,) = caplog.messages
    assert told.startswith(f"emodb was downloaded from {second.url}, since: ") and first.url in told


def test_the_second_mirror_is_not_asked_where_the_first_answers(server: Server, tmp_path: Path) -> None:
    server.routes = {"/first.zip": [Answer()]}
    server.answers = [Answer(status=500)]
    addresses = (Address(url=f"{server.base}first.zip"), Address(url=f"{server.base}second.zip"))
    fetch(with_sources(*addresses), None, tmp_path / "out")
    source.check_reachable(with_sources(*addresses), None)
    assert set(server.paths) == {"/first.zip"}


def test_where_all_mirrors_fail_each_is_named_with_its_reason(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(status=403)]
    card = with_sources(DEAD, Address(url=f"{server.base}second.zip"))
    for call in (lambda: fetch(card, None, tmp_path / "out"), lambda: source.check_reachable(card, None)):
        with pytest.raises(SourceError) as caught:
            call()
        message = str(caught.value)
        assert "none of its 2 addresses" in message and message.count("\n- ") == 2
        assert DEAD.url in message and "HTTP 403" in message and "--source emodb=" in message


def test_reach_is_content_with_one_mirror(server: Server) -> None:
    source.check_reachable(with_sources(DEAD, Address(url=server.url)), None)


def test_each_mirror_resumes_its_own_part(server: Server, tmp_path: Path) -> None:
    """What the first mirror gave is neither mixed into the second's nor lost."""
    card = with_sources(
        Address(url=f"{server.base}first.zip", sha256=RIGHT), Address(url=f"{server.base}second.zip", sha256=RIGHT)
    )
    server.routes = {
        "/first.zip": [Answer(send=200_000), Answer(status=503)],
        "/second.zip": [Answer(body=b"\0" * 300_000, send=250_000), Answer(status=503)],
    }
    with pytest.raises(SourceError, match="none of its 2"):
        fetch(card, None, tmp_path / "out")
    server.routes = {"/first.zip": [Answer()]}
    server.requests.clear()
    fetch(card, None, tmp_path / "out")
    assert server.requests == [("GET", "bytes=200000-")]
    assert_whole(tmp_path / "out")


# --- what came first is recorded, and holds


def test_the_first_download_is_recorded_and_holds(server: Server, tmp_path: Path) -> None:
    card, pins = with_sources(Address(url=server.url)), Documents(tmp_path)
    fetch(card, None, tmp_path / "out", pins=pins)
    (record,) = json.loads((tmp_path / "pins" / "emodb.json").read_text()).values()
    assert (record["bytes"], record["sha256"]) == (len(ARCHIVE), RIGHT)
    fetch(card, None, tmp_path / "same", pins=pins)
    server.answers = [Answer(body=ARCHIVE[:-1] + b"X", etag='"two"')]
    with pytest.raises(SourceError, match=r"(?s)changed since the first download.*emodb.json.*delete that record"):
        fetch(card, None, tmp_path / "changed", pins=pins)
    assert not (tmp_path / "changed" / source.FILES).exists()
    assert json.loads((tmp_path / "pins" / "emodb.json").read_text()).popitem()[1] == record


def test_what_came_first_holds_for_all_mirrors(server: Server, tmp_path: Path) -> None:
    """A first address that changed must not be answered with whatever a second one has."""
    first, second = Address(url=f"{server.base}first.zip"), Address(url=f"{server.base}second.zip")
    card, pins = with_sources(first, second), Documents(tmp_path)
    server.routes = {"/first.zip": [Answer()]}
    fetch(card, None, tmp_path / "out", pins=pins)
    changed = Answer(body=ARCHIVE[:-1] + b"X", etag='"two"')
    server.routes = {"/first.zip": [changed], "/second.zip": [changed]}
    with pytest.raises(SourceError, match=r"(?s)none of its 2 addresses.*\n- .*first download.*\n- .*first download"):
        fetch(card, None, tmp_path / "changed", pins=pins)
    server.routes = {"/first.zip": [changed], "/second.zip": [Answer()]}
    fetch(card, None, tmp_path / "same", pins=pins)
    assert_whole(tmp_path / "same")
    records = json.loads((tmp_path / "pins" / "emodb.json").read_text()).values()
    assert [record["sha256"] for record in records if "sha256" in record] == [RIGHT]


def test_a_download_that_can_t_be_extracted_records_nothing(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(body=b"PK\x03\x04 no archive")]
    with pytest.raises(SourceError, match="can't be extracted"):
        fetch(with_sources(Address(url=server.url)), None, tmp_path / "out", pins=Documents(tmp_path))
    assert not (tmp_path / "pins").exists()


def test_no_sum_is_recorded_beside_a_published_one_nor_of_the_users_own_address(server: Server, tmp_path: Path) -> None:
    fetch(CARD, server.url, tmp_path / "b", pins=Documents(tmp_path))
    assert not (tmp_path / "pins").exists()
    fetch(with_sources(Address(url=server.url, sha256=RIGHT)), None, tmp_path / "a", pins=Documents(tmp_path))
    (record,) = json.loads((tmp_path / "pins" / "emodb.json").read_text()).values()
    assert set(record) == {"date", "said"}


@pytest.mark.parametrize(
    "said",
    [
        '{"http',
        "[1]",
        '{"http://x ": {"bytes": 1}}',
        '{"http://x": 5}',
        '{"http://x": {"said": 5}}',
        '{"http://x": {"said": {}, "changed": 5}}',
        '{"http://x": {"said": {}, "changed": {"date": 5, "said": {}}}}',
        '{"http://x": {"changed": {"date": "2025-01-31", "said": {"etag": "a"}}}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_record_is_one_clear_error(said: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "emodb.json").write_text(said)
    with pytest.raises(SourceError, match=r"(?s)record of first downloads is damaged.*emodb.json"):
        fetch(with_sources(Address(url=server.url)), None, tmp_path / "out", pins=Documents(tmp_path))


# --- archives in archives


def tar_gz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def nested(tmp_path: Path, inner: dict[str, bytes]) -> Path:
    path = tmp_path / "MELD.Raw.tar.gz"
    path.write_bytes(tar_gz({"MELD.Raw/train.tar.gz": tar_gz(inner), "MELD.Raw/README.txt": b"read me"}))
    return path


MELD = replace(load_card("meld"), sources=())


def test_an_archive_in_an_archive_is_extracted_and_not_kept(tmp_path: Path) -> None:
    path = nested(tmp_path, {"train_splits/dia0_utt0.mp4": b"clip", "train_splits/._dia0_utt0.mp4": b"x"})
    fetch(MELD, str(path), tmp_path / "out")
    assert list(source.read_files(tmp_path / "out").path) == [
        "MELD.Raw/README.txt",
        "MELD.Raw/train_splits/dia0_utt0.mp4",
    ]
    fetch(CARD, str(path), tmp_path / "kept")  # a card that does not ask for it
    assert list(source.read_files(tmp_path / "kept").path) == ["MELD.Raw/README.txt", "MELD.Raw/train.tar.gz"]


@pytest.mark.parametrize("name", ["../../escaped.mp4", "/escaped.mp4"])
def test_an_inner_archive_does_not_escape_either(name: str, tmp_path: Path) -> None:
    path = nested(tmp_path, {"train_splits/dia0_utt0.mp4": b"clip", name: b"x"})
    with pytest.raises(SourceError, match="escaped"):
        fetch(MELD, str(path), tmp_path / "out")
    assert not list(tmp_path.rglob("escaped*"))
    assert not (tmp_path / "out" / source.TREE).exists()


def test_an_inner_bomb_is_refused(tmp_path: Path) -> None:
    path = nested(tmp_path, {"bomb.mp4": bytes(400_000_000)})
    assert path.stat().st_size < 2_000_000
    with pytest.raises(SourceError):
        fetch(MELD, str(path), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("bomb*"))


def test_inner_archives_are_one_bomb_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "BOMB_BYTES", 1_000_000)
    inner = tar_gz({"bomb.mp4": bytes(900_000)})
    path = tmp_path / "MELD.Raw.tar.gz"
    path.write_bytes(tar_gz({"part.tar.gz": inner}))
    fetch(MELD, str(path), tmp_path / "one")
    path.write_bytes(tar_gz({f"{number}/part.tar.gz": inner for number in range(40)}))
    assert 40 * 900_000 > archive_members.BOMB_RATIO * path.stat().st_size
    with pytest.raises(SourceError, match="a bomb"):
        fetch(MELD, str(path), tmp_path / "out")
    assert not list((tmp_path / "out").rglob("bomb*"))


def test_a_broken_inner_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "MELD.Raw.tar.gz"
    path.write_bytes(tar_gz({"MELD.Raw/train.tar.gz": tar_gz({"a.mp4": b"clip" * 5000})[:-40]}))
    with pytest.raises(SourceError, match=r"train\.tar\.gz"):
        fetch(MELD, str(path), tmp_path / "out")


# --- archives in buckets


def test_an_archive_in_a_bucket(bucket: Any, tmp_path: Path) -> None:  # noqa: F811
    bucket.put_object(Bucket="speech", Key="mine/corpus.zip", Body=ARCHIVE)
    state = source.identify(CARD, "s3://speech/mine/corpus.zip")
    assert state["bytes"] == len(ARCHIVE) and state["version"]
    fetch(CARD, "s3://speech/mine/corpus.zip", tmp_path / "out")
    assert_whole(tmp_path / "out")
    bound = Address(url="s3://speech/mine/corpus.zip", md5=md5(ARCHIVE).hexdigest())
    fetch(with_sources(DEAD, bound), None, tmp_path / "bound")
    assert_whole(tmp_path / "bound")


def test_a_part_of_an_older_object_is_not_gone_on_with(bucket: Any, tmp_path: Path) -> None:  # noqa: F811
    url = "s3://speech/corpus.zip"
    bucket.put_object(Bucket="speech", Key="corpus.zip", Body=b"PK\x03\x04" + bytes(len(ARCHIVE) * 2))

    class Killed(BaseException):
        pass

    def killing(done: int, total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        fetch(CARD, url, tmp_path / "out", progress=killing)
    assert list((tmp_path / "out").glob("download-*.resume/part"))
    bucket.put_object(Bucket="speech", Key="corpus.zip", Body=ARCHIVE)
    fetch(CARD, url, tmp_path / "out")
    assert_whole(tmp_path / "out")


def test_an_archive_by_a_file_address_with_spaces(tmp_path: Path) -> None:
    path = tmp_path / "my corpus.zip"
    path.write_bytes(ARCHIVE)
    fetch(CARD, path.as_uri(), tmp_path / "out")
    assert_whole(tmp_path / "out")


def test_no_archive_is_more_than_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.wav", bytes(300_000_000))
    with pytest.raises(SourceError):
        archives.extract(path, tmp_path / "out", progress=lambda done, total: None)
    assert not (tmp_path / "out").exists()
