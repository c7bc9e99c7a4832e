"""Protects the command line's answers to wrong input: one clear message, exit code 2, no traceback, nothing started."""

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clepdg.audio.inspection import read_audio, read_usable
from clepdg.callbacks import Reporting
from clepdg.errors import ClepError, CorpusError
from clepdg_flows.cli.main import _parser, main
from clepdg_flows.run.plan import make_plan
from clepdg_tasks.engine import execute
from clepdg_tasks.engine.node import decide
from clepdg_tasks.engine.run_history import Arguments, run_name
from clepdg_tasks.host.settings import load_settings
from tests.unit import trees


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.chdir(tmp_path)


def complaint(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return text


REAL = ("run", "--backbone", "micro", "--corpora", "ravdess,tess")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("run", "--preset", "full"), ("full", "demo, open")),
        (("run", "--preset", "demo", "--until", "train"), ("train", "text_embeddings")),
        (("run", "--preset", "demo", "--redo", "train"), ("train", "text_embeddings")),
        (("run", "--preset", "demo", "--folds", "leave-out-x"), ("leave-out-x", "leave-out-synthetic-1")),
        (("run", "--corpora", "radvess"), ("radvess", "did you mean ravdess? docs/corpora.md lists all")),
        ((*REAL, "--source", "tess=~nobody-of-that-name/x"), ("source of tess does not exist",)),
        ((*REAL, "--source", f"tess={'x' * 5000}"), ("source of tess does not exist",)),
        (("import-laion", "~nobody-of-that-name/x", "out"), ("no such checkpoint",)),
        (("import-laion", "x" * 5000, "out"), ("no such checkpoint",)),
        (("run", "--preset", "demo", "--set", "clep.epoch=3"), ("clep.epoch", "did you mean clep.epochs")),
        (("run", "--preset", "demo", "--set", "clep.epochs=x"), ("clep.epochs", "'x'", "whole number")),
        (("run", "--preset", "demo", "--set", "clep.epochs"), ("--set", "NAME=VALUE")),
        (("run", "--preset", "demo", "--set", "rows=acpt"), ("acpt", "text-acpt")),
        (("run", "--preset", "demo", "--source", "tess=x.zip"), ("tess", "synthetic-1")),
        (("run", "--preset", "demo", "--backbone", "laion/x"), ("micro",)),
        (("status", "--preset", "full"), ("full", "demo, open")),
        ((*REAL, "--source", "tess=no.zip", "--source", "ravdess=."), ("no.zip",)),
        (("status", *REAL[1:], "--source", "tess=no.zip", "--source", "ravdess=nor.zip"), ("/no.zip", "/nor.zip")),
        (("run", "--corpora", ","), ("--corpora can't have this value", "at least one name")),
        (("run", "--folds", "supervised,supervised"), ("got: supervised,supervised", "none twice")),
        (("run", "--corpora", "tess,emodb", "--source", "tess=a", "--source", "tess=b"), ("twice", "tess")),
        (("run", "--corpora", "tess,emodb", "--backbone", "no/such/folder"), ("no/such/folder", "no such folder")),
        (("run", "--preset", "demo", "--set", "rows=encoder"), ("encoder.name",)),
        (("run", "--preset", "demo", "--set", "encoder.name=no/folder"), ("no/folder", "HF_HUB_OFFLINE")),
        (
            ("run", "--preset", "demo", "--set", "encoder.name=a/b", "--set", "encoder.revision=f00"),
            ("model's files are not here", "a/b@f00", "HF_HUB_OFFLINE"),
        ),
        (("run", "--preset", "demo", "--set", "encoder.name=."), ("model's folder", "no config.json")),
        (("run", "--preset", "demo", "--set", "encoder.revision=f00"), ("where: encoder.revision", "f00")),
        (("compare", "--preset", "full"), ("full", "demo, open")),
        (("compare",), ("No classifier is registered yet", "clep-dg run")),
        (("promote", "1", "--why", "x"), ("No classifier is registered yet", "clep-dg run")),
        (("predict", "--preset", "full", "a.wav"), ("full", "demo, open")),
    ],
)
def test_wrong_arguments(capsys, argv, words):
    text = complaint(capsys, *argv)
    assert all(word in text for word in words), text
    assert not Path("var/store/runs").exists()


@pytest.mark.parametrize(
    ("argv", "meant", "listed"),
    [
        (("rnu",), "run", "clep-dg --help"),
        (("run", "--preste", "demo"), "--preset", "clep-dg run --help"),
        (("--verison",), "--version", "--help"),
        (("run", "--preset", "DMEO"), "demo", "speech"),
        (("run", "--corpora", "ravdes,tess"), "ravdess", "docs/corpora.md"),
        (("run", "--until", "clpe"), "clep", "text_embeddings"),
        (("run", "--set", "epochs=3"), "clep.epochs or acpt.epochs", "docs/reference.md#settings-of-a-run"),
        (("run", "--preset", "demo", "--folds", "supervisd"), "supervised", "leave-out-synthetic-5"),
        (("run", "--preset", "demo", "--set", "rows=text-actp"), "text-acpt", "docs/method.md#rows"),
        (("run", "--set", "evaluate.conditions=white-10db"), "white-10dB", "docs/method.md#conditions"),
        (("run", "--backbone", "daul:a+b"), "dual:", "laion:"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(capsys, argv, meant, listed):
    text = complaint(capsys, *argv)
    assert f"did you mean {meant}?" in text and listed in text, text
    assert len(text) < 500


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), ("A command is missing",)),
        (("run", "demo"), ("Nothing is expected", "demo")),
        (("predict",), ("An argument is missing.", "expected: FILE")),
        (("run", "--preset"), ("--preset needs a value.", "expected: one argument")),
        (("run", "--set"), ("--set needs a value.",)),
        (("run", "--json=3"), ("--json takes no value.", "got: 3")),
        (("run", "--re"), ("An option is short for several.", "got: --re", "expected: --redo, --refresh")),
        (("promote", "--why", "x", "y"), ("version can't have this value.", "got: y", "expected: a version's number")),
        (("promote", "0", "--why", "x"), ("version can't have this value.", "got: 0")),
        (("serve", "--max-files", "abc"), ("--max-files can't", "got: abc", "expected: a whole number, 1 or more")),
        (("serve", "--max-files", "0"), ("--max-files can't", "got: 0")),
        (("serve", "--max-megabytes", "nan"), ("--max-megabytes can't", "got: nan", "expected: megabytes")),
        (("serve", "--max-seconds", "1e9"), ("--max-seconds can't", "expected: seconds, 0.2 to 3600")),
        (("serve", "--port", "70000"), ("--port can't", "got: 70000", "expected: 0 to 65535")),
    ],
)
def test_faults_of_the_parser_look_like_all_others(capsys, argv, words):
    text = complaint(capsys, *argv)
    assert text.startswith("clep-dg: ") and "--help shows how it is called" in text
    assert all(word in text for word in words), text
    assert "usage:" not in text and "argument -" not in text and "invalid" not in text


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("deploy", "--alerts", "x"), ("no name of a notification block", "got: x", "TYPE/NAME")),
        (("compare", "one"), ("VERSION can't have this value", "got: one", "a version's number, or champion")),
        (("compare", "1", "2", "3"), ("Two versions can be compared", "1, 2, 3")),
        (("promote", "1", "--why", " "), ("needs a reason", "--why")),
        (("compare", "--preset", "full"), ("no such preset",)),
        (("serve", "--preset", "full"), ("no such preset",)),
        (("predict", "--emotions", "sad", "a.wav"), ("no emotions to choose from",)),
        (("predict", "--segments", "x", "a.wav"), ("can't be cut like this",)),
        (("export", "1", "new", "--push", "x"), ("no repository of this name",)),
    ],
)
def test_arguments_are_checked_before_servers_are_asked(capsys, monkeypatch, argv, words):
    monkeypatch.setenv("CLEPDG_TRACKING_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    text = complaint(capsys, *argv)
    assert all(word in text for word in words) and "does not answer" not in text, text


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"clep-dg {metadata.version('clep-dg')}\n"


def test_wrong_archives_are_all_named_at_once(capsys):
    Path("page.zip").write_text("<html>Not found</html>")
    Path("empty").mkdir()
    text = complaint(capsys, *REAL, "--source", "ravdess=page.zip", "--source", "tess=empty")
    assert "2 things must be fixed" in text
    assert all(word in text for word in ("page.zip", "neither a folder nor an archive", "empty"))


def test_an_escaping_zip_is_refused_and_writes_nothing(capsys):
    with zipfile.ZipFile("evil.zip", "w") as archive:
        archive.writestr("Actor_01/03-01-01-01-01-01-01.wav", b"x")
        archive.writestr("../../escaped.wav", b"x")
    from clepdg.corpora.cards import load_card
    from clepdg.download import fetch
    from clepdg.errors import SourceError

    with pytest.raises(SourceError, match="escaped"):
        fetch.fetch(load_card("ravdess"), str(Path("evil.zip").absolute()), Path("out"))
    assert not list(Path().resolve().parent.rglob("escaped.wav"))


def test_files_that_can_not_be_heard_are_all_named(tmp_path):
    Path("text.wav").write_text("hello")
    Path("nothing.wav").write_bytes(b"")
    soundfile.write("empty.wav", np.zeros(0), 16000)
    soundfile.write("silent.wav", np.zeros(16000), 16000)
    soundfile.write("short.wav", np.ones(50) * 0.1, 16000)
    soundfile.write("nan.wav", np.array([0.0, np.nan], dtype=np.float32), 16000, subtype="FLOAT")
    names = ("text.wav", "nothing.wav", "empty.wav", "nan.wav", "silent.wav", "short.wav")
    with pytest.raises(ClepError) as caught:
        list(read_usable([(name, tmp_path / name) for name in names], read_audio))
    text = str(caught.value)
    for name, reason in (
        ("text", "not readable"),
        ("nothing", "empty"),
        ("empty", "holds no samples"),
        ("nan", "finite"),
        ("silent", "silent"),
        ("short", "too short"),
    ):
        line = next(line for line in text.splitlines() if f"{name}.wav" in line)
        assert reason in line


def test_predict_without_a_registered_classifier_says_what_to_run(capsys, tmp_path):
    soundfile.write("a.wav", 0.1 * np.sin(np.arange(16000)), 16000)
    assert "clep-dg run --preset demo" in complaint(capsys, "predict", "--preset", "demo", "a.wav")
    assert not (tmp_path / "var" / "mlflow").exists()


def test_wrong_settings_are_named(capsys, tmp_path, monkeypatch):
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "settings.toml").write_text('stroe = "x"\n')
    assert "stroe" in complaint(capsys, "status")
    (tmp_path / "var" / "settings.toml").write_text("workers = 0\n")
    assert "workers" in complaint(capsys, "status")
    (tmp_path / "var" / "settings.toml").write_text("workers = ")
    assert "can't be read" in complaint(capsys, "status")


def test_an_unusable_device_is_named(capsys, monkeypatch):
    monkeypatch.setenv("CLEPDG_DEVICE", "abacus")
    assert "abacus" in complaint(capsys, "run", "--preset", "demo")


def test_a_tracking_server_that_does_not_answer_is_named_in_seconds(capsys, monkeypatch):
    monkeypatch.setenv("CLEPDG_TRACKING_URL", "http://127.0.0.1:1")
    assert "127.0.0.1:1" in complaint(capsys, "run", "--preset", "demo")
    assert "make up" in complaint(capsys, "compare", "--preset", "demo")


def test_a_prefect_server_that_does_not_answer_is_named_in_seconds(capsys, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    text = complaint(capsys, "run", "--preset", "demo")
    assert all(word in text for word in ("Prefect's server does not answer", "127.0.0.1:1", "make up"))
    assert not list(Path("var/store").glob("runs/*"))


def test_status_before_any_run(capsys):
    main(["status"])
    assert "clep-dg run --preset demo" in capsys.readouterr().out


def test_status_of_a_preset_lists_every_stage(capsys):
    main(["status", "--preset", "demo", "--all"])
    out = capsys.readouterr().out
    assert "0 of 214 stages are up to date. Judged is what these options ask for: clep-dg run --preset demo" in out
    assert "depends on source synthetic-1" in out
    assert len(out.splitlines()) == 215


def test_status_names_what_is_stale_first_and_counts_what_waits_for_it(capsys):
    main(["status", "--preset", "demo"])
    first, *_, waiting, last = capsys.readouterr().out.splitlines()
    assert first.split() == ["source", "synthetic-*", "(5)", "new"]
    assert waiting.startswith("and 208 that depend on these: index 5, shard 5, ")
    assert last.startswith("0 of 214 stages are up to date.")


def test_status_in_json(capsys):
    main(["status", "--preset", "demo", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["arguments"]["preset"] == "demo" and len(found["stages"]) == 214
    assert {each["state"] for each in found["stages"]} == {"stale", "depends on stale"}


@pytest.mark.parametrize("backbone", ["dual:/no/A+/no/B", "dual:{here}+/no/B", "/no/folder"])
def test_status_refuses_a_backbone_as_run_does(capsys, tmp_path, backbone):
    asked = ("--backbone", backbone.format(here=tmp_path), "--corpora", "ravdess,tess")
    said = complaint(capsys, "status", *asked)
    ran = complaint(capsys, "run", *asked, "--source", "tess=.", "--source", "ravdess=.")
    assert said.removeprefix("clep-dg: ").strip() in ran
    main(["status", *asked, "--until", "index"])  # asks for no backbone


def test_status_says_that_a_run_would_refuse_what_stands(capsys, tmp_path):
    source = f"savee={trees.savee(tmp_path / 'savee')}"
    arguments = Arguments(corpora=("savee",), sources=dict([source.split("=")]), until="index")
    settings, records = load_settings(), {}
    for node in make_plan(arguments).nodes:
        with contextlib.suppress(CorpusError):
            records[node.id] = execute.run(
                node,
                decide(node, records, settings.open_store(), dict),
                records,
                settings.open_store(),
                settings,
                reporting=lambda *_: contextlib.nullcontext(Reporting()),
            ).record
    asked = ("status", "--corpora", "savee", "--until", "index", "--source", source)
    main(asked)
    said = capsys.readouterr().out
    assert said.startswith("index ")  # what is stale comes first
    assert "refused: savee differs from its card. got: " in said and "utterances: 56, not 480" in said
    assert "1 of 2 stages are up to date" in said
    main([*asked, "--allow-partial"])
    said = capsys.readouterr().out
    assert said.startswith("All 2 stages are up to date. Judged is what these options ask for: clep-dg run")
    assert said.count("\n") == 1


def test_verify_and_gc_in_json(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["verify", "--json"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["damaged"] == []
    main(["gc", "--dry-run", "--json"])
    assert json.loads(capsys.readouterr().out)["unused"] == []


def test_a_runs_name_says_its_deployment():
    given = {"preset": "open", "until": "shard"}
    assert run_name(given) == "open, until shard"
    assert run_name(given, "data") == "data, open, until shard"


def test_every_command_shows_an_example():
    (commands,) = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    for name, command in commands.choices.items():
        assert f"Example: clep-dg {name}" in command.format_help()


@pytest.mark.parametrize(
    ("line", "expected"),
    [("clep-dg st", {"status"}), ("clep-dg run --pres", {"--preset"}), ("clep-dg run --preset de", {"demo"})],
)
def test_a_shell_completes_commands_options_and_names(line: str, expected: set[str]) -> None:
    settings = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "_ARGCOMPLETE_COMP_WORDBREAKS": " "}
    typed = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "_ARGCOMPLETE_IFS": "|"}
    answers = [sys.executable, "-m", "clepdg_flows.cli.main"]  # on stream 8
    found = subprocess.run(
        ["sh", "-c", f"{shlex.join(answers)} 8>&1 9>/dev/null"],
        env={**os.environ, **settings, **typed},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert {*found.stdout.split("|")} == expected
