"""Protects how sources are found, identified and brought: breaks are resumed, lies are found out, hashes are reused."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import md5, sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clepdg import hashing
from clepdg.corpora.cards import Address, Card, Expected, Split
from clepdg.download import archives, folders, http_client, one_file, source, urls
from clepdg.download import fetch as fetching
from clepdg.errors import SourceError
from tests.unit.servers import ARCHIVE, CONTENT, ETAG, Answer, Server

CARD = Card(
    name="ravdess",
    title="RAVDESS",
    grammar="ravdess",
    language="en",
    licence="CC BY-NC-SA 4.0",
    citation="",
    homepage="https://corpus.invalid/ravdess",
    labels={},
    split=Split(unit="speaker", test=("24",)),
    expected=Expected(utterances=2, speakers=1, sample_rate=48000),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a corpus's folder, with spaces in its name and with what desktops leave behind."""
    folder = tmp_path / "my corpora" / "RAV DESS"
    for name, data in {**CONTENT, "Actor 01/._03-01.wav": b"x", ".DS_Store": b"x", ".git/config": b"x"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def card_of(url: str, **facts: Any) -> Card:
    return replace(CARD, sources=(Address(url=url, **facts),))


def bound(server: Server) -> Card:
    """Return a card that binds the right archive."""
    return card_of(server.url, bytes=len(ARCHIVE), md5=md5(ARCHIVE).hexdigest(), sha256=sha256(ARCHIVE).hexdigest())


def fetch(card: Card, given: str | None, out: Path, **options: Any) -> tuple[dict[str, Any], list[float]]:
    """Fetch without waiting; return the figures and the seconds that it would have waited."""
    waits: list[float] = []
    return fetching.fetch(card, given, out, sleep=waits.append, **options), waits


def assert_whole(out: Path) -> None:
    """Check the tree, the table and the digest of an output against CONTENT."""
    root = source.root(out)
    table = source.read_files(out)
    assert list(table.columns) == ["path", "bytes", "mtime_ns", "sha256"]
    assert list(table["path"]) == sorted(CONTENT)
    for row in table.itertuples():
        data = (root / str(row.path)).read_bytes()
        assert data == CONTENT[str(row.path)]
        assert (row.bytes, row.sha256) == (len(data), sha256(data).hexdigest())
        assert row.mtime_ns == (root / str(row.path)).stat().st_mtime_ns
    lines = [(name, len(data), sha256(data).hexdigest()) for name, data in sorted(CONTENT.items())]
    assert source.content_digest(out) == hashing.digest_lines(lines)


def assert_nothing_whole(out: Path) -> None:
    assert all(path.suffix == ".resume" for path in out.iterdir())


FIGURES = {"files": 3, "bytes": sum(map(len, CONTENT.values()))}


# --- state


def test_state_of_a_folder_moves_with_name_size_and_time_only(folder: Path) -> None:
    first = source.identify(CARD, str(folder))
    assert json.loads(json.dumps(first)) == first and first["kind"] == "folder"
    (folder / "Actor 01" / "._03-02.wav").write_bytes(b"junk")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "a.wav").write_bytes(b"junk")
    assert source.identify(CARD, str(folder)) == first
    path = folder / "readme.txt"
    facts = path.stat()
    changes: list[Callable[[], Any]] = [
        lambda: os.utime(path, ns=(0, facts.st_mtime_ns + 1)),
        lambda: (path.write_bytes(b"longer text"), os.utime(path, ns=(0, facts.st_mtime_ns))),
        lambda: path.rename(folder / "read.me"),
    ]
    seen = {first["listing"]}
    for change in changes:
        change()
        seen.add(source.identify(CARD, str(folder))["listing"])
    assert len(seen) == 4


def test_state_reads_no_audio(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "digest_file", lambda path: pytest.fail(f"read {path}"))
    assert source.identify(CARD, str(folder))["kind"] == "folder"


def test_state_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "my corpus.zip"
    path.write_bytes(ARCHIVE)
    facts = {"kind": "archive", "name": path.name, "bytes": len(ARCHIVE), "mtime_ns": path.stat().st_mtime_ns}
    assert source.identify(CARD, str(path)) == source.identify(CARD, path.as_uri()) == facts


@pytest.mark.parametrize(
    "name", ["s3://x", "zip::http://h", "a::b #?{c}%41'\"", "x?token=abc", "me:pw@host", "${HOME}"]
)
def test_a_folder_of_any_name_is_no_address(tmp_path: Path, name: str) -> None:
    given = f"{tmp_path}/{name}/corpus"
    folder = Path(given)
    folder.mkdir(parents=True)
    (folder / "a.wav").write_bytes(b"x")
    assert urls.validate(CARD, given) == given
    assert source.identify(CARD, given) == source.identify(CARD, folder.as_uri())


def test_state_of_a_cards_addresses_needs_no_network() -> None:
    url = "http://127.0.0.1:1/c.zip"
    card = replace(CARD, sources=(Address(url=url, md5="ab" * 16, bytes=3), Address(url=url + "2")))
    assert source.identify(card, None) == {
        "kind": "card",
        "sources": [{"url": url, "md5": "ab" * 16}, {"url": url + "2"}],
    }


def test_state_of_the_users_own_address_asks_the_server(server: Server) -> None:
    said = {"kind": "url", "url": server.url, "etag": ETAG, "bytes": len(ARCHIVE)}
    assert source.identify(CARD, server.url) == said
    server.answers = [Answer(headers={"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, etag=None)]
    assert source.identify(CARD, server.url)["last_modified"] == "Mon, 01 Jan 2024 00:00:00 GMT"
    assert {method for method, _ in server.requests} == {"HEAD"}


@pytest.mark.parametrize("status", [400, 401, 403, 405, 501])
def test_state_where_a_server_refuses_head_alone(server: Server, status: int) -> None:
    server.answers = [Answer(status=status, etag=None, body=b""), Answer()]
    assert source.identify(CARD, server.url)["etag"] == ETAG


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hush@127.0.0.1:1/c.zip",
        "http://hush@127.0.0.1:1/c.zip",
        "sftp://me:hush@127.0.0.1/c.zip",
        "http://127.0.0.1:1/c.zip?token=hush",
        "https://127.0.0.1:1/c.zip?a=1&X-Amz-Signature=hush&b=2",
        "https://127.0.0.1:1/c.zip?api_key=hush${NAME}",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(SourceError, match="may be a secret") as caught:
        source.identify(CARD, url)
    assert "hush" not in str(caught.value)


def test_an_address_may_name_where_a_secret_stands(server: Server, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MY_TOKEN", "hu/sh")
    monkeypatch.setenv("CLEPDG_SECRETS", f"{server.base}=MY_TOKEN")
    url = server.url.replace("127", "me:${MY_TOKEN}@127") + "?token=${MY_TOKEN}"
    state = source.identify(CARD, url)
    assert state["url"] == server.url + "?token=${MY_TOKEN}"
    fetch(CARD, url, tmp_path / "out")
    assert_whole(tmp_path / "out")
    assert server.paths[-1] == "/corpus.zip?token=hu%2Fsh"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"hu" + b"/sh" in path.read_bytes()]
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(SourceError, match="environment variable that is not set"):
        source.identify(CARD, url)


def test_state_of_an_unreachable_server_fails_after_one_attempt() -> None:
    with pytest.raises(SourceError, match="(?s)where: http.*--source ravdess="):
        source.identify(CARD, "http://127.0.0.1:1/c.zip", sleep=lambda seconds: pytest.fail("waited"))


@pytest.mark.parametrize("status", [429, 503])
def test_state_waits_for_a_busy_server(server: Server, status: int) -> None:
    waits: list[float] = []
    server.answers = [Answer(status=status, headers={"Retry-After": "7"}), Answer(status=status), Answer()]
    assert source.identify(CARD, server.url, waits.append)["etag"] == ETAG
    assert waits == [7.0, 2.0]


@pytest.mark.parametrize(("headers", "waited"), [({}, 31.0), ({"Retry-After": "3600"}, 60.0)])
def test_state_does_not_wait_for_ever(server: Server, headers: dict[str, str], waited: float) -> None:
    waits: list[float] = []
    server.answers = [Answer(status=503, headers=headers)]
    with pytest.raises(
        SourceError, match="(?s)is busy.*HTTP 503.*where: http.*again later.*--source ravdess="
    ) as caught:
        source.identify(CARD, server.url, waits.append)
    assert sum(waits) == waited
    assert ("asks to wait 3600 s" in str(caught.value)) == bool(headers)
    assert "get it from" not in str(caught.value)


def test_reach_is_one_attempt_and_a_busy_server_is_there(server: Server) -> None:
    server.answers = [Answer(status=503, headers={"Retry-After": "60"})]
    source.check_reachable(CARD, server.url)
    source.check_reachable(card_of(server.url), None)
    assert [method for method, _ in server.requests] == ["HEAD", "HEAD"]


# --- what is no source


def both(card: Card, given: str | None, out: Path, words: str) -> None:
    """Check that state and fetch refuse alike."""
    with pytest.raises(SourceError, match=words):
        source.identify(card, given)
    with pytest.raises(SourceError, match=words):
        fetching.fetch(card, given, out)


def test_missing_path(tmp_path: Path) -> None:
    both(CARD, str(tmp_path / "nowhere"), tmp_path / "out", "(?s)does not exist.*nowhere.*--source ravdess=")


def test_neither_folder_nor_archive(tmp_path: Path) -> None:
    path = tmp_path / "corpus.rar"
    for data in (b"Rar!\x1a\x07\x00" + bytes(5000), ARCHIVE[:-100]):
        path.write_bytes(data)
        both(CARD, str(path), tmp_path / "out", "(?s)archive.*zip or tar.*corpus.rar")
        assert_nothing_whole(tmp_path / "out")


def test_folder_without_files(tmp_path: Path) -> None:
    (tmp_path / "corpus" / "deep").mkdir(parents=True)
    (tmp_path / "corpus" / ".DS_Store").write_bytes(b"x")
    both(CARD, str(tmp_path / "corpus"), tmp_path / "out", "no files")


def test_corpus_to_be_applied_for_says_how(tmp_path: Path) -> None:
    card = replace(CARD, apply="sign the form and send it")
    both(card, None, tmp_path / "out", "(?s)sign the form and send it.*corpus.invalid.*--source ravdess=")


@pytest.mark.parametrize(
    "given", ["", "  ", "s3://", "nonsense://bucket/c.zip", "http://", "http://[1/c.zip", "file://host/c.zip"]
)
def test_what_is_no_address(tmp_path: Path, given: str) -> None:
    both(CARD, given, tmp_path / "out", "(?s)not an address.*http://.*--source")


def test_all_faults_of_a_folder_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "gone.wav").symlink_to(tmp_path / "gone")
    (folder / "Actor 01" / "again").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe")
    (folder / os.fsdecode(b"\xe9.wav")).write_bytes(b"1")
    both(CARD, str(folder), tmp_path / "out", "4 entries")
    with pytest.raises(SourceError) as raised:
        source.identify(CARD, str(folder))
    for word in ("gone.wav: a broken link", "Actor 01/again: a link", "pipe: neither", "not valid Unicode"):
        assert word in str(raised.value)


# --- folders and archives on this disk


def test_folder_is_referenced(folder: Path, tmp_path: Path) -> None:
    assert fetch(CARD, str(folder), tmp_path / "out") == (FIGURES, [])
    assert source.root(tmp_path / "out") == folder
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"files.parquet", "root.json"}
    assert_whole(tmp_path / "out")


def test_folder_behind_links_is_read(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "linked"
    link.mkdir()
    for name in ("Actor 01", "readme.txt"):
        (link / name).symlink_to(folder / name)
    fetch(CARD, str(link), tmp_path / "out")
    assert_whole(tmp_path / "out")


@pytest.mark.parametrize("uri", [False, True])
def test_archive_is_extracted(tmp_path: Path, uri: bool) -> None:
    path = tmp_path / "my corpus.zip"
    path.write_bytes(ARCHIVE)
    assert fetch(CARD, path.as_uri() if uri else str(path), tmp_path / "out") == (FIGURES, [])
    assert source.root(tmp_path / "out") == tmp_path / "out" / "tree"
    assert_whole(tmp_path / "out")


def test_content_does_not_depend_on_the_way(folder: Path, tmp_path: Path, server: Server) -> None:
    (tmp_path / "c.zip").write_bytes(ARCHIVE)
    digests = set()
    for number, given in enumerate((str(folder), str(tmp_path / "c.zip"), server.url)):
        fetch(CARD, given, tmp_path / str(number))
        digests.add(source.content_digest(tmp_path / str(number)))
    assert len(digests) == 1
    (folder / "readme.txt").write_bytes(b"no spaech")
    fetch(CARD, str(folder), tmp_path / "altered")
    assert source.content_digest(tmp_path / "altered") not in digests


def test_same_archive_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "c.zip").write_bytes(ARCHIVE)
    for out in ("one", "two"):
        fetch(CARD, str(tmp_path / "c.zip"), tmp_path / out)
    assert (tmp_path / "one" / "files.parquet").read_bytes() == (tmp_path / "two" / "files.parquet").read_bytes()


def test_checksum_binds_the_cards_own_address_only(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "c.zip"
    path.write_bytes(ARCHIVE)
    for url in (path.as_uri(), server.url):
        card = card_of(url, bytes=1, md5="0" * 32)
        with pytest.raises(SourceError, match="not the one that its card names"):
            fetch(card, None, tmp_path / "out")
        assert fetch(card, url, tmp_path / "out")[0] == FIGURES
    assert path.read_bytes() == ARCHIVE


def test_output_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    path, out = tmp_path / "c.zip", tmp_path / "out"
    path.write_bytes(ARCHIVE)
    (out / "tree").mkdir(parents=True)
    (out / "tree" / "half.wav").write_bytes(b"half")
    fetch(CARD, str(path), out)
    assert {p.name for p in (out / "tree").iterdir()} == {"Actor 01", "readme.txt"}
    path.write_bytes(ARCHIVE[:-1000])
    with pytest.raises(SourceError):
        fetch(CARD, str(path), out)
    assert_nothing_whole(out)


def test_only_what_moved_is_hashed_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(CARD, str(folder), tmp_path / "one")
    hashed: list[str] = []
    digest_file = hashing.digest_file
    monkeypatch.setattr(hashing, "digest_file", lambda path: (hashed.append(path.name), digest_file(path))[1])
    fetch(CARD, str(folder), tmp_path / "two", previous=tmp_path / "one")
    assert hashed == []
    assert_whole(tmp_path / "two")
    facts = (folder / "Actor 01" / "03-02.wav").stat()
    os.utime(folder / "Actor 01" / "03-02.wav", ns=(0, facts.st_mtime_ns + 1))
    (folder / "new.wav").write_bytes(b"new")
    fetch(CARD, str(folder), tmp_path / "three", previous=tmp_path / "two")
    assert sorted(hashed) == ["03-02.wav", "new.wav"]
    fetch(CARD, str(folder), tmp_path / "four")
    names = ("files.parquet", "root.json")
    assert all((tmp_path / "three" / n).read_bytes() == (tmp_path / "four" / n).read_bytes() for n in names)


@pytest.mark.parametrize("spoil", ["missing", "files", "root", "extracted"])
def test_hashes_of_no_folder_are_not_reused(folder: Path, tmp_path: Path, spoil: str) -> None:
    """Extracted files all have the time 0, so they would prove nothing about a folder's."""
    previous = tmp_path / "previous"
    wrong = [folders.File(name, len(data), 0, "wrong") for name, data in CONTENT.items()]
    for name in CONTENT:
        os.utime(folder / name, ns=(0, 0))
    if spoil != "missing":
        previous.mkdir()
        source.write_files(previous / "files.parquet", wrong)
        hashing.write_json(previous / "root.json", {"root": "tree" if spoil == "extracted" else str(folder)})
    if spoil == "files":
        (previous / "files.parquet").write_bytes(b"PAR1")
    if spoil == "root":
        (previous / "root.json").write_text("{")
    fetch(CARD, str(folder), tmp_path / "out", previous=previous)
    assert_whole(tmp_path / "out")


def test_file_that_changes_while_it_is_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "digest_file", lambda path: str(path.write_bytes(b"other")))
    with pytest.raises(SourceError, match="(?s)3 entries.*readme.txt: changed while it was read"):
        fetch(CARD, str(folder), tmp_path / "out")
    assert_nothing_whole(tmp_path / "out")


def test_root_of_a_folder_that_is_gone(folder: Path, tmp_path: Path) -> None:
    fetch(CARD, str(folder), tmp_path / "out")
    folder.rename(tmp_path / "moved")
    with pytest.raises(SourceError, match="(?s)gone.*RAV DESS"):
        source.root(tmp_path / "out")


def test_moved_folder_is_another_state(folder: Path, tmp_path: Path) -> None:
    """An output names its folder, so a copy elsewhere must not be answered with the old place."""
    first = source.identify(CARD, str(folder))
    second = source.identify(CARD, str(folder.rename(tmp_path / "moved")))
    assert first["listing"] == second["listing"] and first != second


@pytest.mark.parametrize("downloaded", [False, True])
def test_archive_that_the_disk_has_no_room_for_says_so_and_is_kept(
    downloaded: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "corpus.zip"
    path.write_bytes(ARCHIVE)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    said = r"(?s)The disk is full.*\d+ bytes are needed, 1000 bytes free.*do: free some space"
    with pytest.raises(SourceError, match=said):
        fetch(CARD, server.url if downloaded else str(path), tmp_path / "out")
    assert bool(list((tmp_path / "out").glob("download-*.resume/part"))) == downloaded


def test_full_disk_is_one_source_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.zip").write_bytes(ARCHIVE)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(archives, "_write", full)
    with pytest.raises(SourceError, match="(?s)disk is full.*free some space"):
        fetch(CARD, str(tmp_path / "c.zip"), tmp_path / "out")
    assert_nothing_whole(tmp_path / "out")


# --- downloads


def test_download_is_checked_and_extracted(server: Server, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    given = bound(server)
    assert fetch(given, None, tmp_path / "out", progress=lambda *step: calls.append(step)) == (FIGURES, [])
    assert_whole(tmp_path / "out")
    assert (len(ARCHIVE), len(ARCHIVE)) in calls
    assert server.requests == [("GET", None)]


def test_break_is_resumed_where_it_was(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(send=200_000), Answer(send=100_000), Answer()]
    _, waits = fetch(bound(server), None, tmp_path / "out")
    assert [span for _, span in server.requests] == [None, "bytes=200000-", "bytes=300000-"]
    assert waits == [1.0, 1.0]  # each attempt came further
    assert_whole(tmp_path / "out")


def test_restart_goes_on_with_the_part_file(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(send=200_000), Answer(status=500)]
    with pytest.raises(SourceError, match="(?s)could not be downloaded.*HTTP 500.*200000 bytes are kept"):
        fetch(CARD, server.url, tmp_path / "out")
    assert_nothing_whole(tmp_path / "out")
    server.answers = [Answer()]
    server.requests.clear()
    fetch(CARD, server.url, tmp_path / "out")
    assert server.requests == [("GET", "bytes=200000-")]
    assert_whole(tmp_path / "out")


def test_restart_after_the_last_byte_reads_nothing_again(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        fetch(bound(server), None, tmp_path / "out")
        assert_whole(tmp_path / "out")
    assert server.requests[1:] == [("GET", f"bytes={len(ARCHIVE)}-")]


def test_archive_that_changed_between_is_read_anew(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(body=ARCHIVE[:100] + bytes(500_000), etag='"old"', send=200_000), Answer()]
    fetch(CARD, server.url, tmp_path / "out")
    assert_whole(tmp_path / "out")


def test_server_without_ranges_is_read_anew(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(send=200_000), Answer(ranges=False)]
    fetch(bound(server), None, tmp_path / "out")
    assert_whole(tmp_path / "out")


def test_without_validator_or_checksum_nothing_is_pieced_together(server: Server, tmp_path: Path) -> None:
    for etag in (None, 'W/"weak"'):
        server.answers, server.requests = [Answer(send=200_000, etag=etag), Answer(etag=etag)], []
        fetch(CARD, server.url, tmp_path / "out")
        assert [span for _, span in server.requests] == [None, None]
        assert_whole(tmp_path / "out")


def test_wrong_range_is_not_appended(server: Server, tmp_path: Path) -> None:
    wrong = Answer(status=206, headers={"Content-Range": f"bytes 0-{len(ARCHIVE) - 1}/{len(ARCHIVE)}"})
    server.answers = [Answer(send=200_000), wrong, Answer()]
    fetch(CARD, server.url, tmp_path / "out")
    assert [span for _, span in server.requests] == [None, "bytes=200000-", None]
    assert_whole(tmp_path / "out")


def test_part_file_of_another_address_is_not_used(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(send=200_000), Answer(status=404, body=b"")]
    with pytest.raises(SourceError):
        fetch(CARD, server.url, tmp_path / "out")
    server.answers, server.requests = [Answer()], []
    fetch(CARD, server.url + "?version=2", tmp_path / "out")
    assert server.requests == [("GET", None)]
    assert_whole(tmp_path / "out")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_busy_server_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.answers = [Answer(status=status, body=b"<html>busy"), Answer(status=status, body=b""), Answer()]
    _, waits = fetch(bound(server), None, tmp_path / "out")
    assert waits == [1.0, 2.0]
    assert_whole(tmp_path / "out")


@pytest.mark.parametrize(
    ("said", "wait"), [("7", 7.0), ("86400", 60.0), ("soon", 1.0), ("Mon, 01 Jan 2024 00:00:00 GMT", 1.0)]
)
def test_retry_after_is_heeded(server: Server, tmp_path: Path, said: str, wait: float) -> None:
    server.answers = [Answer(status=503, body=b"", headers={"Retry-After": said}), Answer()]
    assert fetch(bound(server), None, tmp_path / "out") == (FIGURES, [wait])


def test_server_that_never_recovers(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(status=503, body=b"")]
    with pytest.raises(SourceError, match="(?s)could not be downloaded.*HTTP 503.*--source ravdess="):
        fetch(bound(server), None, tmp_path / "out")
    assert len(server.requests) == one_file.ATTEMPTS
    with pytest.raises(SourceError, match="(?s)could not be downloaded.*127.0.0.1:1"):
        fetch(CARD, "http://127.0.0.1:1/c.zip", tmp_path / "out")


def test_server_that_always_breaks_at_the_same_byte(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(send=1000, ranges=False)]
    with pytest.raises(SourceError, match="could not be downloaded"):
        fetch(bound(server), None, tmp_path / "out")
    assert len(server.requests) == one_file.ATTEMPTS


def test_server_that_gives_next_to_nothing_each_time_is_given_up(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(send=1000)]
    with pytest.raises(SourceError, match="(?s)could not be downloaded.*run again later, 5000 bytes are kept"):
        fetch(bound(server), None, tmp_path / "out")
    assert len(server.requests) == one_file.ATTEMPTS
    server.answers, server.requests = [*(Answer(send=60_000) for _ in range(8)), Answer()], []
    fetch(bound(server), None, tmp_path / "out")
    assert len(server.requests) == 9
    assert_whole(tmp_path / "out")


def test_silence_counts_as_a_break(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "STALL_SECONDS", 0.2)
    server.answers = [Answer(send=200_000, stall=True), Answer()]
    fetch(bound(server), None, tmp_path / "out")
    assert [span for _, span in server.requests] == [None, "bytes=200000-"]
    assert_whole(tmp_path / "out")


def test_a_trickle_counts_as_a_break(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "STALL_SECONDS", 0.4)
    server.answers = [Answer(drip=200_000), Answer()]
    fetch(bound(server), None, tmp_path)
    assert_whole(tmp_path)
    assert len(server.requests) == 2 and str(server.requests[1][1]) >= "bytes=200000-"


@pytest.mark.parametrize("claim", [len(ARCHIVE) + 1000, len(ARCHIVE) - 1000])
def test_wrong_content_length_is_found_out(server: Server, tmp_path: Path, claim: int) -> None:
    server.answers = [Answer(claim=claim, ranges=False)]
    for card, given in ((bound(server), None), (CARD, server.url)):
        with pytest.raises(SourceError, match="ravdess"):
            fetch(card, given, tmp_path / "out")
        assert_nothing_whole(tmp_path / "out")


def flipped(position: int) -> bytes:
    return ARCHIVE[:position] + bytes([ARCHIVE[position] ^ 0xFF]) + ARCHIVE[position + 1 :]


@pytest.mark.parametrize("short", [Answer(claim=200_000), Answer(send=200_000, length=False)])
def test_a_body_that_ends_early_without_an_error_is_resumed(server: Server, tmp_path: Path, short: Answer) -> None:
    server.answers = [short, Answer()]
    _, waits = fetch(bound(server), None, tmp_path / "out")
    assert [span for _, span in server.requests] == [None, "bytes=200000-"] and waits == [1.0]
    assert_whole(tmp_path / "out")


def test_an_empty_body_is_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(body=b""), Answer()]
    fetch(bound(server), None, tmp_path / "out")
    assert_whole(tmp_path / "out")


@pytest.mark.parametrize("body", [flipped(100_000), ARCHIVE + b"more", ARCHIVE[:-1]])
def test_other_bytes_than_the_cards_are_refused_and_forgotten(server: Server, tmp_path: Path, body: bytes) -> None:
    server.answers = [Answer(body=body)]
    with pytest.raises(SourceError, match="(?s)not the one that its card names.*got: .*expected: "):
        fetch(bound(server), None, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.resume/part"))
    server.answers = [Answer()]
    fetch(bound(server), None, tmp_path / "out")
    assert server.requests[-1] == ("GET", None)
    assert_whole(tmp_path / "out")


def test_resumed_part_is_under_the_checksum_too(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(body=flipped(100_000), send=200_000), Answer()]
    with pytest.raises(SourceError, match="not the one that its card names"):
        fetch(bound(server), None, tmp_path / "out")


def test_too_large_a_download_stops_early(server: Server, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    server.answers = [Answer(body=ARCHIVE * 10)]
    with pytest.raises(SourceError, match=f"(?s)got: {len(ARCHIVE) * 10} bytes.*expected: {len(ARCHIVE)} bytes"):
        fetch(bound(server), None, tmp_path / "out", progress=lambda *step: calls.append(step))
    assert calls == []


def test_corrupt_download_without_checksum_is_read_anew_next_time(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(body=flipped(100_000)), Answer()]
    with pytest.raises(SourceError, match="(?s)download of ravdess.*corrupt.*03-01.wav.*where: http"):
        fetch(CARD, server.url, tmp_path / "out")
    assert_nothing_whole(tmp_path / "out")
    fetch(CARD, server.url, tmp_path / "out")
    assert_whole(tmp_path / "out")


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>please log in</html>", b"\xef\xbb\xbf\r\n <HTML></HTML>"])
def test_web_page_is_named_as_such(server: Server, tmp_path: Path, page: bytes) -> None:
    server.answers = [Answer(body=page)]
    for card, given in ((bound(server), None), (CARD, server.url)):
        with pytest.raises(SourceError, match="(?s)web page, not data.*--source ravdess="):
            fetch(card, given, tmp_path / "out")
        assert not list((tmp_path / "out").glob("*.resume/part"))


@pytest.mark.parametrize(("status", "words"), [(401, "login or a licence"), (403, "licence"), (404, "HTTP 404")])
def test_refusal_is_not_tried_again(server: Server, tmp_path: Path, status: int, words: str) -> None:
    server.answers = [Answer(status=status, body=b"<html>no")]
    both(CARD, server.url, tmp_path / "out", f"(?s){words}.*corpus.invalid")
    asked = [method for method, _ in server.requests]
    assert asked == (["HEAD", "GET"] if status == 404 else ["HEAD", "GET", "GET"])


def test_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(status=302, body=b"", headers={"Location": "/real.zip"}), Answer()]
    assert fetch(bound(server), None, tmp_path / "out") == (FIGURES, [])


def test_redirect_loop_is_a_source_error(server: Server, tmp_path: Path) -> None:
    server.answers = [Answer(status=302, body=b"", headers={"Location": "/corpus.zip"})]
    both(CARD, server.url, tmp_path / "out", "TooManyRedirects")


def test_importing_is_cheap() -> None:
    """Sources are looked at before anything heavy is needed."""
    import subprocess
    import sys

    heavy = "{'httpx', 'pandas', 'pyarrow', 'numpy', 'torch'}"
    code = f"import sys, clepdg.download.source; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
