"""Protects mirrors: requests go to them, while identity, records and checksums stay those of the card."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from clepdg.corpora.cards import Address, Card, load_card
from clepdg.download import fetch as fetching
from clepdg.download import file_lists, http_client, lockfile, object_store, one_file, source, upstream, urls
from clepdg.download.urls import expand, redact_with_mirror
from clepdg.errors import ConfigError, SourceError
from clepdg.store.documents import Documents
from clepdg_tasks.host.settings import load_settings
from tests.unit.servers import ARCHIVE, CONTENT, Answer, Server
from tests.unit.test_remote import FILES, SPEECH, own_manifests, publish, rows_of, write_table  # noqa: F401

SITE = "https://site.example"
CARD = replace(load_card("emodb"), sources=())
RIGHT = sha256(ARCHIVE).hexdigest()


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "var"))
    (tmp_path / "var").mkdir()
    names = ("CLEPDG_MIRRORS", "CLEPDG_MIRRORS_WRITTEN")
    for name in names:
        monkeypatch.setenv(name, "")  # remembered, to be put back
        monkeypatch.delenv(name)
    yield
    for name in names:
        os.environ.pop(name, None)


@pytest.fixture
def mirror(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Return a server that mirrors the site below /kept."""
    monkeypatch.setenv("CLEPDG_MIRRORS", f"{SITE}={server.base}kept")
    server.serve({"kept/corpus.zip": ARCHIVE})
    return server


def fetch(card: Card, folder: Path, given: str | None = None) -> dict[str, Any]:
    return fetching.fetch(card, given, folder / "out", pins=Documents(folder), sleep=lambda seconds: None)


def card_of(url: str, **facts: Any) -> Card:
    return replace(CARD, sources=(Address(url=url, **facts),))


# --- which address is asked


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("https://zenodo.org", "http://m/z"),
        ("https://zenodo.org/", "http://m/z/"),
        ("https://zenodo.org/records/2/f?download=1", "http://m/z/records/2/f?download=1"),
        ("https://zenodo.org?x=1", "http://m/z?x=1"),
        ("https://zenodo.org#part", "http://m/z#part"),
        ("https://zenodo.org/records/1", "http://one"),
        ("https://zenodo.org/records/1/f", "http://one/f"),
        ("https://zenodo.org/records/11/f", "http://m/z/records/11/f"),
        ("https://zenodo.org.evil/a", "https://zenodo.org.evil/a"),
        ("https://zenodo.org:444/a", "https://zenodo.org:444/a"),
        ("https://zenodo.org@evil/a", "https://zenodo.org@evil/a"),
        ("https://evil/https://zenodo.org/a", "https://evil/https://zenodo.org/a"),
        ("http://m/z/a", "http://m/z/a"),
        ("s3://bucket/a", "s3://kept/bucket/a"),
    ],
)
def test_the_longest_prefix_wins_and_ends_at_a_boundary(url: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = "https://zenodo.org/=http://m/z/, https://zenodo.org/records/1 = http://one,,s3://bucket=s3://kept/bucket"
    monkeypatch.setenv("CLEPDG_MIRRORS", entries)
    assert expand(url) == asked


def test_names_are_filled_when_it_is_asked_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEPDG_MIRRORS", f"{SITE}=https://${{WHO}}:${{WORD}}@mirror/kept")
    monkeypatch.setenv("WHO", "me")
    monkeypatch.setenv("WORD", "a/b")
    assert expand(f"{SITE}/f") == "https://me:a%2Fb@mirror/kept/f"
    assert redact_with_mirror(f"{SITE}/f?token=abc") == f"{SITE}/f?token=*** (mirror: https://mirror/kept/f?token=***)"
    monkeypatch.delenv("WORD")
    with pytest.raises(SourceError, match=r"(?s)got: \$\{WORD\}.*mirror: https://mirror/kept/f"):
        expand(f"{SITE}/f")


@pytest.mark.parametrize(
    "entry",
    [
        "https://a",
        "https://a=",
        "=https://b",
        "a=https://b",
        "https://a=b",
        "https://a=s3://b",
        "s3://a=https://b",
        "https://a=https://b?c",
        "https://a=https://b=c",
        "https://a=https://me:hunter2@b",
        "https://a=https://hunter2@b",
        "https://me:hunter2@a=https://b",
        "file:///a=file:///b",
        "https://a=https://b,https://a/=https://c",
    ],
)
def test_malformed_mirrors_are_one_error_without_their_secrets(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEPDG_MIRRORS", f"https://good=https://well,{entry}")
    for ask in (urls.mirrors, lambda: expand("https://other"), load_settings):
        with pytest.raises(
            ConfigError, match=r"(?s)mirrors can't be used.*entry [23].*where: CLEPDG_MIRRORS"
        ) as caught:
            ask()
        assert "hunter2" not in str(caught.value)


# --- what comes of it


@pytest.mark.parametrize("facts", [{}, {"sha256": RIGHT}])
def test_a_mirror_gives_what_the_site_would(
    facts: dict[str, str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same card, asked directly and by its mirror: equal state, output, digests and records."""
    server.serve({"corpus.zip": ARCHIVE, "kept/corpus.zip": ARCHIVE})
    card = card_of(f"{server.base}corpus.zip", **facts)
    direct = source.identify(card, None), fetch(card, tmp_path / "direct")
    assert server.paths == ["/corpus.zip"]
    monkeypatch.setenv("CLEPDG_MIRRORS", f"{server.base}={server.base}kept")
    assert (source.identify(card, None), fetch(card, tmp_path / "by")) == direct
    assert server.paths[1:] == ["/kept/corpus.zip"]
    digests = {source.content_digest(tmp_path / name / "out") for name in ("direct", "by")}
    assert len(digests) == 1
    records = [lockfile.read(Documents(tmp_path / name), "emodb") for name in ("direct", "by")]
    for record in records[1].values():
        assert record.pop("mirror") == f"{server.base}kept/corpus.zip"
    assert records[0] == records[1]
    assert list(records[0]) == [f"{server.base}corpus.zip"]


@pytest.mark.parametrize(
    ("facts", "says"), [({"sha256": RIGHT}, "sha256"), ({"bytes": len(ARCHIVE) - 1}, "bytes"), ({}, "first download")]
)
def test_a_mirror_with_other_bytes_is_refused_and_named(
    facts: dict[str, Any], says: str, mirror: Server, tmp_path: Path
) -> None:
    card = card_of(f"{SITE}/corpus.zip", **facts)
    if not facts:  # the record of what came first binds a mirror as well
        fetch(card, tmp_path)
    mirror.routes["/kept/corpus.zip"] = [Answer(body=ARCHIVE[:-1] + b"X", etag='"two"')]
    with pytest.raises(SourceError, match=says) as caught:
        fetch(card, tmp_path)
    assert f"{SITE}/corpus.zip (mirror: {mirror.base}kept/corpus.zip)" in str(caught.value)
    assert not (tmp_path / "out" / source.TREE).exists()


def test_every_way_of_asking_goes_to_the_mirror(mirror: Server) -> None:
    assert http_client.inspect(CARD, f"{SITE}/corpus.zip")["bytes"] == len(ARCHIVE)
    source.check_reachable(card_of(f"{SITE}/corpus.zip"), None)
    assert source.identify(CARD, f"{SITE}/corpus.zip")["url"] == f"{SITE}/corpus.zip"
    mirror.routes["/kept/list"] = [Answer(body=b"[1]")]
    assert http_client.read_json(CARD, f"{SITE}/list") == [1]
    for ask in (lambda: http_client.inspect(CARD, f"{SITE}/gone"), lambda: http_client.read_json(CARD, f"{SITE}/gone")):
        with pytest.raises(SourceError) as caught:
            ask()
        assert f"where: {SITE}/gone (mirror: {mirror.base}kept/gone)" in str(caught.value)


def test_a_mirror_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEPDG_MIRRORS", f"{SITE}=http://127.0.0.1:1/kept")
    said = f"{SITE}/corpus.zip (mirror: http://127.0.0.1:1/kept/corpus.zip)"
    with pytest.raises(SourceError) as caught:
        fetch(card_of(f"{SITE}/corpus.zip"), tmp_path)
    assert said in str(caught.value)
    with pytest.raises(SourceError) as caught:
        source.check_reachable(card_of(f"{SITE}/corpus.zip"), None)
    assert said in str(caught.value)


def test_single_files_come_by_the_mirror(mirror: Server, own_manifests: Path, tmp_path: Path) -> None:  # noqa: F811
    mirror.serve({f"kept/{path}": data for path, data in FILES.items()})
    write_table(own_manifests / "files.csv", rows_of(FILES))
    card = card_of(f"{SITE}/", files="files.csv")
    assert fetch(card, tmp_path)["files"] == len(FILES)
    assert upstream.check(card, Documents(tmp_path)) == []


def test_a_dataset_and_its_listing_come_by_the_mirror(server: Server, tmp_path: Path, monkeypatch: Any) -> None:
    publish(server, SPEECH)
    monkeypatch.setenv("CLEPDG_MIRRORS", f"{SITE}={server.base}")
    card = card_of(SITE, dataverse="doi:10.5683/SP2/E8H2MF")
    direct = card_of(server.base, dataverse="doi:10.5683/SP2/E8H2MF")
    assert {f.address.url.removeprefix(SITE) for f in file_lists.list_address(card, card.sources[0])} == {
        f.address.url.removeprefix(server.base.rstrip("/")) for f in file_lists.list_address(direct, direct.sources[0])
    }
    assert fetch(card, tmp_path)["files"] == len(SPEECH)


def test_other_file_systems_have_mirrors_and_keep_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe({"/mirror/corpus/a.wav": b"one", "/mirror/corpus/b/c.wav": b"two"})
    monkeypatch.setenv("CLEPDG_MIRRORS", "memory://site=memory://mirror")
    files = file_lists.list_folder(CARD, "memory://site/corpus/")
    assert [(f.path, f.address.url) for f in files] == [
        ("a.wav", "memory://site/corpus/a.wav"), ("b/c.wav", "memory://site/corpus/b/c.wav"),
    ]  # fmt: skip
    assert object_store.inspect(CARD, files[0].address.url)["bytes"] == 3
    with pytest.raises(SourceError, match=r"memory://site/gone \(mirror: memory://mirror/gone\)"):
        object_store.inspect(CARD, "memory://site/gone")


def test_bytes_of_a_mirror_are_not_appended_to_those_of_the_site(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both name the same validator, which promises equal bytes of one server only."""
    other = io.BytesIO(ARCHIVE[:-100_000] + b"\0" * 100_000).read()
    server.routes = {"/a.zip": [Answer(send=200_000), Answer(status=404)], "/kept/a.zip": [Answer(body=other)]}
    address, part = Address(url=f"{server.base}a.zip"), tmp_path / "part"
    with pytest.raises(SourceError):
        one_file.download(CARD, address, tmp_path, lambda done, total: None, lambda seconds: None)
    assert part.stat().st_size > 100_000
    monkeypatch.setenv("CLEPDG_MIRRORS", f"{server.base}={server.base}kept")
    one_file.download(CARD, address, tmp_path, lambda done, total: None, lambda seconds: None)
    assert part.read_bytes() == other
    assert server.requests[-1] == ("GET", None)


def test_the_etag_of_a_mirror_is_no_change_upstream_but_its_size_is(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.routes = {"/a.zip": [Answer()], "/kept/a.zip": [Answer(etag='"mine"')]}
    card, documents = card_of(f"{server.base}a.zip"), Documents(tmp_path)
    fetch(card, tmp_path)
    monkeypatch.setenv("CLEPDG_MIRRORS", f"{server.base}={server.base}kept")
    assert upstream.check(card, documents) == [] == upstream.changes(card, documents)
    server.routes["/kept/a.zip"] = [Answer(body=ARCHIVE + b"more", etag='"mine"')]
    upstream.check(card, documents)
    assert f"bytes {len(ARCHIVE)} -> {len(ARCHIVE) + 4}" in upstream.changes(card, documents)[0]


# --- settings.toml


def test_settings_reach_the_library_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "var" / "settings.toml"
    path.write_text(f'[mirrors]\n"{SITE}" = "http://one"\n"https://other" = "http://two"\n')
    load_settings()
    assert (expand(f"{SITE}/a"), expand("https://other/a")) == ("http://one/a", "http://two/a")
    path.write_text(f'[mirrors]\n"{SITE}" = "http://three"\n')  # a process that lives on follows the file
    load_settings()
    assert (expand(f"{SITE}/a"), expand("https://other/a")) == ("http://three/a", "https://other/a")
    monkeypatch.setenv("CLEPDG_MIRRORS", f"{SITE}=http://mine")
    load_settings()
    assert expand(f"{SITE}/a") == "http://mine/a"
    monkeypatch.delenv("CLEPDG_MIRRORS")
    path.write_text("")
    load_settings()
    assert expand(f"{SITE}/a") == f"{SITE}/a"


@pytest.mark.parametrize(
    "text",
    [
        'mirrors = "https://a=https://b"',
        "mirrors = 3",
        '[mirrors]\n"https://a" = 3',
        '[mirrors]\n"https://a" = ["https://b"]',
        '[mirrors]\n"https://a" = "https://me:hunter2@b"',
        '[mirrors]\n"https://a" = "https://b,https://c=https://hunter2"',
        '[mirrors]\n"a" = "https://b"',
    ],
)
def test_malformed_settings_are_one_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "var" / "settings.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"mirrors can't be used(?s:.*)settings\.toml") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_records_and_part_files_hold_no_secret(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "hunter2")
    monkeypatch.setenv("CLEPDG_MIRRORS", f"{SITE}={server.base.replace('//', '//me:${WORD}@')}kept")
    server.serve({"kept/corpus.zip": ARCHIVE})
    fetch(card_of(f"{SITE}/corpus.zip"), tmp_path)
    texts = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert any(SITE in text for text in texts) and not any("hunter2" in text for text in texts)
    assert json.loads((tmp_path / "pins/emodb.json").read_text()).keys() == {f"{SITE}/corpus.zip"}
    assert CONTENT["readme.txt"] == (source.root(tmp_path / "out") / "readme.txt").read_bytes()
