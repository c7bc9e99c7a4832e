"""Protects the user's own cards: found first, never mixed with another folder's, known to the flow as well."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clepdg.config import manifests
from clepdg.corpora import cards
from clepdg.corpora.cards import corpus_names, load_card
from clepdg.download import file_lists
from clepdg.download import source as sources
from clepdg.errors import ConfigError
from clepdg_tasks.host.settings import PROJECT, load_settings

TEXT = (manifests.MANIFESTS / "emodb.toml").read_text()


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "var"))
    names = ("CLEPDG_CARDS", "CLEPDG_CARDS_WRITTEN")
    for name in names:
        monkeypatch.setenv(name, "")  # remembered, to be put back
        monkeypatch.delenv(name)
    yield
    for name in names:
        os.environ.pop(name, None)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a folder with a corpus of its own, and another card of emodb."""
    folder = tmp_path / "var" / "my cards"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(TEXT.replace('name = "emodb"', 'name = "mine"'))
    (folder / "emodb.toml").write_text(TEXT.replace('title = "EmoDB', 'title = "My EmoDB'))
    (folder / "._emodb.toml").write_bytes(b"\0\5\26\7")  # what macOS leaves beside it
    return folder


def test_own_cards_come_first_and_the_others_stay(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = corpus_names()
    published = load_card("emodb").title
    monkeypatch.setenv("CLEPDG_CARDS", str(own))
    assert corpus_names() == tuple(sorted([*before, "mine"]))
    assert load_card("emodb").title.startswith("My EmoDB") and load_card("mine").name == "mine"
    assert load_card("tess").name == "tess"
    monkeypatch.delenv("CLEPDG_CARDS")
    assert load_card("emodb").title == published
    with pytest.raises(ConfigError, match="no such corpus"):
        load_card("mine")
    assert corpus_names() == before


def test_another_folders_card_is_not_served(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(own, other := tmp_path / "other")
    (other / "mine.toml").write_text((own / "mine.toml").read_text().replace('language = "de"', 'language = "en"'))
    for folder, language in ((own, "de"), (other, "en"), (own, "de")):
        monkeypatch.setenv("CLEPDG_CARDS", str(folder))
        assert load_card("mine").language == language


def test_a_table_is_looked_up_where_cards_are(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = '[[sources]]\nurl = "https://site.example/"\nfiles = "{}"\n'
    head = TEXT.partition("[[sources]]")[0]
    (own / "mine.toml").write_text(head.replace('name = "emodb"', 'name = "mine"') + source.format("mine.csv"))
    (own / "emodb.toml").write_text(head + source.format("crema-d.files.csv"))
    table = own / "mine.csv"
    table.write_text(f"path,bytes,sha256\na.wav,1,{'0' * 64}\n")
    monkeypatch.setenv("CLEPDG_CARDS", str(own))
    card = load_card("mine")
    assert [file.path for file in file_lists.list_address(card, card.sources[0])] == ["a.wav"]
    assert cards.published(card) == {"a.wav": "0" * 64}
    before = sources.identify(card, None)
    table.write_text(f"path,bytes,sha256\na.wav,1,{'1' * 64}\n")
    assert sources.identify(card, None) != before
    card = load_card("emodb")  # names one of data_manifests
    assert len(file_lists.list_address(card, card.sources[0])) == 7442


def test_settings_name_a_folder_beside_them_and_the_environment_wins(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "var" / "settings.toml"
    settings.write_text('cards = "my cards"\n')
    load_settings()
    assert os.environ["CLEPDG_CARDS"] == str(own) and load_card("mine").name == "mine"
    settings.write_text("")
    load_settings()
    assert "mine" not in corpus_names()
    (tmp_path / "empty").mkdir()
    settings.write_text('cards = "my cards"\n')
    monkeypatch.setenv("CLEPDG_CARDS", str(tmp_path / "empty"))
    load_settings()
    assert "mine" not in corpus_names()


@pytest.mark.parametrize("text", ['cards = "not there"', "cards = 3", 'cards = ["a"]', 'cards = "settings.toml"'])
def test_what_is_no_folder_is_one_error(text: str, own: Path, tmp_path: Path) -> None:
    (tmp_path / "var" / "settings.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"(?s)(not a folder|not there|not a text).*settings\.toml"):
        load_settings()


@pytest.mark.parametrize("name", ["My corpus", "a(b", "a_b", "-a", "a--b"])
def test_a_name_that_would_break_others_is_refused(name: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEPDG_CARDS", str(own))
    (own / f"{name}.toml").write_text(TEXT)
    with pytest.raises(ConfigError, match="file name is no valid corpus name"):
        corpus_names()
    with pytest.raises(ConfigError):
        load_card(name)


def test_no_card_is_read_from_elsewhere(own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEPDG_CARDS", str(own))
    shutil.copy(own / "mine.toml", own.parent / "mine.toml")
    with pytest.raises(ConfigError, match="no such corpus"):
        load_card("../mine")


def test_a_worker_knows_the_cards_of_the_settings(own: Path, tmp_path: Path) -> None:
    """The flow lists corpora as it is imported, before any command has read the settings."""
    (tmp_path / "var" / "settings.toml").write_text('cards = "my cards"\n')
    code = "import clepdg_flows.clep_dg as f; print('mine' in f.CORPORA, 'mine' in f.FOLD)"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, cwd=PROJECT
    )
    assert said.stdout.strip() == "True True"


def test_cards_of_the_working_folder_are_found_by_children_that_work_elsewhere(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.rename(tmp_path / "data_manifests")
    assert "mine" not in corpus_names()
    monkeypatch.chdir(tmp_path)
    assert load_card("mine").name == "mine" and load_card("emodb").title.startswith("My EmoDB")
    load_settings()
    monkeypatch.chdir("/")
    assert load_card("mine").name == "mine"


def test_a_named_folder_replaces_the_working_folders(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data_manifests").mkdir()
    (tmp_path / "data_manifests" / "other.toml").write_text(TEXT.replace('name = "emodb"', 'name = "other"'))
    monkeypatch.chdir(tmp_path)
    assert "other" in corpus_names()
    (tmp_path / "var" / "settings.toml").write_text('cards = "my cards"')
    load_settings()
    assert "mine" in corpus_names() and "other" not in corpus_names()
