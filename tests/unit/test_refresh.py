"""Protects what a refresh runs: the pinned run, what is given in its place, and what its parts leave."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clepdg.config import folds as folds_
from clepdg.config import label_sets
from clepdg.config.presets import build
from clepdg.errors import ConfigError
from clepdg.hashing import plain
from clepdg.store.opening import open_store
from clepdg_flows.cli.main import _parser, main
from clepdg_flows.cli.options import read_arguments
from clepdg_flows.cli.pin import as_command, refresh_line
from clepdg_flows.graph.pipeline import graph
from clepdg_flows.run import fan_out, refresh
from clepdg_flows.run.plan import configure, make_plan
from clepdg_tasks.engine import last_arguments, pinned, run_history
from clepdg_tasks.engine.node import DATA_STAGES
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host.settings import Settings, load_settings
from tests.unit.servers import Server


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "var"))
    return load_settings()


def ran(settings: Settings, *runs: Arguments) -> list[str]:
    """Keep what finished runs were asked for; return their names, in order."""
    names = list[str]()
    for arguments in runs:
        log = run_history.start(settings.open_store(), arguments, plain(configure(arguments)))
        log.write()
        last_arguments.keep(settings, arguments)
        pinned.keep(settings, log)
        names.append(log.path.stem)
    return names


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


def test_a_refresh_runs_what_is_pinned_and_nothing_else(settings: Settings) -> None:
    open_ = Arguments(preset="open")
    first, *_ = ran(settings, WHOLE, open_, PART, Arguments(preset="demo"))
    assert refresh.pinned_run(open_, settings) is None
    assert pinned.pin(settings, first).arguments == WHOLE
    ran(settings, open_)
    assert refresh.pinned_run(open_, settings) == replace(WHOLE, redo=())
    assert pinned.unpin(settings) and not pinned.unpin(settings)
    assert refresh.pinned_run(open_, settings) is None


def test_the_last_finished_whole_run_is_pinned_by_default(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="No whole run has finished"):
        pinned.pin(settings)
    (part,) = ran(settings, PART)
    with pytest.raises(ConfigError, match="No whole run has finished"):
        pinned.pin(settings)
    assert pinned.pin(settings, part).arguments == PART
    ran(settings, WHOLE, PART, Arguments(preset="open", folds=("supervised",)))
    assert pinned.pin(settings).arguments == WHOLE
    run_history.start(settings.open_store(), Arguments(preset="demo"), {}).write()  # it still runs
    assert pinned.pin(settings).arguments == WHOLE


def test_a_run_that_is_not_there_is_refused_with_the_nearest_name(settings: Settings) -> None:
    (name,) = ran(settings, WHOLE)
    with pytest.raises(ConfigError, match=name):
        pinned.pin(settings, f"{name}x")
    assert pinned.pinned(settings) is None


def test_the_latest_runs_are_listed_where_none_is_near(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="(?s)got: x.*expected: none: no run has finished"):
        pinned.pin(settings, "x")
    names = ran(settings, *[WHOLE] * 7)
    with pytest.raises(ConfigError) as refused:
        pinned.pin(settings, "x")
    assert refused.value.expected == tuple(reversed(names))[:5] and "clep-dg pin --run RUN" in str(refused.value)


def test_a_run_that_did_not_end_is_not_the_state_of_things(settings: Settings, capsys: Any) -> None:
    """Status judges what ended, and names what did not."""
    last_arguments.begin(settings, replace(DEMO, overrides={"clep.epochs": 9}))
    main(["status"])
    alone = capsys.readouterr().out
    assert "clep.epochs=9" in alone and "the last run, which has not ended or was stopped" in alone
    ran(settings, DEMO)
    main(["status"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "A later run has not ended or was stopped. Judge it with: clep-dg status --preset demo --set clep.epochs=9"
    )
    assert "this machine's last finished run: clep-dg run --preset demo --set clep.epochs=3" in said[-1]
    last_arguments.begin(settings, DEMO)
    main(["status"])
    assert "A later run" not in capsys.readouterr().out


def test_a_printed_command_can_be_pasted(settings: Settings, tmp_path: Path) -> None:
    """Also with label sets of a file, and with texts that hold commas."""
    (tmp_path / "mine.toml").write_text('angry = ["angry"]\nglad = ["happy", "excited"]\n')
    given = replace(
        DEMO,
        overrides={
            "text.label_set": label_sets.content(str(tmp_path / "mine.toml")),
            "text.content_templates": ["a {emotion} voice, close", "a {emotion} voice"],
            "evaluate.conditions": ["white-10dB", "room-long"],
            "evaluate.noise_folder": None,
        },
    )
    (tmp_path / "mine.toml").unlink()
    words = shlex.split(as_command(given))
    assert words[:2] == ["clep-dg", "run"]
    again = read_arguments(_parser().parse_args(words[1:]))
    assert configure(again) == configure(given)
    assert "evaluate.conditions=white-10dB,room-long" in words


def test_the_end_of_a_run_says_what_is_refreshed(settings: Settings) -> None:
    (name,) = ran(settings, DEMO)
    assert refresh_line(settings, DEMO) is None
    pinned.pin(settings)
    assert refresh_line(settings, DEMO) == f"refresh  repeats run {name} (clep-dg status --refresh)"
    assert refresh_line(settings, PART) is None


def test_another_preset_than_the_pinned_one_is_refused(settings: Settings) -> None:
    ran(settings, Arguments(preset="demo"))
    pinned.pin(settings)
    taken = refresh.pinned_run(Arguments(preset="open"), settings)  # the flow's default: none was given
    assert taken is not None and taken.preset == "demo"
    with pytest.raises(ConfigError, match="pinned preset"):
        refresh.pinned_run(Arguments(preset="paper"), settings)


def test_defaults_that_changed_since_keep_their_pinned_values(settings: Settings, caplog: Any) -> None:
    ran(settings, WHOLE)
    pinned.pin(settings)
    path = last_arguments.folder(settings) / last_arguments.PIN
    raw = json.loads(path.read_text())
    raw["config"]["acpt"]["epochs"] = 7  # the default of another version
    raw["config"]["clep"]["gone"] = 1  # a setting that this version does not have
    raw["config"]["evaluate"]["conditions"] = []
    del raw["config"]["acpt"]["tokens"]  # one that the other version did not have
    path.write_text(json.dumps(raw))
    taken = refresh.pinned_run(Arguments(preset="open"), settings)
    assert taken is not None and taken.overrides == {"clep.epochs": 3, "acpt.epochs": 7}
    assert "acpt.epochs stays as it was pinned: 7" in caplog.text
    assert configure(taken).acpt.epochs == 7


def test_what_is_given_wins(settings: Settings) -> None:
    ran(settings, WHOLE)
    pinned.pin(settings)
    given = Arguments(
        preset="open", sources={"emodb": "/c"}, until="clep", overrides={"acpt.epochs": 2}, redo=("acpt",)
    )
    taken = refresh.pinned_run(given, settings)
    assert taken is not None
    assert taken.sources == {"ravdess": "/a", "emodb": "/c"}
    assert taken.overrides == {"clep.epochs": 3, "acpt.epochs": 2}
    assert (taken.until, taken.redo, taken.backbone, taken.allow_partial) == ("clep", ("acpt",), "micro", True)


def test_arguments_are_kept_for_one_store_and_one_user(settings: Settings) -> None:
    ran(settings, WHOLE)
    pinned.pin(settings)
    other = replace(settings, store="s3://other/store")
    assert last_arguments.last(other) is pinned.pinned(other) is None and not pinned.finished_runs(other)
    kept = [*(settings.home / "arguments").rglob("*.json")]
    assert len(kept) == 3
    for path in kept:
        assert path.stat().st_mode & 0o777 == 0o600
        assert not path.is_relative_to(settings.store)


def test_only_the_last_finished_runs_are_kept(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "KEPT", 2)
    names = ran(settings, WHOLE, PART, WHOLE)
    assert [each.run for each in pinned.finished_runs(settings)] == names[:0:-1]


DAMAGES = ["", "[1]", "{", '{"preset": "open"}', '{"new": 1}', "\0", "[" * 100_000]


@pytest.mark.parametrize("text", DAMAGES)
def test_a_damaged_pin_is_refused(settings: Settings, text: str) -> None:
    ran(settings, WHOLE)
    pinned.pin(settings)
    (last_arguments.folder(settings) / last_arguments.PIN).write_text(text)
    with pytest.raises(ConfigError, match="pin a run again"):
        refresh.pinned_run(Arguments(), settings)
    assert last_arguments.last(settings) == WHOLE


def test_the_commands_say_what_a_refresh_runs(settings: Settings, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(SystemExit):
        main(["run", "--refresh"])
    assert "Nothing is pinned" in capsys.readouterr().err
    (name,) = ran(settings, DEMO)
    main(["status", "--refresh"])
    assert f"clep-dg pin would pin run {name}: clep-dg run --preset demo" in capsys.readouterr().out
    main(["pin"])
    said = capsys.readouterr().out
    assert f"A refresh repeats run {name}, pinned" in said and "--set clep.epochs=3" in said
    assert "nothing is scheduled" in said
    main(["status", "--refresh"])
    shown = capsys.readouterr().out
    assert shown.startswith(said) and "source" in shown
    main(["pin", "--remove"])
    assert "runs nothing" in capsys.readouterr().out
    assert refresh.pinned_run(Arguments(), settings) is None


@pytest.mark.parametrize("text", DAMAGES)
def test_damaged_arguments_are_none(settings: Settings, text: str) -> None:
    ran(settings, WHOLE)
    (kept,) = last_arguments.folder(settings).glob("*.json")
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
    log = run_history.start(store, planted, {"preset": "open", "corpora": ["tess"]})
    log.outcome = "completed"
    log.write()
    run_history.start(store, replace(planted, preset="demo"), {"preset": "demo"}).write()
    for command in (["status"], ["status", "--refresh"], ["gc"], ["verify"]):
        main(command)
    said = capsys.readouterr().out
    assert "run on this machine yet" in said and "no run is pinned" in said
    for refused in (["run", "--refresh"], ["pin"], ["pin", "--run", log.path.stem]):
        with pytest.raises(SystemExit):
            main(refused)
    ran(settings, Arguments(preset="open", corpora=("tess",), sources={"tess": "/mine"}, until="index"))
    last = last_arguments.last(settings)
    assert last is not None and last.sources == {"tess": "/mine"}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["status"])
    assert "/mine" in capsys.readouterr().err
    assert server.requests == []
