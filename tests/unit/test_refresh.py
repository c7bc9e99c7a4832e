"""Protects what a refresh runs: the last whole run, what is given in its place, and what its parts leave."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from clepdg.config import folds as folds_
from clepdg.config.presets import build
from clepdg.hashing import plain
from clepdg.store.opening import open_store
from clepdg_flows.cli.main import main
from clepdg_flows.graph.pipeline import graph
from clepdg_flows.run import fan_out, refresh
from clepdg_flows.run.plan import configure, make_plan
from clepdg_tasks.engine import last_arguments, run_history
from clepdg_tasks.engine.node import DATA_STAGES
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host.settings import Settings, load_settings
from tests.unit.servers import Server


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "var"))
    return load_settings()


def ran(settings: Settings, *runs: Arguments) -> None:
    """Keep the arguments of runs, a second apart."""
    for number, arguments in enumerate(runs):
        last_arguments.keep(settings, arguments)
        for path in (settings.home / "arguments").rglob("*.json"):
            if path.stat().st_mtime > 10_000:
                os.utime(path, (number, number))


WHOLE = Arguments(
    preset="open",
    backbone="micro",
    corpora=("ravdess", "emodb"),
    sources={"ravdess": "/a", "emodb": "/b"},
    redo=("clep",),
    allow_partial=True,
    overrides={"clep.epochs": 3},
)


PART = replace(WHOLE, corpora=("tess",), sources={}, until="source")


def test_a_refresh_takes_the_last_whole_run_of_its_preset(settings: Settings) -> None:
    demo, open_ = Arguments(preset="demo"), Arguments(preset="open")
    assert refresh.last_run(open_, settings) is None
    ran(settings, demo)
    assert refresh.last_run(open_, settings) is None
    ran(settings, open_, WHOLE, PART, Arguments(preset="open", folds=("supervised",)), demo)
    assert refresh.last_run(open_, settings) == replace(WHOLE, redo=())
    assert last_arguments.last(settings) == demo


def test_a_refresh_takes_the_last_part_where_nothing_went_to_the_end(settings: Settings) -> None:
    ran(settings, Arguments(preset="open", until="index"), Arguments(preset="open", until="shard"))
    assert refresh.last_run(Arguments(preset="open"), settings) == Arguments(preset="open", until="shard")
    assert last_arguments.last(settings) == Arguments(preset="open", until="shard")


def test_what_is_given_wins(settings: Settings) -> None:
    ran(settings, WHOLE)
    given = Arguments(
        preset="open", sources={"emodb": "/c"}, until="clep", overrides={"acpt.epochs": 2}, redo=("acpt",)
    )
    taken = refresh.last_run(given, settings)
    assert taken is not None
    assert taken.sources == {"ravdess": "/a", "emodb": "/c"}
    assert taken.overrides == {"clep.epochs": 3, "acpt.epochs": 2}
    assert (taken.until, taken.redo, taken.backbone, taken.allow_partial) == ("clep", ("acpt",), "micro", True)


def test_arguments_are_kept_for_one_store_and_one_user(settings: Settings) -> None:
    ran(settings, WHOLE)
    assert last_arguments.last(replace(settings, store="s3://other/store")) is None
    (kept,) = (settings.home / "arguments").rglob("*.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not kept.is_relative_to(settings.store)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"preset": "open"}', '{"new": 1}', "\0", "[" * 100_000])
def test_damaged_arguments_are_none(settings: Settings, text: str) -> None:
    ran(settings, WHOLE)
    (kept,) = (settings.home / "arguments").rglob("*.json")
    kept.write_text(text)
    assert last_arguments.last(settings) is None


def test_the_data_of_a_corpus_is_known_from_every_run_of_its_preset(tmp_path: Path) -> None:
    """So a folder of which one file changed is not hashed anew by a run that has other corpora beside it."""
    store = open_store(str(tmp_path))

    def left(arguments: Arguments, **keys: str) -> None:
        log = run_history.start(store, arguments, plain(configure(arguments)))
        log.stages = {node_id: {"key": key} for node_id, key in keys.items()}
        log.write()

    left(WHOLE, **{"source/emodb": "old", "clep/supervised.c0": "old"})
    left(Arguments(preset="demo"), **{"source/emodb": "the demo's"})
    alone = Arguments(preset="open", corpora=("emodb",), overrides={"protocols": "supervised"})
    assert run_history.last_keys(store, plain(configure(alone))) == {"source/emodb": "old"}


# --- fan-out: what is sent has the keys that the run itself would compute


DEMO = Arguments(preset="demo", overrides={"clep.epochs": 3})


def test_a_part_has_the_nodes_of_the_whole_run() -> None:
    plan = make_plan(DEMO)
    config = plan.config
    whole = {node.id: node for node in graph(config, {})}
    parts = fan_out.parts(plan, whole.values())
    assert list(parts) == [*config.corpora, *(f.name for f in folds_.folds(config.corpora, config.protocols, None))]
    together = set()
    for name, given in parts.items():
        nodes = graph(build("demo", corpora=given["corpora"], overrides=given["overrides"]), {}, **_cut(given))
        together |= {node.id for node in nodes}
        assert {node.stage in DATA_STAGES for node in nodes} == ({True} if name in config.corpora else {True, False})
        for node in nodes:
            assert plain(node.config) == plain(whole[node.id].config), node.id
            assert node.inputs == whole[node.id].inputs
    assert together == set(whole) - {"report/report"}


def test_shards_at_the_native_rate_are_sent_with_their_corpus() -> None:
    arguments = replace(DEMO, overrides={"rows": "majority,clap-zero-shot-full-band"})
    plan = make_plan(arguments)
    config = plan.config
    stale = [node for node in plan.nodes if node.stage == "shard" and node.name not in config.corpora]
    parts = fan_out.parts(plan, stale)
    assert list(parts) == list(config.corpora)
    for corpus, given in parts.items():
        nodes = graph(build("demo", corpora=given["corpora"], overrides=given["overrides"]), {}, **_cut(given))
        assert {node.id for node in stale if node.name.startswith(f"{corpus}.")} <= {node.id for node in nodes}


def _cut(given: dict[str, object]) -> dict[str, object]:
    folds = given["folds"]
    return {"until": given["until"], "folds": tuple(folds) if isinstance(folds, list) else None}


@pytest.mark.parametrize(
    ("until", "folds", "expected"),
    [
        ("index", None, {"synthetic-1": "index"}),
        ("backbone", None, {"synthetic-1": "shard"}),
        ("clep", ("supervised",), {"synthetic-1": "shard", "supervised": "clep"}),
        ("report", ("supervised",), {"synthetic-1": "shard", "supervised": "evaluate"}),
    ],
)
def test_only_what_is_stale_is_sent_and_no_further_than_wanted(until, folds, expected):
    arguments = Arguments(preset="demo", until=until, folds=folds)
    plan = make_plan(arguments)
    nodes = [node for node in plan.nodes if node.stage not in DATA_STAGES or node.name == "synthetic-1"]
    assert {name: given["until"] for name, given in fan_out.parts(plan, nodes).items()} == expected


# --- a store that others write


def test_a_planted_run_makes_no_request(
    settings: Settings, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names an address, a folder, a model and a variable of the environment."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-Zk3vP9qW7x")
    planted = Arguments(
        backbone=f"{server.base}model",
        corpora=("tess", "emodb"),
        sources={"tess": server.url + "?token=${AWS_SECRET_ACCESS_KEY}", "emodb": server.url},
    )
    store = settings.open_store()
    run_history.start(store, planted, {"preset": "open", "corpora": ["tess"]}).write()
    run_history.start(store, replace(planted, preset="demo"), {"preset": "demo"}).write()
    for command in (["status"], ["run", "--refresh"], ["run", "--refresh", "--preset", "demo"], ["gc"], ["verify"]):
        main(command)
    assert capsys.readouterr().out.count("run on this machine yet") == 3
    ran(settings, Arguments(preset="open", corpora=("tess",), sources={"tess": "/mine"}, until="index"))
    last = refresh.last_run(Arguments(preset="open"), settings)
    assert last is not None and last.sources == {"tess": "/mine"}
    with pytest.raises(SystemExit):
        main(["status"])
    assert "/mine" in capsys.readouterr().err
    assert server.requests == []
