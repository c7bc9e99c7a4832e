"""Protects label sets of users: what a file may hold, what keys hold of it, and that each target gets its own."""

import argparse
from pathlib import Path

import pandas as pd
import pytest

from clepdg.config.label_sets import OwnLabels, of_targets
from clepdg.config.presets import build
from clepdg.config.schema import Config, TextConfig
from clepdg.emotions import EMOTIONS, alike, labels
from clepdg.errors import ConfigError
from clepdg.evaluation.targets import left_out
from clepdg.evaluation.utterances import label_utterances
from clepdg.hashing import plain
from clepdg.report.facts import LEARNT, learnt_facts
from clepdg_flows.cli.options import add_run_options, read_arguments
from clepdg_flows.graph.pipeline import graph
from clepdg_flows.graph.titles import facts
from clepdg_flows.run.plan import configure
from clepdg_tasks.engine.node import Node
from clepdg_tasks.engine.run_history import Arguments
from tests.unit.test_credit import LABELS, predictions

THREE = 'name = "three"\nsad = ["sad", "neutral"]\nhappy = ["happy", "excited"]\nangry = "angry"\n'
BY_TARGET = f'synthetic-2 = "8"\n[synthetic-1]\n{THREE.partition(chr(10))[2]}'
AFTER = ("text_embeddings", "classifier", "evaluate")


def file(tmp_path: Path, text: str, name: str = "own.toml") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def with_labels(label_set: object, **overrides: object) -> Config:
    return build("demo", overrides={"text.label_set": label_set, **overrides})


def nodes(config: Config) -> dict[str, Node]:
    return {node.id: node for node in graph(config, {})}


def test_a_file_names_classes_by_canonical_emotions(tmp_path: Path) -> None:
    own = with_labels(file(tmp_path, THREE)).text.label_set
    assert own == OwnLabels(
        name="three", classes={"angry": ("angry",), "happy": ("happy", "excited"), "sad": ("neutral", "sad")}
    )
    assert with_labels(file(tmp_path, THREE.partition("\n")[2], "mine.toml")).text.label_set.name == "mine"
    assert labels(of_targets(own, ("ravdess",))) == ("angry", "happy", "sad")
    table = pd.DataFrame({"split": "test", "emotion": ["sad", "neutral", "calm", None]})
    assert list(label_utterances(table, own.classes, ("test",)).label_index) == [2, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("happy = ['hapy']\nsad = 'sad'", "no canonical emotion hapy; did you mean happy?"),
        ("glad = ['happy']\nsad = ['sad', 'happy']", "happy is in glad and in sad"),
        ("", "0 classes: at least two are needed"),
        ("sad = ['sad', 'neutral']", "1 classes: at least two are needed"),
        ("sad = []\nangry = 'angry'", "sad = \\[\\]: should be"),
        ("'{sad}' = 'sad'\nangry = 'angry'", "without braces"),
        ("sad = 'sad' angry", "can't be read"),
        ("tess = '7'\nsad = 'sad'", "stands beside targets.\n  got: sad"),
        ("[tess]\nsad = 'sad'", "where: .*own.toml, tess\n- 1 classes"),
    ],
)
def test_what_is_no_label_set_is_one_error_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        with_labels(file(tmp_path, text))
    assert "own.toml" in str(caught.value)


@pytest.mark.parametrize(("given", "message"), [("missing.toml", "No such file"), ("5", "one of 4, 6"), (5, "got: 5")])
def test_what_is_no_file_is_one_error(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_labels(given)


def test_a_target_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="(?s)no such corpus.*tes"):
        configure(Arguments(preset="demo", overrides={"text.label_set": file(tmp_path, "tes = '7'")}))


def test_a_run_keeps_what_the_file_held(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    path = file(tmp_path, THREE)
    arguments = read_arguments(parser.parse_args(["--preset", "demo", "--set", f"text.label_set={path}"]))
    Path(path).unlink()
    assert configure(arguments).text.label_set.name == "three"


def test_keys_hold_the_classes_and_neither_path_nor_name_nor_order(tmp_path: Path) -> None:
    one = nodes(with_labels(file(tmp_path, THREE)))
    other = nodes(with_labels(file(tmp_path, "\n".join(reversed(THREE.strip().split("\n")[1:])), "b.toml")))
    built_in = nodes(build("demo"))
    differing = {id for id in one if plain(one[id].config) != plain(other[id].config)}
    assert differing == {"report/report"}  # which shows the name
    assert {one[id].stage for id in one if plain(one[id].config) != plain(built_in[id].config)} == {*AFTER, "report"}
    assert facts(with_labels(file(tmp_path, THREE)))["label set"] == "three: angry, happy, sad"


def test_each_target_is_evaluated_in_its_own_label_set(tmp_path: Path) -> None:
    config = with_labels(file(tmp_path, BY_TARGET), rows=["all"], **{"evaluate.conditions": ["white-0dB"]})
    found, built_in = nodes(config), nodes(build("demo", overrides={"rows": "all", "evaluate.conditions": "white-0dB"}))
    expected = {"leave-out-synthetic-1": config.text.label_set.targets["synthetic-1"], "leave-out-synthetic-2": "8"}
    for node in found.values():
        if node.stage in ("classifier", "evaluate"):
            own = expected.get(node.tags["fold"], "4")
            assert node.config["label_set"] == own, node.id
            for ref in node.inputs.values():
                if ref.stage == "text_embeddings":
                    assert found[ref.id].config["label_set"] == own, node.id
        elif node.stage not in (*AFTER, "report") and ".without-" not in node.name:
            assert plain(node.config) == plain(built_in[node.id].config), node.id  # nothing is trained again
    told = facts(config)
    assert told["label sets"]["synthetic-2"]["name"] == "8"
    assert told["label sets"]["supervised"] == {"name": "4", "labels": "angry, happy, neutral, sad"}
    assert "different chance levels" in told["caption"]


def test_an_emotion_that_is_added_by_its_word_shares_no_class_with_what_clep_learns(tmp_path: Path) -> None:
    own = with_labels(file(tmp_path, THREE), **{"clep.without_emotion": "sad"})
    learnt = [set(node.config["emotions"]) for node in nodes(own).values() if node.stage in ("clep", "acpt")]
    assert learnt and all(not emotions & {"sad", "neutral"} for emotions in learnt)
    assert alike("sad") == ("sad",)
    added = {id: node.config["new_labels"] for id, node in nodes(own).items() if node.stage == "evaluate"}
    assert set(added["evaluate/supervised"].values()) == {"sad"}


def test_preset_paper_has_the_label_set_of_each_corpus() -> None:
    own = build("paper").text.label_set
    sizes = {corpus: len(labels(of_targets(own, (corpus,)))) for corpus in build("paper").corpora}
    assert sizes == {"iemocap": 4, "meld": 7, "ravdess": 8, "tess": 7, "savee": 7, "crema-d": 6}
    assert of_targets(own, build("paper").corpora) == "4"
    assert build("paper", overrides={"text.label_set": "6"}).text.label_set == "6"


def test_folds_of_several_label_sets_stand_in_one_report() -> None:
    first = predictions({"*": 0.5, "text-acpt": 0.7}, targets=1)
    second = first.assign(fold="leave-out-t1", corpus="t1").rename(columns={"p_sad": "p_gloomy"})
    second[["true", "predicted"]] = second[["true", "predicted"]].replace("sad", "gloomy")
    gloomy = tuple("gloomy" if label == "sad" else label for label in LABELS)
    names = {"leave-out-t0": LABELS, "leave-out-t1": gloomy}
    both = pd.concat([first, second], ignore_index=True)
    found = [target for fold, own in names.items() for target in left_out(both[both.fold == fold], own)]
    assert [target.name for target in found] == ["t0", "t1"]
    assert found[0].mean("text-acpt", ["clean"]).value == found[1].mean("text-acpt", ["clean"]).value
    told = learnt_facts(both, names, confidence=0.95, test_only=())[LEARNT]
    assert told["leave-out-t0"] == told["leave-out-t1"]


def test_the_settings_of_a_notebook_take_classes() -> None:
    assert TextConfig(label_set={"low": ["sad", "bored"], "high": ["angry"]}).label_set.classes == {
        "high": ("angry",),
        "low": ("sad", "bored"),
    }
    assert labels("8") == EMOTIONS[:8]
