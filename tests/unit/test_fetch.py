"""Protects clep-dg fetch: what it brings is whole, under checksums, and taken by another run as its source."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from clepdg.corpora.cards import load_card
from clepdg.download import source as sources
from clepdg.hashing import digest_file
from clepdg_flows.cli.main import main
from tests.unit import trees


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "var"))


def test_corpora_are_brought_with_checksums_and_taken_as_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meld = trees.meld_archive(trees.meld(tmp_path / "made"), tmp_path / "MELD.Raw.tar.gz")
    folder = tmp_path / "to carry"
    asked = ["fetch", str(folder), "--corpora", "savee,meld"]
    main([*asked, "--source", f"savee={trees.savee(tmp_path / 'savee')}", "--source", f"meld={meld}"])
    assert {path.name for path in folder.iterdir() if path.suffix != ".lock"} == {
        "savee", "savee.sha256", "savee.source.json", "meld", "meld.sha256", "meld.source.json",
    }  # fmt: skip
    for corpus in ("savee", "meld"):
        subprocess.run(["sha256sum", "-c", "--quiet", f"../{corpus}.sha256"], cwd=folder / corpus, check=True)
        assert sources.identify(load_card(corpus), str(folder / corpus))["kind"] == "folder"
    said = capsys.readouterr().out
    assert f"--source savee='{folder}/savee'" in said and "Already there" not in said
    before = {path: digest_file(path) for path in folder.rglob("*.wav")}
    for again in (asked, [*asked, "--source", f"savee={tmp_path / 'savee'}"]):  # nothing is brought again
        main(again)
        assert "Already there: savee, meld." in capsys.readouterr().out
        assert {path: digest_file(path) for path in folder.rglob("*.wav")} == before


def test_another_source_does_not_pass_for_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["fetch", str(tmp_path / "out"), "--corpora", "savee", "--source"]
    tree = trees.savee(tmp_path / "savee")
    main([*asked, f"savee={tree}"])
    before = (tmp_path / "out" / "savee.source.json").read_bytes()
    shutil.copytree(tree, tmp_path / "other")
    (tree / "Info.txt").write_text("changed")
    for source in (tmp_path / "other", tree):
        with pytest.raises(SystemExit) as caught:
            main([*asked, f"savee={source}"])
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert "is there already, from another source" in said and str(source) in said and str(tree) in said
    assert (tmp_path / "out" / "savee.source.json").read_bytes() == before
    (tmp_path / "out" / "savee.source.json").unlink()
    with pytest.raises(SystemExit):
        main([*asked, f"savee={tree}"])
    assert (tmp_path / "out" / "savee" / "Info.txt").read_text() == "about"


def test_one_that_can_t_be_had_does_not_keep_the_others_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"savee={trees.savee(tmp_path / 'savee')}"
    with pytest.raises(SystemExit) as caught:
        main(["fetch", str(tmp_path / "out"), "--corpora", "iemocap,savee", "--source", source])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "1 of 2 corpora could not be fetched; the others are there" in said and "--source iemocap=" in said
    assert (tmp_path / "out" / "savee" / "Info.txt").exists() and not (tmp_path / "out" / "iemocap").exists()


def test_synthetic_corpora_are_not_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fetch", str(tmp_path / "out"), "--corpora", "synthetic-1,tess"])
    assert "generated, not fetched" in capsys.readouterr().err


def test_a_killed_fetch_leaves_nothing_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*args: object, **options: object) -> None:
        raise Killed

    source = f"savee={trees.savee(tmp_path / 'savee')}"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", killed)
        with pytest.raises(Killed):
            main(["fetch", str(tmp_path / "out"), "--corpora", "savee", "--source", source])
    assert not (tmp_path / "out" / "savee").exists()
    main(["fetch", str(tmp_path / "out"), "--corpora", "savee", "--source", source])
    assert (tmp_path / "out" / "savee" / "Info.txt").exists()


def test_a_place_that_is_no_folder_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main(["fetch", str(tmp_path / "file"), "--corpora", "tess"])
    assert "can't be read or stored" in capsys.readouterr().err


def test_what_is_not_the_corpus_is_refused_and_does_not_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/a.txt").write_text("a")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.txt", "a")
    other = trees.savee(tmp_path / "savee")
    for source, says in (("letters", "no audio file"), ("a.zip", "no audio file"), (other.name, "grammar")):
        with pytest.raises(SystemExit) as caught:
            main(["fetch", str(tmp_path / "out"), "--corpora", "emodb", "--source", f"emodb={tmp_path / source}"])
        said = capsys.readouterr().err
        assert caught.value.code == 2 and "emodb holds no utterance" in said and says in said
        assert str(tmp_path / source) in said and "expected: 535 utterances" in said
        assert not (tmp_path / "out/emodb").exists()


def test_a_copy_that_is_not_whole_is_told_each_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = f"savee={trees.savee(tmp_path / 'savee')}"
    for _ in range(2):
        caplog.clear()
        main(["fetch", str(tmp_path / "out"), "--corpora", "savee", "--source", source])
        (told,) = caplog.messages
        assert told.startswith("savee is not whole: ") and told.endswith("its card has 480")
