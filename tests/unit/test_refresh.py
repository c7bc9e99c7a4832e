"""Protects what a refresh runs: the last whole run, what is given in its place, and what its parts leave."""

from dataclasses import replace
from pathlib import Path

import pytest

from clepdg.config import folds as folds_
from clepdg.config.presets import build
from clepdg.hashing import plain
from clepdg.store.opening import open_store
from clepdg.store.store import Store
from clepdg_flows.graph.pipeline import graph
from clepdg_flows.run import fan_out, refresh
from clepdg_flows.run.plan import configure, make_plan
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.node import DATA_STAGES
from clepdg_tasks.engine.run_history import Arguments


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def ran(store: Store, arguments: Arguments, *, part: bool = False, **keys: str) -> None:
    """Leave a run's file, the newest so far."""
    log = run_history.start(store, arguments, plain(configure(arguments)), part=part)
    log.path = log.path.with_name(f"{len(list((store.root / 'runs').glob('*.json'))):03d}.json")
    log.stages = {node_id: {"key": key} for node_id, key in keys.items()}
    log.write()


WHOLE = Arguments(
    preset="open",
    backbone="micro",
    corpora=("ravdess", "emodb"),
    sources={"ravdess": "/a", "emodb": "/b"},
    redo=("clep",),
    allow_partial=True,
    overrides={"clep.epochs": 3},
)


def test_a_refresh_takes_the_last_whole_run_of_its_preset(store: Store) -> None:
    assert refresh.last_run(Arguments(preset="open"), store) is None
    ran(store, Arguments(preset="demo"))
    assert refresh.last_run(Arguments(preset="open"), store) is None
    ran(store, WHOLE)
    ran(store, Arguments(preset="open", corpora=("tess",), overrides={"protocols": "supervised"}, until="source"))
    ran(store, Arguments(preset="open", folds=("supervised",)))
    ran(store, Arguments(preset="open", corpora=("tess", "emodb")), part=True)
    ran(store, Arguments(preset="demo"))
    assert refresh.last_run(Arguments(preset="open"), store) == Arguments(**{**WHOLE.__dict__, "redo": ()})


def test_a_refresh_takes_the_last_part_where_nothing_went_to_the_end(store: Store) -> None:
    ran(store, Arguments(preset="open", until="index"))
    ran(store, Arguments(preset="open", until="shard"))
    assert refresh.last_run(Arguments(preset="open"), store) == Arguments(preset="open", until="shard")


def test_what_is_given_wins(store: Store) -> None:
    ran(store, WHOLE)
    given = Arguments(
        preset="open", sources={"emodb": "/c"}, until="clep", overrides={"acpt.epochs": 2}, redo=("acpt",)
    )
    taken = refresh.last_run(given, store)
    assert taken is not None
    assert taken.sources == {"ravdess": "/a", "emodb": "/c"}
    assert taken.overrides == {"clep.epochs": 3, "acpt.epochs": 2}
    assert (taken.until, taken.redo, taken.backbone, taken.allow_partial) == ("clep", ("acpt",), "micro", True)


def test_status_passes_over_parts_of_other_runs(store: Store) -> None:
    ran(store, WHOLE)
    ran(store, Arguments(preset="open", folds=("supervised",)), part=True)
    last = run_history.last_arguments(store)
    assert last == WHOLE


def test_the_data_of_a_corpus_is_known_from_every_run_of_its_preset(store: Store) -> None:
    """So a folder of which one file changed is not hashed anew by a run that has other corpora beside it."""
    ran(store, WHOLE, **{"source/emodb": "old", "clep/supervised.c0": "old"})
    ran(store, Arguments(preset="demo"), **{"source/emodb": "the demo's"})
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
