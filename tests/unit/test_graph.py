"""Protects the graph: what each stage depends on, and above all what it does not (leakage, needless work)."""

from dataclasses import replace
from itertools import pairwise

import pytest

from clepdg.errors import ConfigError
from clepdg.presets import build
from clepdg.protocols import ROWS
from clepdg.store import canonical
from flows.captions import facts
from flows.checks import configure
from flows.graph import graph
from tasks.runs import Arguments
from tasks.stages import STAGES

CONFIG = build("demo")


def by_id(config=CONFIG, **options):
    return {node.id: node for node in graph(config, {}, **options)}


def ancestors(nodes, node_id):
    found, waiting = set(), [node_id]
    while waiting:
        for need in nodes[waiting.pop()].needs:
            if need not in found:
                found.add(need)
                waiting.append(need)
    return found


def changed(before, after):
    """Stages of the nodes whose own configuration differs."""
    return {b.stage for a, b in zip(before, after, strict=True) if canonical(a.config) != canonical(b.config)}


def test_every_node_comes_after_what_it_needs():
    seen = set()
    for node in graph(CONFIG, {}):
        assert set(node.needs) <= seen, node.id
        assert node.id not in seen
        seen.add(node.id)


def test_nothing_learnt_in_a_leave_out_fold_sees_its_target():
    nodes = by_id()
    for corpus in CONFIG.corpora:
        learnt = [n for n in nodes.values() if n.name.startswith(f"leave-out-{corpus}.")]
        assert {n.stage for n in learnt} >= {"clep", "acpt", "text_embeddings", "classifier", "audio_embeddings"}
        for node in learnt:
            if node.stage != "audio_embeddings":
                assert not {a for a in ancestors(nodes, node.id) if a.endswith(corpus)}, node.id
        evaluated = ancestors(nodes, f"evaluate/leave-out-{corpus}")
        assert f"shard/{corpus}" in evaluated


def test_only_the_evaluation_of_a_leave_out_fold_looks_for_copies_and_only_among_what_its_sources_learn():
    nodes = by_id()
    for corpus in CONFIG.corpora:
        inputs = nodes[f"evaluate/leave-out-{corpus}"].inputs
        learnt = {name: ref for name, ref in inputs.items() if name.startswith("learnt/")}
        assert set(learnt) == {f"learnt/{other}" for other in CONFIG.corpora if other != corpus}
        assert all(ref == f"shard/{name.removeprefix('learnt/')}#learning" for name, ref in learnt.items())
    assert not [name for name in nodes["evaluate/supervised"].inputs if name.startswith(("learnt/", "shard/"))]


def test_learning_depends_on_train_and_validation_alone():
    for node in graph(CONFIG, {}):
        if node.stage == "clep":
            refs = [ref for name, ref in node.inputs.items() if name != "backbone"]
            assert refs
            assert all(ref.endswith("#learning") for ref in refs)
        if node.stage == "classifier":
            assert all(ref.endswith("#learning") for name, ref in node.inputs.items() if name.startswith("index/"))


def test_shards_do_not_depend_on_labels():
    for node in graph(CONFIG, {}):
        if node.stage == "shard":
            assert list(node.inputs.values()) == [f"index/{node.name}#audio"]


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        ({"classifier.steps": 7}, {"classifier"}),
        ({"clep.epochs": 7}, {"clep"}),
        ({"acpt.epochs": 7}, {"acpt"}),
        ({"evaluate.resamples": 777}, {"evaluate", "report"}),
        ({"shard.max_megabytes": 7.0}, {"shard"}),
        ({"index.silence_rms": 0.01}, {"index"}),
        ({"text.handwritten_contexts": "a car,an office"}, {"text_embeddings"}),
        ({"backbone.seed": 7}, {"backbone"}),
        ({"synthetic.seed": 7}, {"source"}),
        ({"text.label_set": "6"}, {"text_embeddings", "classifier", "evaluate", "report"}),
    ],
)
def test_a_setting_is_in_the_keys_of_the_stages_that_read_it_alone(overrides, stages):
    assert changed(graph(CONFIG, {}), graph(build("demo", overrides=overrides), {})) == stages


def test_hand_written_contexts_touch_their_own_row_alone():
    before = graph(CONFIG, {})
    after = graph(build("demo", overrides={"text.handwritten_contexts": "a car"}), {})
    touched = {b.name for a, b in zip(before, after, strict=True) if canonical(a.config) != canonical(b.config)}
    assert touched == {f"{fold}.c0.hand-written" for fold in {n.partition(".")[0] for n in touched}}
    assert len(touched) == 6


def test_rows_decide_what_is_run():
    nodes = by_id(replace(CONFIG, rows=("majority", "log-mel")))
    assert not {n.stage for n in nodes.values()} & {"clep", "acpt", "text_embeddings"}
    nodes = by_id(replace(CONFIG, rows=("text-none",)))
    assert "acpt" not in {n.stage for n in nodes.values()}
    assert not [n for n in nodes if "log-mel" in n]


def test_seeds_multiply_what_they_change():
    config = replace(CONFIG, clep_seeds=(0, 1), later_seeds=(0, 1, 2), rows=("clep-zero-shot", "text-acpt"))
    nodes = [n for n in graph(config, {}) if n.name.startswith("supervised")]
    count = {stage: sum(n.stage == stage for n in nodes) for stage in STAGES}
    assert count["clep"] == 2
    assert count["acpt"] == 6
    assert count["classifier"] == 2 * 1 + 2 * 3
    assert len({canonical([n.stage, n.config, n.inputs]) for n in nodes}) == len(nodes)


def test_until_and_folds_cut_the_graph():
    assert {n.stage for n in graph(CONFIG, {}, until="shard")} == {"source", "index", "shard"}
    nodes = graph(CONFIG, {}, only_folds=("supervised",))
    assert [n.name for n in nodes if n.stage == "evaluate"] == ["supervised"]
    order = [STAGES.index(n.stage) for n in nodes if n.stage in ("source", "index", "shard")]
    assert all(a <= b for a, b in pairwise(order))


@pytest.mark.parametrize("until", ["source", "index", "shard"])
def test_one_corpus_is_enough_for_the_data_stages(until):
    configure(Arguments(preset="open", corpora=("tess",), until=until))
    nodes = graph(replace(CONFIG, corpora=("synthetic-1",)), {}, until=until)
    assert [n.stage for n in nodes] == list(STAGES[: STAGES.index(until) + 1])
    with pytest.raises(ConfigError, match="at least two"):
        configure(Arguments(preset="open", corpora=("tess",), until="clep"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"until": "training"}, "text_embeddings"),
        ({"only_folds": ("leave-out-x",)}, "leave-out-synthetic-1"),
    ],
)
def test_unknown_names_list_the_valid_ones(options, message):
    with pytest.raises(ConfigError, match=message):
        graph(CONFIG, {}, **options)


def test_unknown_corpus_and_row_list_the_valid_ones():
    with pytest.raises(ConfigError, match="ravdess"):
        configure(Arguments(preset="open", corpora=("radvess", "tess")))
    with pytest.raises(ConfigError, match="text-acpt"):
        graph(replace(CONFIG, rows=("acpt",)), {})
    with pytest.raises(ConfigError, match="at least two"):
        graph(replace(CONFIG, corpora=("synthetic-1",)), {})


def test_every_row_is_evaluated_once_per_seed():
    node = by_id()["evaluate/supervised"]
    assert [head["row"] for head in node.config["heads"]] == [
        *(r for r, row in ROWS.items() if row.model != "clep"),
        *(r for r, row in ROWS.items() if row.model == "clep"),
    ]


def test_the_caption_says_what_is_real_and_what_is_synthetic():
    mixed = facts(replace(CONFIG, corpora=("ravdess", "synthetic-1")))["caption"]
    assert "Real speech: ravdess." in mixed
    assert "Synthetic speech (synthetic-1)" in mixed
    assert "no pretraining" in mixed
    assert "Real speech" not in facts(CONFIG)["caption"]
