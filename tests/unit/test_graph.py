"""Protects the graph: what each stage depends on, and above all what it does not (leakage, needless work)."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from clepdg.config.presets import build
from clepdg.config.rows import CORE_ROWS, DUAL_ROWS, ON_REQUEST, ROWS
from clepdg.config.schema import EncoderConfig
from clepdg.emotions import alike
from clepdg.errors import ConfigError
from clepdg.hashing import canonical
from clepdg_flows.graph.pipeline import graph
from clepdg_flows.graph.titles import facts
from clepdg_flows.run.plan import configure
from clepdg_tasks.engine.node import STAGES
from clepdg_tasks.engine.run_history import Arguments

CONFIG = build("demo")
EVERY = replace(CONFIG, rows=("all", "egemaps"), encoder=EncoderConfig(name="some/encoder", revision="f00"))
DUAL = replace(build("speech", corpora=CONFIG.corpora), rows=("all",))


@cache  # no test changes a node
def by_id(config=CONFIG, **options):
    return {node.id: node for node in graph(config, {}, **options)}


def inputs_of(node):
    """Return input name -> "stage/name", or "stage/name#part"."""
    return {name: ref.id + (f"#{ref.part}" if ref.part else "") for name, ref in node.inputs.items()}


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
    nodes = {node_id: node for node_id, node in by_id(EVERY).items() if ".target-probe." not in node_id}  # the ceiling
    for corpus in CONFIG.corpora:
        learnt = [n for n in nodes.values() if n.name.startswith(f"leave-out-{corpus}.")]
        assert {n.stage for n in learnt} >= {"clep", "acpt", "text_embeddings", "classifier", "audio_embeddings"}
        for node in learnt:
            if node.stage != "audio_embeddings":
                assert not {a for a in ancestors(nodes, node.id) if a.endswith(corpus)}, node.id
        evaluated = ancestors(by_id(), f"evaluate/leave-out-{corpus}")
        assert f"shard/{corpus}" in evaluated


def test_emotions_of_a_leave_out_fold_are_those_that_the_sources_cards_name():
    """That EMO-DB alone has boredom, or RAVDESS alone calm, is not known before it is evaluated."""
    sources = {
        "emodb": ("angry", "happy", "neutral", "sad", "disgusted", "fearful", "surprised", "calm"),
        "ravdess": ("angry", "happy", "neutral", "sad", "disgusted", "fearful", "bored"),
        "synthetic-1": ("angry", "happy", "neutral", "sad", "disgusted", "fearful", "surprised", "calm", "bored"),
    }
    nodes = by_id(replace(CONFIG, corpora=tuple(sources)))
    for corpus, emotions in sources.items():
        own = [node for node in nodes.values() if node.name.startswith(f"leave-out-{corpus}.")]
        learnt = {node.id: node.config["emotions"] for node in own if "emotions" in node.config}
        assert {node_id.partition("/")[0] for node_id in learnt} == {"clep", "acpt"}
        assert set(learnt.values()) == {emotions}


def test_contexts_are_used_in_the_template_that_they_were_learnt_in():
    nodes = by_id(build("demo", overrides={"acpt.joint_template": "{emotion}, from {context}"}))
    learnt = {node.config["acpt"].joint_template for node in nodes.values() if node.stage == "acpt"}
    used = {node.config["joint_template"] for node in nodes.values() if "joint_template" in node.config}
    assert learnt == used == {"{emotion}, from {context}"}


def test_a_pair_learns_from_one_corpus_alone_and_the_same_whatever_its_target():
    nodes = by_id(replace(CONFIG, corpora=CONFIG.corpora[:3], protocols=("pairs",)))
    source, *targets = CONFIG.corpora[:3]
    assert len([node for node in nodes.values() if node.stage == "evaluate"]) == 6
    first, second = (f"from-{source}-to-{target}" for target in targets)
    learnt = [node for node in nodes.values() if node.stage in ("clep", "classifier") and node.name.startswith(first)]
    assert {node.stage for node in learnt} == {"clep", "classifier"}
    for node in learnt:
        assert not {a for a in ancestors(nodes, node.id) if a.endswith(tuple(targets))}, node.id
        other = nodes[node.id.replace(first, second)]
        assert canonical(node.config) == canonical(other.config)
        assert {name: ref.replace(first, second) for name, ref in inputs_of(node).items()} == inputs_of(other)
    evaluated = ancestors(nodes, f"evaluate/{first}")
    assert f"shard/{targets[0]}" in evaluated and f"shard/{targets[1]}" not in evaluated


def test_pairs_are_heard_clean():
    conditions = replace(CONFIG.evaluate, conditions=("pink-10dB", "babble-0dB"))
    nodes = by_id(replace(CONFIG, protocols=("pairs",), evaluate=conditions))
    assert not [node_id for node_id in nodes if "dB" in node_id]
    assert not nodes["evaluate/from-synthetic-1-to-synthetic-2"].config["conditions"]


def test_only_the_evaluation_of_a_leave_out_fold_looks_for_copies_and_only_among_what_its_sources_learn():
    nodes = by_id()
    for corpus in CONFIG.corpora:
        inputs = inputs_of(nodes[f"evaluate/leave-out-{corpus}"])
        learnt = {name: ref for name, ref in inputs.items() if name.startswith("learnt/")}
        assert set(learnt) == {f"learnt/{other}" for other in CONFIG.corpora if other != corpus}
        assert all(ref == f"shard/{name.removeprefix('learnt/')}#learning" for name, ref in learnt.items())
    assert not [name for name in inputs_of(nodes["evaluate/supervised"]) if name.startswith(("learnt/", "shard/"))]


def test_learning_depends_on_train_and_validation_alone():
    for node in graph(CONFIG, {}):
        if node.stage == "clep":
            refs = [ref for name, ref in inputs_of(node).items() if name != "backbone"]
            assert refs
            assert all(ref.endswith("#learning") for ref in refs)
        if node.stage == "classifier":
            assert all(ref.endswith("#learning") for name, ref in inputs_of(node).items() if name.startswith("index/"))


def test_shards_do_not_depend_on_labels():
    for node in graph(CONFIG, {}):
        if node.stage == "shard":
            assert list(inputs_of(node).values()) == [f"index/{node.name}#audio"]


@pytest.mark.parametrize(
    ("overrides", "stages"),
    [
        ({"classifier.steps": 7}, {"classifier"}),
        ({"clep.epochs": 7}, {"clep"}),
        ({"acpt.epochs": 7}, {"acpt"}),
        ({"evaluate.confidence": 0.9}, {"evaluate"}),
        ({"shard.max_megabytes": 7.0}, {"shard"}),
        ({"index.silence_rms": 0.01}, {"index"}),
        ({"text.handwritten_contexts": "a car,an office"}, {"text_embeddings"}),
        ({"backbone.seed": 7}, {"backbone"}),
        ({"synthetic.seed": 7}, {"source"}),
        ({"text.label_set": "6"}, {"text_embeddings", "classifier", "evaluate"}),
    ],
)
def test_a_setting_is_in_the_keys_of_the_stages_that_read_it_alone(overrides, stages):
    assert changed(graph(CONFIG, {}), graph(build("demo", overrides=overrides), {})) == stages | {
        "report"
    }  # it shows all


def test_hand_written_contexts_touch_their_own_row_alone():
    before = graph(CONFIG, {})
    after = graph(build("demo", overrides={"text.handwritten_contexts": "a car"}), {})
    touched = {b.name for a, b in zip(before, after, strict=True) if canonical(a.config) != canonical(b.config)}
    touched.remove("report")  # it shows all settings
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
    assert len({canonical([n.stage, n.config, inputs_of(n)]) for n in nodes}) == len(nodes)


def test_until_and_folds_cut_the_graph():
    assert {n.stage for n in graph(CONFIG, {}, until="shard")} == {"source", "index", "shard"}
    nodes = graph(CONFIG, {}, folds=("supervised",))
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
        ({"folds": ("leave-out-x",)}, "leave-out-synthetic-1"),
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
    assert [head["row"] for head in node.config["heads"]] == list(CORE_ROWS)
    node = by_id(EVERY)["evaluate/supervised"]
    assert [head["row"] for head in node.config["heads"]] == [
        name for name, row in ROWS.items() if not row.ceiling and name not in DUAL_ROWS
    ]
    node = by_id(EVERY)["evaluate/leave-out-synthetic-1"]
    assert [head["row"] for head in node.config["heads"]] == [name for name in ROWS if name not in DUAL_ROWS]
    node = by_id(DUAL)["evaluate/leave-out-synthetic-1"]
    assert [head["row"] for head in node.config["heads"]] == [name for name in ROWS if name not in ON_REQUEST]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_brings_all_that_it_needs_and_the_others_change_none_of_it(row):
    every = DUAL if row in DUAL_ROWS else EVERY
    alone, beside = by_id(replace(every, rows=(row,))), by_id(every)
    for node in alone.values():
        assert set(node.needs) <= set(alone)
        if node.stage not in ("evaluate", "report"):
            other = beside[node.id]
            assert canonical([other.config, inputs_of(other)]) == canonical([node.config, inputs_of(node)]), node.id


def test_rows_on_request_are_there_only_when_asked_for():
    encoder = EVERY.encoder
    for rows, given, expected in (
        (None, None, set()),
        (("all",), None, set()),
        (None, encoder, {"encoder"}),
        (("all",), encoder, {"encoder"}),
        (("majority",), encoder, set()),
        (("majority", "egemaps"), None, {"egemaps"}),
        (("all", "egemaps"), encoder, {"egemaps", "encoder"}),
    ):
        nodes = by_id(replace(CONFIG, rows=rows, encoder=given or EncoderConfig()))
        heads = {head["row"] for head in nodes["evaluate/supervised"].config["heads"]}
        assert heads & set(ON_REQUEST) == expected
        assert ("backbone/encoder" in nodes) == ("encoder" in expected)
    with pytest.raises(ConfigError, match=r"encoder\.name"):
        by_id(replace(CONFIG, rows=("encoder",)))


def test_a_target_is_standardised_by_itself_where_it_is_heard_alone():
    nodes = by_id(DUAL)
    fold, row = "leave-out-synthetic-1", "clep-zero-shot-target-standardised"
    heard = nodes[f"audio_embeddings/{fold}.c0.target-standardised.synthetic-1"]
    assert inputs_of(heard) == {
        "features": "features/synthetic-1", "shard": "shard/synthetic-1", "model": f"clep/{fold}.c0",
    }  # fmt: skip
    assert heard.config["standardise"] == "target"
    assert [node.id for node in nodes.values() if heard.id in node.needs] == [f"evaluate/{fold}"]
    learnt = [set(inputs_of(nodes[f"classifier/{fold}.{name}.c0"]).values()) for name in (row, "clep-zero-shot")]
    assert learnt[0] == learnt[1]  # the head is the same
    probe = nodes["audio_embeddings/states.synthetic-1"]
    assert inputs_of(probe) == {"features": "features/synthetic-1"} and probe.config["model"] == "states"


def test_probes_without_clep_read_their_own_audio_embeddings_alone():
    nodes = by_id(replace(EVERY, rows=("egemaps", "encoder")))
    assert "clep" not in {node.stage for node in nodes.values()}
    for model, inputs in (("egemaps", {"shard"}), ("encoder", {"shard", "model"})):
        node = nodes[f"audio_embeddings/{model}.synthetic-2"]
        assert set(inputs_of(node)) == inputs and node.config["model"] == model
        learnt = inputs_of(nodes[f"classifier/leave-out-synthetic-1.{model}.-"])
        assert learnt["audio/synthetic-2"] == node.id and "audio/synthetic-1" not in learnt
    assert inputs_of(nodes["audio_embeddings/encoder.synthetic-2"])["model"] == "backbone/encoder"
    other = by_id(replace(EVERY, rows=("egemaps", "encoder"), encoder=replace(EVERY.encoder, revision="f01")))
    assert {n for n in nodes if canonical(nodes[n].config) != canonical(other[n].config)} == {
        "backbone/encoder",
        "report/report",
    }


@pytest.mark.parametrize("backbone", ["micro", "micro-context"])
def test_without_the_band_limit_the_same_weights_and_words_hear_shards_at_the_native_rate(backbone):
    row = "clap-zero-shot-full-band"
    evaluated = replace(EVERY.evaluate, conditions=("white-0dB", "babble-0dB"))
    weights = replace(EVERY.backbone, name=backbone)
    config = replace(EVERY, rows=("clap-zero-shot", row), backbone=weights, evaluate=evaluated)
    nodes = by_id(config)
    own = "" if backbone == "micro" else "supervised."
    full, limited = (nodes[f"audio_embeddings/{own}backbone{band}.synthetic-2"] for band in ("-full-band", ""))
    assert inputs_of(full) == {**inputs_of(limited), "shard": "shard/synthetic-2.full-band"}
    assert nodes["shard/synthetic-2.full-band"].config["shard"].band_limit_hz is None
    heads = [nodes[f"classifier/supervised.{name}.-"] for name in (row, "clap-zero-shot")]
    assert inputs_of(heads[0])["text"] == inputs_of(heads[1])["text"]
    assert inputs_of(heads[0])["audio/synthetic-2"] == full.id
    heard = [name for name in inputs_of(nodes["evaluate/supervised"]) if name.startswith("audio/")]
    in_noise = [name for name in heard if name.endswith("-0dB")]  # made at 16 kHz
    assert in_noise and not any("full-band" in name for name in in_noise) and len(heard) > len(in_noise)
    assert not [node_id for node_id in nodes if "full-band" in node_id and "0dB" in node_id]
    without = by_id(replace(config, rows=("clap-zero-shot",)))
    assert not [node_id for node_id in without if "full-band" in node_id]


def test_names_are_unique_and_what_is_shared_stands_once():
    nodes = graph(EVERY, {})
    assert len({node.id for node in nodes}) == len(nodes)
    learnt = [node for node in nodes if node.stage in ("clep", "acpt", "text_embeddings")]
    assert len({canonical([node.stage, node.config, inputs_of(node)]) for node in learnt}) == len(learnt)


def test_variants_of_clep_have_models_of_their_own_and_the_rest_of_the_row_follows():
    nodes = by_id(EVERY)
    classifier = nodes["classifier/leave-out-synthetic-1.clep-frozen-text.c0.l0"]
    model = "leave-out-synthetic-1.frozen-text.c0"
    assert inputs_of(classifier)["text"] == f"text_embeddings/{model}.acpt.l0"
    assert inputs_of(classifier)["audio/synthetic-2"] == f"audio_embeddings/{model}.synthetic-2"
    assert inputs_of(nodes[f"acpt/{model}.acpt.l0"]) == {"clep": f"clep/{model}"}
    assert not nodes[f"clep/{model}"].config["clep"].train_text_projection
    assert nodes["clep/leave-out-synthetic-1.c0"].config["clep"] == CONFIG.clep
    mixed = nodes["clep/leave-out-synthetic-1.interpolated.c0"]
    assert inputs_of(mixed) == {"backbone": "backbone/backbone", "clep": "clep/leave-out-synthetic-1.c0"}


def test_mixing_weights_as_a_setting_trains_what_is_mixed_first():
    config = replace(CONFIG, clep=replace(CONFIG.clep, clap_share=0.3))
    nodes = by_id(config)
    assert inputs_of(nodes["clep/supervised.c0"])["clep"] == "clep/supervised.trained.c0"
    assert nodes["clep/supervised.trained.c0"].config["clep"] == CONFIG.clep
    order = list(nodes)
    assert order.index("clep/supervised.trained.c0") < order.index("clep/supervised.c0")


@pytest.mark.parametrize("emotion", ["angry", "happy", "sad"])
def test_an_emotion_that_is_added_by_its_word_is_not_met_before(emotion):
    row = f"new-{emotion}"
    nodes = by_id(replace(CONFIG, rows=(row,)))
    for node in nodes.values():
        if node.stage in ("clep", "acpt"):
            assert node.config["emotions"]
            assert not set(node.config["emotions"]) & set(alike(emotion)), node.id
        if node.stage == "classifier":
            assert node.config["new_label"] == emotion
        if node.stage == "evaluate":
            assert node.config["new_labels"] == {row: emotion}
    everywhere = by_id(replace(CONFIG, clep=replace(CONFIG.clep, without_emotion=emotion)))
    added = everywhere["evaluate/supervised"].config["new_labels"]
    assert set(added) == {name for name, r in CORE_ROWS.items() if r.model == "clep" and r.head in ("text", "prompts")}
    outside = by_id(replace(CONFIG, clep=replace(CONFIG.clep, without_emotion="fearful")))
    assert outside["evaluate/supervised"].config["new_labels"] == {}  # not of this label set


def test_the_ceiling_learns_from_the_target_and_nothing_else_reads_it():
    nodes = by_id(EVERY)
    for corpus in CONFIG.corpora:
        ceiling = f"classifier/leave-out-{corpus}.target-probe.c0"
        inputs = inputs_of(nodes[ceiling])
        assert set(inputs) == {f"audio/{corpus}", f"index/{corpus}"}
        assert inputs[f"index/{corpus}"] == f"index/{corpus}#learning"
        assert [node.id for node in nodes.values() if ceiling in node.needs] == [f"evaluate/leave-out-{corpus}"]
        assert nodes[f"evaluate/leave-out-{corpus}"].config["ceilings"] == ["target-probe"]
    assert not [node_id for node_id in nodes if node_id.startswith("classifier/supervised.target-probe")]


def test_centring_of_a_row_is_its_own():
    nodes = by_id(EVERY)
    centring = {
        name: nodes[f"classifier/supervised.{name}.c0.l0"].config["classifier"].centring
        for name in ("text-acpt", "text-acpt-uncentred", "text-acpt-target-centred")
    }
    assert list(centring.values()) == ["source", "none", "target"]
    heads = {head["row"]: head["centring"] for head in nodes["evaluate/supervised"].config["heads"]}
    assert {name for name, kind in heads.items() if kind == "target"} == {"text-acpt-target-centred"}
    assert nodes["classifier/supervised.clep-zero-shot-centred.c0"].config["classifier"].steps == 0


def test_the_caption_says_what_is_real_and_what_is_synthetic():
    mixed = facts(replace(CONFIG, corpora=("ravdess", "synthetic-1")))["caption"]
    assert "Real speech: ravdess." in mixed
    assert "Synthetic speech (synthetic-1)" in mixed
    assert "no pretraining" in mixed
    assert "Real speech" not in facts(CONFIG)["caption"]


def test_conditions_are_heard_by_every_model_of_a_fold_on_its_targets_alone():
    config = replace(CONFIG, evaluate=replace(CONFIG.evaluate, conditions=("pink-10dB", "babble-0dB")))
    nodes = by_id(config)
    assert [node.id for node in graph(config, {})] == list(nodes)
    first = CONFIG.corpora[0]
    evaluated = nodes[f"evaluate/leave-out-{first}"]
    heard = {name.split("/")[3] for name in inputs_of(evaluated) if name.startswith("audio/")}
    assert heard == {"clean", "pink-10dB", "babble-0dB"}
    shared = f"audio_embeddings/log-mel.{first}.pink-10dB"
    assert shared in evaluated.needs and shared in nodes["evaluate/supervised"].needs
    babble = nodes[f"audio_embeddings/leave-out-{first}.log-mel.{first}.babble-0dB"]
    assert not {
        ref for ref in inputs_of(babble).values() if ref.endswith(f"{first}#learning")
    }  # the target does not babble
    assert {ref for name, ref in inputs_of(babble).items() if name.startswith("talkers/")} == {
        f"shard/{corpus}#learning" for corpus in CONFIG.corpora[1:]
    }
    assert not [node for node in nodes if node.startswith("classifier/") and "dB" in str(inputs_of(nodes[node]))]


@pytest.mark.parametrize("backbone", ["micro", "micro-context"])
def test_contexts_in_words_are_looked_at_before_clep_as_well(backbone):
    config = replace(CONFIG, backbone=replace(CONFIG.backbone, name=backbone))
    noisy = replace(config, evaluate=replace(config.evaluate, conditions=("white-0dB",)))
    nodes = by_id(noisy)
    node = nodes["evaluate/supervised"]
    own = "backbone" if backbone == "micro" else "supervised.backbone"
    assert inputs_of(node)["text/backbone/-"] == f"text_embeddings/{own}.hand-written"
    assert node.config["looked_at"]["backbone/-"] == own and f"audio/{own}/synthetic-1/white-0dB" in inputs_of(node)
    for other in (config, replace(noisy, rows=("text-hand-written",)), replace(noisy, rows=("clap-zero-shot",))):
        alone = by_id(other)
        assert "text/backbone/-" not in inputs_of(alone["evaluate/supervised"])
        assert f"text_embeddings/{own}.hand-written" not in alone


def test_contexts_in_words_are_looked_at_in_every_variant_of_clep():
    """Whether what a variant changes keeps what contexts mean: its own words and its own audio, once for each CLEP."""
    noisy = replace(CONFIG, evaluate=replace(CONFIG.evaluate, conditions=("white-0dB",)), clep_seeds=(0, 1))
    wanted = ("text-hand-written", "text-acpt", "clep-frozen-text")
    nodes = by_id(replace(noisy, rows=wanted))
    for fold in ("supervised", "leave-out-synthetic-1"):
        node = nodes[f"evaluate/{fold}"]
        looked_at = node.config["looked_at"]
        for seed in ("c0", "c1"):
            model = f"{fold}.frozen-text.{seed}"
            assert looked_at[f"clep-frozen-text/{seed}"] == model
            assert inputs_of(node)[f"text/clep-frozen-text/{seed}"] == f"text_embeddings/{model}.hand-written"
            assert inputs_of(nodes[f"text_embeddings/{model}.hand-written"]) == {"model": f"clep/{model}"}
            assert f"audio/{model}/synthetic-1/white-0dB" in inputs_of(node)
        assert len([name for name in looked_at if name.startswith("clep-")]) == 2
    for rows in (wanted[:2], wanted[1:]):
        looked_at = by_id(replace(noisy, rows=rows))["evaluate/supervised"].config["looked_at"]
        assert not [name for name in looked_at if name.startswith("clep-")]


def test_class_prompts_read_the_centring_alone():
    """Of the classifier's settings: another learning rate leaves the zero-shot rows up to date."""
    settings = {}
    for name, changes in {"a": {}, "b": {"learning_rate": 0.01, "steps": 7}, "c": {"centring": "none"}}.items():
        nodes = by_id(replace(CONFIG, classifier=replace(CONFIG.classifier, **changes)))
        settings[name] = canonical(nodes["classifier/supervised.clep-zero-shot-centred.c0"].config)
    assert settings["a"] == settings["b"] != settings["c"]


def test_conditions_change_the_evaluation_alone():
    heard = replace(CONFIG, evaluate=replace(CONFIG.evaluate, conditions=("room-long",)))
    before, after = by_id(), by_id(heard)
    for node_id, node in before.items():
        if node.stage not in ("evaluate", "report"):
            assert canonical(after[node_id].config) == canonical(node.config), node_id


@pytest.mark.parametrize(
    "overrides",
    [{"evaluate.conditions": "white"}, {"evaluate.conditions": "clean"}, {"evaluate.conditions": "own-5dB"}],
)
def test_conditions_that_can_not_be_heard_are_refused(overrides):
    with pytest.raises(ConfigError):
        configure(Arguments(preset="demo", overrides=overrides))


def test_folds_need_nothing_of_each_other():
    """So that they can be computed side by side."""
    nodes = graph(CONFIG, {})
    folds = {node.id: node.fold for node in nodes}
    assert {fold for fold in folds.values() if fold} == {
        "supervised",
        *(f"leave-out-synthetic-{n}" for n in range(1, 6)),
    }
    for node in nodes:
        if node.fold:
            assert {folds[need] for need in node.needs} <= {node.fold, None}
        elif node.stage != "report":
            assert {folds[need] for need in node.needs} <= {None}
    first = next(n for n, node in enumerate(nodes) if node.fold)
    assert all(node.fold for node in nodes[first:-1])  # what folds share stands before them, the report after
    assert nodes[-1].stage == "report"
