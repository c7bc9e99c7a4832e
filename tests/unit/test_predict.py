"""Protects `clep-dg predict`: it streams, continues what was killed, and no bad file stops the others."""

import argparse
import io
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from clepdg.audio.segments import cut_pieces, parse_segments
from clepdg.errors import ConfigError, IndexingError
from clepdg.method.emotion_classifier import BATCH, EmotionClassifier
from clepdg.method.heads import Head
from clepdg_flows.cli import main as cli
from clepdg_flows.cli import predict
from clepdg_flows.cli.prediction_files import Predictions

RATE = 16_000
LABELS = ("angry", "sad")


@pytest.fixture(scope="module")
def model(micro: Any) -> EmotionClassifier:
    weight = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    return EmotionClassifier(
        micro, Head(labels=LABELS, cosine=True, weight=weight, bias=torch.zeros(2), mean=torch.zeros(128))
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Return 40 files, more than a batch, in a folder `speech`."""
    (tmp_path / "speech").mkdir()
    paths = [tmp_path / "speech" / f"{number:02d}.wav" for number in range(BATCH + 8)]
    for number, path in enumerate(paths):
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 4000 + 100 * number), RATE)
    return paths


@pytest.fixture
def run(model: EmotionClassifier, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs the command with the model, and returns its exit code."""
    monkeypatch.setattr(predict, "registry_settings", lambda preset: None)
    monkeypatch.setattr(predict, "_load", lambda options, settings: (model, f"{options.preset}-classifier/1"))

    def command(*words: object) -> int:
        try:
            cli.main(["predict", *map(str, words)])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return command


def table(path: Path) -> pd.DataFrame:
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda each: pd.read_json(each, lines=True)}
    return read[path.suffix](path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_format_has_what_the_library_says_of_each_file(run, model, files, tmp_path, suffix):
    out = tmp_path / f"predictions{suffix}"
    assert run(files[0].parent, "--out", out) == 0
    found, expected = table(out), pd.concat([model.predict(path) for path in files])
    assert found.path.tolist() == expected.index.tolist() and found.emotion.tolist() == expected.emotion.tolist()
    np.testing.assert_allclose(found[list(LABELS)], expected[list(LABELS)], atol=2e-6)
    assert set(found.model) == {"open-classifier/1"}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]
    before = out.read_bytes()
    assert run(files[0].parent, "--out", out) == 0 and out.read_bytes() == before


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("segments", [(), ("--segments", "fixed:0.2s")])
def test_a_killed_command_loses_nothing_and_repeats_nothing(run, files, tmp_path, monkeypatch, suffix, segments):
    out, asked = tmp_path / f"predictions{suffix}", list[str]()
    rows = out if suffix == ".jsonl" else tmp_path / f"predictions{suffix}.jsonl"
    predict_each = EmotionClassifier.predict_each

    def killed(self: EmotionClassifier, left: list[str], cut: Any) -> Any:
        asked.extend(left)
        yield from itertools.islice(predict_each(self, left, cut), 12 if len(left) == len(files) else None)
        if len(left) == len(files):
            raise KeyboardInterrupt

    monkeypatch.setattr(EmotionClassifier, "predict_each", killed)
    assert run(*files, "--out", out, *segments) == 130
    kept = rows.read_text()
    rows.write_text(kept[: -len(kept.splitlines()[-1]) // 2])  # its last row is half there
    assert run(*files, "--out", out, *segments) == 0
    assert asked[len(files) :] == [str(path) for path in files[11:]]
    monkeypatch.setattr(EmotionClassifier, "predict_each", predict_each)
    assert run(*files, "--out", tmp_path / "whole.csv", *segments) == 0
    pd.testing.assert_frame_equal(table(out)[["path", "emotion"]], table(tmp_path / "whole.csv")[["path", "emotion"]])


def test_a_bad_file_is_a_row_and_is_tried_again(run, files, tmp_path, capsys):
    out, good = tmp_path / "predictions.csv", files[1].read_bytes()
    files[1].write_bytes(good[: len(good) // 2])
    assert run(*files[:3], tmp_path / "none.wav", "--out", out) == 1
    found = table(out).set_index("path")
    assert found.error[str(files[1])].startswith("truncated: its header promises")
    assert found.error[str(tmp_path / "none.wav")] == "there is no such file"
    assert found.emotion.notna().sum() == 2 and "2 of 4 files can't be used" in capsys.readouterr().err
    files[1].write_bytes(good)
    assert run(*files[:3], "--out", out) == 0
    assert sorted(table(out).path) == [str(path) for path in files[:3]] and table(out).error.isna().all()


def test_rows_are_printed_for_people_and_for_programs(run, files, tmp_path, capsys):
    assert run(files[0], tmp_path / "none.wav") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(str(files[0])) and "angry 0." in lines[0] and "no such file" in lines[1]
    assert run(files[0], tmp_path / "none.wav", "--json") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0].keys() == {"path", "emotion", *LABELS, "model"}
    assert rows[1] == {"path": str(tmp_path / "none.wav"), "error": "there is no such file", "model": rows[0]["model"]}


def test_files_are_read_as_they_are_needed(model, files):
    """An endless stream of files is answered from its first batch on."""
    path, pieces = next(model.predict_each(itertools.repeat(files[0])))
    assert path == str(files[0]) and len(pieces) == 1


def test_folders_patterns_and_stdin_name_files(files, tmp_path, monkeypatch):
    folder, names = files[0].parent, [str(path) for path in files]
    (folder / "._00.wav").write_bytes(b"")
    (folder / "notes.txt").write_bytes(b"")
    (tmp_path / "a[1].wav").write_bytes(b"")
    assert predict.find_audio([str(folder)]) == names
    assert predict.find_audio([f"{tmp_path}/**/0?.wav", names[0]]) == names[:10]
    assert predict.find_audio([f"{tmp_path}/a[1].wav"]) == [f"{tmp_path}/a[1].wav"]
    for end in ("\n", "\0"):
        given = SimpleNamespace(buffer=io.BytesIO("".join(name + end for name in names[:2]).encode()))
        monkeypatch.setattr("sys.stdin", given)
        assert predict.find_audio(["-"]) == names[:2]
    (tmp_path / "empty").mkdir()
    for nothing in (f"{tmp_path}/empty", f"{tmp_path}/*.mp3"):
        with pytest.raises(ConfigError, match=rf"(?s)There is no audio.*{re.escape(nothing)}.*\.wav"):
            predict.find_audio([nothing])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO()))
    with pytest.raises(ConfigError, match=r"(?s)There is no audio: no path came.*a path a line.*\.wav.*stdin"):
        predict.find_audio(["-"])


@pytest.mark.parametrize(
    ("content", "suffix", "words"),
    [
        ("path,emotion,angry,sad,error,model\na.wav,sad,0.5,0.5,,another/1\n", ".csv", "model another/1"),
        ("name,age\nann,3\n", ".csv", "name, age"),
        ('{"a": 1}\n', ".jsonl", "got: a"),
        ("PAR1", ".parquet", "can't be continued"),
        ("x\n", ".jsonl", "line 1: x"),
    ],
)
def test_another_file_is_not_continued(run, files, tmp_path, capsys, content, suffix, words):
    out = tmp_path / f"x{suffix}"
    out.write_text(content)
    assert run(files[0], "--out", out) == 2
    assert words in capsys.readouterr().err and out.read_text() == content
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]


def test_two_commands_do_not_write_one_file(tmp_path):
    first = Predictions(tmp_path / "x.jsonl", ("path", "error", "model"), {"model": "m"})
    with pytest.raises(ConfigError, match="Another clep-dg predict"):
        Predictions(tmp_path / "x.jsonl", ("path", "error", "model"), {"model": "m"})
    first.close()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--out", "x.txt"), "--out can't be such a file"),
        (("--out", "none/x.csv"), "no such folder"),
        (("--plot", "x.png"), "one recording"),
        (("--out", "/proc/x.csv"), "This place can't be written"),
        (("--out", "folder.csv"), "This place can't be written"),
        (("--segments", "fixed:1s", "--plot", "/proc/x.png"), "This place can't be written"),
        (("--emotions", "sad"), "no emotions to choose from"),
        (("--segments", "fixed:5"), "can't be cut"),
        (("--segments", "fixed:5s/6s"), "can't be cut"),
        (("--segments", "fixed:0.1s"), "can't be cut"),
    ],
)
def test_options_that_can_not_be_meant_are_refused(run, files, capsys, tmp_path, monkeypatch, words, what):
    """Before any work: no model is loaded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.setattr(predict, "_load", lambda options, settings: pytest.fail("a model is loaded"))
    assert run(files[0], *words) == 2
    said = capsys.readouterr().err
    assert what in said and "continues" not in said


def test_one_file_is_not_two(run, tmp_path, capsys):
    (tmp_path / "a.wav").write_bytes(b"")
    assert run(tmp_path / "a.wav") == 1
    assert "1 of 1 file can't be used." in capsys.readouterr().err


def test_a_recording_is_cut_into_pieces_without_silence():
    noise = np.random.default_rng(0).normal(0, 0.1, 11 * RATE).astype(np.float32)
    spans = [(0, 5), (2.5, 7.5), (5, 10), (6, 11)]
    assert cut_pieces(noise, RATE, parse_segments("fixed:5s/2.5s")) == [(a * RATE, b * RATE) for a, b in spans]
    assert cut_pieces(noise[:RATE], RATE, parse_segments("fixed:5s")) == [(0, RATE)]
    noise[2 * RATE : 9 * RATE] = 0
    assert cut_pieces(noise, RATE, parse_segments("fixed:2s")) == [
        (0, 2 * RATE),
        (8 * RATE, 10 * RATE),
        (9 * RATE, 11 * RATE),
    ]
    with pytest.raises(IndexingError, match="no piece of it"):
        cut_pieces(0 * noise, RATE, parse_segments("fixed:2s"))


def test_a_long_recording_has_times_and_a_picture(run, tmp_path, capsys):
    path, picture = tmp_path / "talk.flac", tmp_path / "talk.svg"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 90 * 8000), 8000)  # longer than an utterance may be
    assert run(path, "--segments", "fixed:10s", "--json", "--plot", picture) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["start"], row["end"]) for row in rows] == [(10.0 * n, 10.0 * n + 10) for n in range(9)]
    assert rows[3]["segment"] == "4/9" and picture.read_text().count("<svg") == 1
    assert run(path) == 1
    shown = capsys.readouterr()
    assert "too long: 90.0 s" in shown.out and "--segments vad" in shown.err


def test_speech_is_found_by_a_voice_activity_detector():
    pytest.importorskip("silero_vad", reason="needs the extra vad")
    threads = torch.get_num_threads()
    noise = np.random.default_rng(0).normal(0, 0.001, 3 * RATE).astype(np.float32)
    with pytest.raises(IndexingError, match="no piece of it"):
        cut_pieces(noise, RATE, parse_segments("vad"))
    assert torch.get_num_threads() == threads


def test_a_version_of_another_registry_is_another_model(model, monkeypatch) -> None:
    """Its number may be the same, and a file of predictions must not mix them."""
    from clepdg_tasks.tracking import model_registry

    monkeypatch.setattr(model_registry, "load_classifier", lambda *given, **options: model)
    names = set()
    for key in ("a" * 64, "b" * 64):
        found = SimpleNamespace(version="1", tags={"stage_key": key})
        monkeypatch.setattr(model_registry, "find_version", lambda *given, found=found: found)
        options = argparse.Namespace(preset="demo", version=None, emotions=None)
        names.add(predict._load(options, None)[1])
    assert names == {"demo-clep-dg-classifier/1 aaaaaaaa", "demo-clep-dg-classifier/1 bbbbbbbb"}
