"""Protects EmoBox's folds as a split: its keys are our utterances, its parts stay apart, nothing is lost unsaid."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clepdg.config.schema import IndexConfig
from clepdg.corpora.cards import Split, load_card
from clepdg.dataset.emobox import VALIDATION, parts_of, read_fold
from clepdg.dataset.index import build_index
from clepdg.errors import ClepError, ConfigError, CorpusError
from clepdg.hashing import plain
from clepdg_flows.graph import pipeline

# as EmoBox's repository has them: dataset, key, and the name that our grammar gives the file
KEYS = [
    ("ravdess", "ravdess-03-01-07-02-02-02-11", "03-01-07-02-02-02-11"),
    ("cremad", "cremad-1072-IOM-DIS-XX", "1072_IOM_DIS_XX"),
    ("tess", "tess-OAF-turn-happy", "OAF_turn_happy"),
    ("emodb", "emodb-03a02Wb", "03a02Wb"),
    ("meld", "meld-dia0_utt1-dev", "dev_dia0_utt1"),
    ("meld", "meld-dia1038_utt17-train", "train_dia1038_utt17"),
    ("iemocap", "iemocap-Ses01F_impro04_F000", "Ses01F_impro04_F000"),
    ("savee", "savee-JE-n06", "JE_n06"),
    ("esd", "esd-0018-001750", "0018_001750"),
    ("msppodcast", "msppodcast-MSP-PODCAST_2104_2311", "MSP-PODCAST_2104_2311"),
]
STEMS = {
    split: [f"03-01-0{n}-01-01-01-{actor}" for n in range(1, 9)] for split, actor in (("train", "01"), ("test", "02"))
}


def write(folder: Path, **parts: list[str]) -> Path:
    """Write a fold of RAVDESS: part -> names."""
    folder.mkdir(exist_ok=True)
    for part, names in parts.items():
        lines = [json.dumps({"key": f"ravdess-{name}", "dataset": "ravdess", "wav": f"x/{name}.wav"}) for name in names]
        (folder / f"ravdess_{part}_fold_1.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(("dataset", "key", "name"), KEYS, ids=lambda value: str(value))
def test_its_keys_are_the_names_of_our_grammars(tmp_path: Path, dataset: str, key: str, name: str) -> None:
    for part, entries in (
        ("train", [{"key": f"{dataset}-another", "dataset": dataset}]),
        ("test", [{"key": key, "dataset": dataset}]),
    ):
        (tmp_path / f"{dataset}_{part}_fold_1.jsonl").write_text("\n".join(map(json.dumps, entries)))
    assert parts_of([name, "another", "not-listed"], read_fold(tmp_path), tmp_path)[name] == "test"


def test_a_fold_without_validation_holds_out_a_fifth_of_its_training_part(tmp_path: Path) -> None:
    names = [f"03-01-05-01-01-{n:02d}-01" for n in range(99)]
    found = list(read_fold(write(tmp_path, train=names, test=["03-01-05-01-01-01-02"])).values())
    assert found.count("validation") == pytest.approx(99 * VALIDATION, abs=12)
    given = read_fold(write(tmp_path / "own", train=names[1:], valid=names[:1], test=["03-01-05-01-01-01-02"]))
    assert list(given.values()).count("validation") == 1


def test_the_index_has_its_parts_and_none_learns_from_the_test_part(tmp_path: Path, monkeypatch) -> None:
    fold = write(tmp_path / "fold_1", **STEMS)
    rng = np.random.default_rng(0)
    for stem in (*STEMS["train"], *STEMS["test"], "03-01-05-01-01-01-03"):  # the last one is not listed
        path = tmp_path / "tree" / f"Actor_{stem[-2:]}" / f"{stem}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(8000), 16000)
    card = replace(load_card("ravdess"), split=Split(unit="official", emobox=str(fold)))
    utterances, _, figures = build_index(tmp_path / "tree", {}, card, IndexConfig())
    split = dict(zip(utterances.utterance_id.str.removeprefix("ravdess/"), utterances.split, strict=True))
    assert {name for name, part in split.items() if part == "test"} == {*STEMS["test"]}
    assert {name for name, part in split.items() if part in ("train", "validation")} == {*STEMS["train"]}
    assert figures["excluded"] == 1

    monkeypatch.setattr(pipeline, "load_card", lambda corpus: card)
    config = pipeline_index()
    assert str(tmp_path) not in json.dumps(plain(config.config)) and "emobox" in config.state
    write(fold, test=STEMS["test"][1:])
    assert pipeline_index().state != config.state  # another fold makes the index stale
    monkeypatch.undo()
    assert not pipeline_index().state and "emobox" not in pipeline_index().config["card"]["split"]


def pipeline_index():
    from clepdg.config.presets import build

    return pipeline.index(build("open"), "ravdess")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": ["a"]}, "no fold of EmoBox.*got: none.*_test_fold_"),
        ({"train": ["a", "b"], "test": ["b"]}, "in two parts.*got: b"),
        ({"train": ["a"], "test": ["b", "c", "d", "e"]}, "lists 5 utterances, and 4 .*got: b, c, d\n.*such as a"),
    ],
)
def test_what_does_not_fit_is_one_error(tmp_path: Path, parts: dict[str, list[str]], message: str) -> None:
    write(tmp_path, **parts)
    with pytest.raises(CorpusError, match=f"(?s){message}"):
        parts_of(["a"], read_fold(tmp_path), tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (write(tmp_path, train=["a"], test=["b"]) / "ravdess_test_fold_1.jsonl").write_text('{"label": 1}\n')
    with pytest.raises(ClepError, match="can't be read.*\\n.*KeyError.*\\n.*test_fold_1"):
        read_fold(tmp_path)
    with pytest.raises(ConfigError, match="split by itself"):
        Split(unit="speaker", emobox="x")
