"""Protects the question whether a publisher changed what was downloaded: few requests, no download, all stays."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from clepdg import errors
from clepdg.corpora.cards import Address, Card, load_card
from clepdg.download import fetch as fetching
from clepdg.download import lockfile, upstream
from clepdg.store.documents import Documents
from tests.unit.servers import ARCHIVE, Answer, Server
from tests.unit.test_remote import FILES, SPEECH, dataverse, listed, own_manifests, publish  # noqa: F401

CARD = replace(load_card("emodb"), sources=())
RIGHT = sha256(ARCHIVE).hexdigest()
OTHER = Answer(body=ARCHIVE + b"more", etag='"two"')


def fetch(card: Card, folder: Path, name: str = "out") -> None:
    fetching.fetch(card, None, folder / name, pins=Documents(folder), sleep=lambda seconds: None)


def ask(card: Card, folder: Path) -> tuple[list[str], list[str]]:
    """Return the notes, and what changed."""
    return upstream.check(card, Documents(folder)), upstream.changes(card, Documents(folder))


def record(folder: Path, corpus: str = "emodb") -> dict[str, Any]:
    (only,) = json.loads((folder / "pins" / f"{corpus}.json").read_text()).values()
    return dict(only)


@pytest.fixture(params=["by the card", "by the record"])
def card(request: pytest.FixtureRequest, server: Server) -> Card:
    """Return a card with one archive, with and without a checksum."""
    facts = {"sha256": RIGHT} if request.param == "by the card" else {}
    return replace(CARD, sources=(Address(url=server.url, **facts),))


def test_nothing_changed_is_one_request_and_no_download(card: Card, server: Server, tmp_path: Path) -> None:
    fetch(card, tmp_path)
    assert record(tmp_path)["said"] == {"etag": '"one"', "bytes": len(ARCHIVE)}
    server.requests.clear()
    assert ask(card, tmp_path) == ([], [])
    assert server.requests == [("HEAD", None)]


@pytest.mark.parametrize(
    "answer", [OTHER, Answer(etag='"two"'), Answer(body=ARCHIVE + b"more"), Answer(body=ARCHIVE + b"more", etag=None)]
)
def test_a_change_is_seen_and_replaces_nothing(answer: Answer, card: Card, server: Server, tmp_path: Path) -> None:
    fetch(card, tmp_path)
    before, server.answers = record(tmp_path), [answer]
    notes, (change,) = ask(card, tmp_path)
    assert not notes
    assert "emodb: since 20" in change and server.url in change and "stays in use" in change
    assert ("correct the card" in change) == bool(card.sources[0].sha256)
    assert ("delete its record" in change) != bool(card.sources[0].sha256)
    after = record(tmp_path)
    assert {key: after[key] for key in before} == before
    assert all(method == "HEAD" for method, _ in server.requests[1:])
    assert upstream.changes(card, Documents(tmp_path)) == [change]


def test_a_change_that_is_taken_back_or_found_equal_is_over(card: Card, server: Server, tmp_path: Path) -> None:
    fetch(card, tmp_path)
    server.answers = [OTHER]
    assert ask(card, tmp_path)[1]
    server.answers = [Answer()]
    assert ask(card, tmp_path) == ([], [])
    server.answers = [Answer(etag='"moved"')]  # another server with the same bytes
    assert ask(card, tmp_path)[1]
    fetch(card, tmp_path, "again")
    assert ask(card, tmp_path) == ([], [])
    assert record(tmp_path)["said"]["etag"] == '"moved"'


def test_the_day_of_a_change_is_that_of_its_first_sight(
    card: Card, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch(card, tmp_path)
    server.answers = [OTHER]
    monkeypatch.setattr(lockfile, "today", lambda: "2031-05-06")
    ask(card, tmp_path)
    monkeypatch.setattr(lockfile, "today", lambda: "2031-05-13")
    assert "since 2031-05-06" in ask(card, tmp_path)[1][0]


def test_a_new_one_is_taken_when_its_record_was_deleted_and_not_before(server: Server, tmp_path: Path) -> None:
    card = replace(CARD, sources=(Address(url=server.url),))
    fetch(card, tmp_path)
    server.answers = [Answer(body=ARCHIVE + b"\0" * 22, etag='"two"')]
    ask(card, tmp_path)
    with pytest.raises(errors.SourceError, match="changed since the first download"):
        fetch(card, tmp_path, "refused")
    assert "changed" in record(tmp_path)
    (tmp_path / "pins" / "emodb.json").unlink()
    server.answers = [Answer(body=ARCHIVE, etag='"three"')]
    fetch(card, tmp_path, "new")
    assert ask(card, tmp_path) == ([], [])
    assert record(tmp_path)["said"]["etag"] == '"three"'


def test_a_resumed_download_records_what_the_whole_is(server: Server, tmp_path: Path) -> None:
    card = replace(CARD, sources=(Address(url=server.url),))
    server.answers = [Answer(send=100_000), Answer()]
    fetch(card, tmp_path)
    assert record(tmp_path)["said"] == {"etag": '"one"', "bytes": len(ARCHIVE)}
    assert ask(card, tmp_path) == ([], [])


def test_only_the_address_that_brought_it_is_asked(server: Server, tmp_path: Path) -> None:
    server.routes = {"/first.zip": [Answer(status=404)], "/second.zip": [Answer()]}
    addresses = tuple(Address(url=f"{server.base}{name}.zip") for name in ("first", "second"))
    card = replace(CARD, sources=addresses)
    fetch(card, tmp_path)
    server.routes["/first.zip"] = [OTHER]
    assert ask(card, tmp_path) == ([], [])
    server.routes["/second.zip"] = [OTHER]
    assert "second.zip" in ask(card, tmp_path)[1][0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [(Answer(status=503), "HTTP 503"), (Answer(status=403), "HTTP 403"), (Answer(etag=None, claim=0), None)],
)
def test_what_can_t_be_asked_is_a_note(answer: Answer, words: str | None, server: Server, tmp_path: Path) -> None:
    card = replace(CARD, sources=(Address(url=server.url),))
    fetch(card, tmp_path)
    if words is None:  # a server that names neither version nor size
        lockfile.update(Documents(tmp_path), "emodb", card.sources[0], said={"etag": '"one"'})
        words = "reports no metadata that shows changes"
    server.answers = [answer]
    (note,), changed = ask(card, tmp_path)
    assert words in note and note.startswith("emodb") and "\n" not in note.strip()
    assert not changed


def test_a_record_from_before_is_completed_and_says_so(card: Card, server: Server, tmp_path: Path) -> None:
    fetch(card, tmp_path)
    lockfile.update(Documents(tmp_path), "emodb", card.sources[0], said=None)
    (note,), changed = ask(card, tmp_path)
    assert "from today on" in note and not changed
    assert ask(card, tmp_path) == ([], [])
    (tmp_path / "pins" / "emodb.json").unlink()
    assert "from today on" in ask(card, tmp_path)[0][0]
    server.answers = [OTHER]
    assert ask(card, tmp_path)[1]


def test_of_a_table_of_files_three_are_asked(listed: Card, server: Server, tmp_path: Path) -> None:  # noqa: F811
    fetch(listed, tmp_path)
    server.requests.clear()
    assert ask(listed, tmp_path) == ([], [])
    assert server.requests == [("HEAD", None)] * upstream.SAMPLES
    server.routes[f"/{list(FILES)[-1]}"] = [OTHER]
    assert "AudioWAV/1020_DFA_ANG_XX.wav etag" in ask(listed, tmp_path)[1][0]


def test_of_a_dataset_its_listing_is_asked(dataverse: Card, server: Server, tmp_path: Path) -> None:  # noqa: F811
    fetch(dataverse, tmp_path)
    server.requests.clear()
    assert ask(dataverse, tmp_path) == ([], [])
    assert server.requests == [("GET", None)]
    publish(server, {**SPEECH, "AudioWAV/1005_DFA_ANG_XX.wav": b"newly recorded"})
    assert "files 4 -> 5" in ask(dataverse, tmp_path)[1][0]


def test_an_archive_beside_the_card_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "corpus.zip").write_bytes(ARCHIVE)
    card = replace(CARD, sources=(Address(url=(tmp_path / "corpus.zip").as_uri(), sha256=RIGHT),))
    fetch(card, tmp_path)
    assert ask(card, tmp_path) == ([], [])
    (tmp_path / "corpus.zip").write_bytes(ARCHIVE + b"more")
    assert f"bytes {len(ARCHIVE)} -> {len(ARCHIVE) + 4}" in ask(card, tmp_path)[1][0]
