"""The command in the report repeats its run: parsed back, it gives an equal configuration."""

import argparse
import shlex

import pytest

from clepdg.config.presets import build
from clepdg.config.schema import Config
from clepdg_flows.cli.options import add_run_options, read_arguments
from clepdg_flows.graph.reproduce import reproduction
from clepdg_flows.run.plan import configure
from clepdg_tasks.engine.run_history import Arguments

OWN_LABELS = {"name": "mine", "happy": ["happy", "excited"], "sad": "sad"}
BY_TARGET = {"name": "mixed", "tess": "7", "crema-d": {"angry": "angry", "sad": ["sad"]}}
CONFIGS = {
    "demo": build("demo"),
    "changed": build(
        "demo",
        corpora=("synthetic-1", "synthetic-3"),
        overrides={"clep.epochs": "7", "clep.learning_rate": "1e-5", "evaluate.conditions": "white-10dB,telephone"},
    ),
    "micro": build("open", backbone="micro", corpora=("ravdess", "tess"), overrides={"rows": "all"}),
    "commit": build("open", backbone="some/clap@" + "a" * 40),
    "dual": build("open", backbone="dual:openai/whisper-base+sentence-transformers/all-MiniLM-L6-v2"),
    "speech": build("speech", overrides={"clep_seeds": "0,1,2", "clep.train_text_projection": "false"}),
    "paper": build("paper"),
    "no paper": build("speech", backbone="laion:630k-audioset-best"),
    "commas": build("demo", overrides={"text.content_templates": ["a sad, slow {emotion} voice", "{emotion} speech"]}),
    "labels": build("open", overrides={"text.label_set": OWN_LABELS}),
    "labels by target": build("paper", overrides={"text.label_set": BY_TARGET}),
}


def parse(command: str) -> Arguments:
    words = shlex.split(command)
    assert words[:2] == ["clep-dg", "run"]
    parser = argparse.ArgumentParser()
    add_run_options(parser)
    return read_arguments(parser.parse_args(words[2:]))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=[*CONFIGS])
def test_the_command_gives_an_equal_configuration(config: Config) -> None:
    assert configure(parse(reproduction(config, _folds(config))["command"])) == config


def _folds(config: Config) -> tuple[str, ...]:
    from clepdg.config.folds import folds

    return tuple(fold.name for fold in folds(config.corpora, config.protocols))


def test_only_what_differs_is_in_the_command() -> None:
    found = reproduction(CONFIGS["demo"], _folds(CONFIGS["demo"]))
    assert found["command"] == "clep-dg run --preset demo"
    assert all(len(values) == 1 for values in found["settings"].values())
    found = reproduction(build("demo", overrides={"clep.epochs": 9}), ("leave-out-synthetic-5",))
    assert found["command"] == "clep-dg run --preset demo --folds leave-out-synthetic-5 --set clep.epochs=9"
    assert {name: values for name, values in found["settings"].items() if len(values) == 2} == {
        "clep.epochs": ["9", "3"]
    }
