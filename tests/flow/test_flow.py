"""Protects the whole flow on a tiny fold: what runs again after which change, MLflow, the registry, and failures."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from clepdg.config.schema import SyntheticConfig
from clepdg.corpora import cards
from clepdg.corpora.cards import load_card
from clepdg.errors import ClepError, ConfigError
from clepdg.hashing import plain
from clepdg_flows.graph import pipeline
from clepdg_flows.run import plan
from clepdg_tasks.engine import last_arguments, run_history
from clepdg_tasks.engine.node import decide
from clepdg_tasks.host.settings import load_settings
from clepdg_tasks.stages import data, models
from clepdg_tasks.tracking import client as tracking
from clepdg_tasks.tracking import lineage, model_registry, run_logger
from clepdg_tasks.tracking.lineage import version_tags
from tests.flow.small import SMALL, is_version

pytestmark = pytest.mark.usefixtures("prefect_server", "few_separation_steps")

TINY = {
    **SMALL,
    "rows": "majority,log-mel,clep-zero-shot,clep-probe,text-none,text-acpt",
}
DATA = {"source", "index", "shard"}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The state of this module's runs, in a folder whose name is like a pattern, a URL and a quoted one."""
    return tmp_path_factory.mktemp("a #b?c{d}::e%20f'g")


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> dict[str, str]:
    """Folders in the layouts of two real corpora, from the generator."""
    from clepdg.corpora import synthetic

    folders = {}
    for corpus, like in (("ravdess", "synthetic-1"), ("emodb", "synthetic-3")):
        folder = tmp_path_factory.mktemp("corpora") / f"a {corpus}"
        synthetic.write(load_card(like), SyntheticConfig(utterances=40), folder)
        folders[corpus] = str(folder)
    return folders


@pytest.fixture
def real_cards(monkeypatch):
    """Give RAVDESS's and EmoDB's cards splits that the small trees have utterances for."""
    original = load_card

    def load(name: str):
        like = {"ravdess": "synthetic-1", "emodb": "synthetic-3"}.get(name)
        card = original(name)
        return replace(card, split=original(like).split) if like else card

    for module in (cards, pipeline):
        monkeypatch.setattr(module, "load_card", load)
    for module in (data, lineage):
        monkeypatch.setattr(module, "load_card", load)
    return load


def run(trees, overrides=None, **options):
    from clepdg_flows.clep_dg import clep_dg

    return clep_dg(
        preset="open",
        backbone="micro",
        corpora=["ravdess", "emodb"],
        sources=trees,
        allow_partial=True,
        overrides={**TINY, **(overrides or {})},
        **options,
    )


def last_log() -> dict[str, dict[str, str]]:
    """Return node id -> facts of the newest run."""
    store = load_settings().open_store()
    newest = max((store.root / "runs").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
    return json.loads(newest.read_text())["stages"]


def computed() -> set[str]:
    return {node_id for node_id, facts in last_log().items() if facts["outcome"] == "Completed"}


def stages_of(nodes: set[str]) -> set[str]:
    return {node.partition("/")[0] for node in nodes}


@pytest.fixture(scope="module")
def stood_before() -> dict:
    """The last result of `stood`."""
    return {}


@pytest.fixture
def stood(trees, real_cards, stood_before):
    """Have everything computed, by the newest run."""
    if not stood_before or {name: facts["key"] for name, facts in last_log().items()} != stood_before["stages"]:
        stood_before |= run(trees)
    return stood_before


def mlflow_client():
    return tracking.connect(load_settings())


def test_first_run_registers_everything_once(trees, real_cards):
    result = run(trees)
    log = last_log()
    assert {facts["outcome"] for facts in log.values()} == {"Completed"}
    assert {n for n in log if n.startswith("evaluate/")} == {
        "evaluate/supervised",
        "evaluate/leave-out-ravdess",
        "evaluate/leave-out-emodb",
    }
    client = mlflow_client()
    experiment = client.get_experiment_by_name("clep-dg")
    children = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{result['mlflow_run']}'", max_results=1000
    )
    assert len(children) == len(log)
    assert {run.info.status for run in children} == {"FINISHED"}
    by_name = {run.info.run_name: run for run in children}
    clep = by_name["clep leave-out-emodb.c0"]
    assert {d.dataset.name for d in clep.inputs.dataset_inputs} == {"shard ravdess", "index ravdess"}
    audio = by_name["audio_embeddings log-mel.ravdess"]
    assert {d.dataset.name for d in audio.inputs.dataset_inputs} == {"shard ravdess"}
    assert clep.data.params["clep.epochs"] == "1"
    assert "loss" in clep.data.metrics
    assert clep.data.tags["stage_key"] == log["clep/leave-out-emodb.c0"]["key"]
    for stage, count in (("clep", 1), ("acpt", 1), ("text_embeddings", 2), ("classifier", 2)):
        versions = client.search_model_versions(f"name = '{model_registry.model_name(stage, 'open')}'")
        own = {f["key"] for n, f in log.items() if n.startswith(f"{stage}/") and is_version(n)}
        assert len(versions) == count and {v.tags["stage_key"] for v in versions} == own
        assert all(load_card("ravdess").licence in v.description for v in versions)
    parent = client.get_run(result["mlflow_run"])
    assert {"left_out_uar/text-acpt", "supervised_uar/text-acpt"} <= set(parent.data.metrics)
    assert "uar-by-fold.png" in [file.path for file in client.list_artifacts(parent.info.run_id)]
    files = [file.path for file in client.list_artifacts(by_name["evaluate supervised"].info.run_id)]
    assert {"confusion-text-acpt.png", "predictions.csv", "predictions.parquet"} <= set(files)


def test_a_clep_that_is_mixed_from_another_is_computed_after_it(trees, stood):
    """Both are of one stage and one fold."""
    result = run(trees, {"rows": "majority,clep-interpolated"}, folds=["supervised"])
    assert {"clep/supervised.interpolated.c0", "evaluate/supervised", "report/report"} <= computed()
    assert result["stages"]["clep/supervised.c0"] == stood["stages"]["clep/supervised.c0"]


def test_second_run_computes_nothing_and_opens_no_mlflow_run(trees, stood):
    before = len(mlflow_client().search_model_versions("name = 'clep-dg-classifier'"))
    result = run(trees)
    assert result["computed"] == 0
    assert result["mlflow_run"] is None
    assert len(mlflow_client().search_model_versions("name = 'clep-dg-classifier'")) == before


def test_champion_is_the_supervised_acpt_row_and_predicts(trees, stood):
    model = mlflow_client().get_registered_model("clep-dg-classifier")
    version = mlflow_client().get_model_version("clep-dg-classifier", model.aliases["champion"])
    assert list(version.tags)[0] == "uar" and version.description.startswith(f"UAR {version.tags['uar']} [")
    tags = version_tags(version)
    assert (tags["fold"], tags["row"], tags["seed"]) == ("supervised", "text-acpt", "c0.l0")
    assert 0 <= float(tags["uar"]) <= 1
    measured = mlflow_client().get_run(version.run_id).data.metrics
    assert measured["uar"] == pytest.approx(float(tags["uar"]), abs=6e-4)
    assert {"war", "uar_low", "uar_high", "validation_accuracy"} <= set(measured)
    assert measured["validation_uar"] == pytest.approx(float(tags["validation_uar"]), abs=6e-4)
    assert len(tags["test_digest"]) == 64
    loaded = model_registry.load_classifier(load_settings(), "open")
    audio = sorted(Path(trees["emodb"]).rglob("*.wav"))[:2]
    answer = loaded.predict(audio)
    assert list(answer.columns) == ["emotion", "angry", "happy", "neutral", "sad"]
    assert answer[["angry", "happy", "neutral", "sad"]].sum(axis=1).tolist() == pytest.approx([1, 1])
    by_alias = model_registry.load_classifier(load_settings(), "open", "champion")
    by_number = model_registry.load_classifier(load_settings(), "open", str(version.version))
    pd.testing.assert_frame_equal(by_alias.predict(audio), by_number.predict(audio))
    with pytest.raises(ConfigError, match="no such registered"):
        model_registry.load_classifier(load_settings(), "open", "challenger")


def test_what_chooses_a_champion_is_on_validation_and_apart_from_what_reports_show(stood):
    from sklearn.metrics import recall_score

    store, log = load_settings().open_store(), last_log()
    folder = store.local("evaluate", log["evaluate/supervised"]["key"])
    predictions = pd.read_parquet(folder / "validation.parquet")
    assert set(predictions.split) == {"validation"} and set(predictions.row) == {"text-acpt"}
    assert set(pd.read_parquet(folder / "predictions.parquet").split) == {"test"}  # what reports are made of
    uars = [
        recall_score(part.true, part.predicted, average="macro", labels=sorted(set(part.true)))
        for _, part in predictions[predictions.seed == "c0.l0"].groupby("corpus")
    ]
    figures = store.lookup("evaluate", log["evaluate/supervised"]["key"]).figures
    assert figures["validation_uar"]["c0.l0"] == pytest.approx(sum(uars) / len(uars))


def test_classifier_steps_touch_nothing_before_the_classifier(trees, stood):
    run(trees, {"classifier.steps": 6})
    assert stages_of(computed()) == {"classifier", "evaluate", "report"}
    rows = {n.split(".")[1] for n in computed() if n.startswith("classifier/")}
    assert rows == {"text-none", "text-acpt"}
    assert last_log()["classifier/supervised.text-none.c0.l0"]["reason"] == "config classifier.steps 5 -> 6"


def test_adding_a_file_runs_that_corpus_and_what_depends_on_it(trees, stood, tmp_path):
    grown = {**trees, "emodb": str(shutil.copytree(trees["emodb"], tmp_path / "grown"))}
    wav = sorted(Path(grown["emodb"]).rglob("*.wav"))[0]
    shutil.copy(wav, wav.with_name(wav.stem[:-1] + "f.wav"))
    run(grown)
    done = computed()
    assert {n for n in done if n.partition("/")[0] in DATA} == {"source/emodb", "index/emodb", "shard/emodb"}
    assert "clep/leave-out-emodb.c0" not in done
    assert "clep/leave-out-ravdess.c0" in done
    assert "audio_embeddings/leave-out-emodb.c0.ravdess" not in done
    assert "audio_embeddings/leave-out-emodb.c0.emodb" in done


def test_copies_of_source_audio_are_dropped_from_the_target_alone(trees, stood, tmp_path):
    copied = {**trees, "emodb": str(shutil.copytree(trees["emodb"], tmp_path / "copied"))}
    learnt = sorted(Path(trees["ravdess"]).rglob("03-01-05-*-01.wav"))[0]  # an actor of train, angry
    victim = sorted(Path(copied["emodb"]).rglob("09*W?.wav"))[0]  # a test speaker, angry
    shutil.copy(learnt, victim)
    run(copied)
    store, log = load_settings().open_store(), last_log()
    record = store.lookup("evaluate", log["evaluate/leave-out-emodb"]["key"])
    assert record.figures["copies"] == 1
    assert store.lookup("evaluate", log["evaluate/leave-out-ravdess"]["key"]).figures["copies"] == 0
    assert not {n for n in computed() if n.startswith(("clep/leave-out-emodb", "classifier/leave-out-emodb"))}
    tested = pd.read_parquet(store.local("evaluate", record.key) / "predictions.parquet")
    assert f"emodb/{victim.stem}" not in set(tested.utterance_id)
    page = store.local("report", log["report/report"]["key"]) / "report.html"
    assert "copies of source audio" in page.read_text()


def test_an_utterance_that_the_card_withdraws_makes_what_depends_on_it_stale(trees, stood, real_cards, monkeypatch):
    index = load_settings().open_store().local("index", last_log()["index/ravdess"]["key"])
    withdrawn = pd.read_parquet(index / "utterances.parquet").query("split == 'train'").utterance_id.iloc[0]

    def edited(name):
        card = real_cards(name)
        return replace(card, exclude=(withdrawn,)) if name == "ravdess" else card

    for module in (cards, pipeline, data, lineage):
        monkeypatch.setattr(module, "load_card", edited)
    run(trees)
    done = computed()
    assert {n for n in done if n.partition("/")[0] in DATA} == {"index/ravdess", "shard/ravdess"}
    assert {"clep/supervised.c0", "clep/leave-out-emodb.c0"} <= done and "clep/leave-out-ravdess.c0" not in done


def test_a_moved_corpus_only_lists_its_files_again(trees, stood, tmp_path):
    moved = {**trees, "emodb": str(shutil.copytree(trees["emodb"], tmp_path / "moved"))}
    run(moved)
    assert computed() == {"source/emodb"}


def test_an_edited_label_map_encodes_no_audio(trees, stood, real_cards, monkeypatch):
    def edited(name):
        card = real_cards(name)
        return replace(card, labels={**card.labels, "happy": "excited"}) if name == "ravdess" else card

    for module in (cards, pipeline, data, lineage):
        monkeypatch.setattr(module, "load_card", edited)
    run(trees)
    assert {n for n in computed() if n.partition("/")[0] in DATA} == {"index/ravdess"}
    assert "clep/supervised.c0" in computed()
    assert not {n for n in computed() if n.startswith("audio_embeddings/log-mel")}


def test_a_deleted_and_a_truncated_output_are_redone_and_nothing_else(trees, stood):
    store, log = load_settings().open_store(), last_log()
    shutil.rmtree(store.local("text_embeddings", log["text_embeddings/supervised.c0.none"]["key"]))
    tar = next(store.local("shard", log["shard/emodb"]["key"]).glob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:-700])
    run(trees)
    assert computed() == {"text_embeddings/supervised.c0.none", "shard/emodb"}
    assert "truncated or altered" in last_log()["shard/emodb"]["reason"]


def test_until_and_redo(trees, stood):
    run(trees, until="shard", redo=["shard"])
    assert computed() == {"shard/ravdess", "shard/emodb"}
    assert stages_of(set(last_log())) == DATA


def test_status_agrees_without_running(trees, stood):
    arguments = last_arguments.last(load_settings())
    store = load_settings().open_store()

    def stale(asked):
        made = plan.make_plan(asked)
        records, reasons = {}, {}
        for node in made.nodes:
            decision = decide(node, records, store, lambda: run_history.last_keys(store, plain(made.config)))
            if decision.record:
                records[node.id] = decision.record
            else:
                reasons[node.id] = decision.reason
        return reasons

    assert stale(arguments) == {}
    reasons = stale(replace(arguments, overrides={**arguments.overrides, "clep.epochs": 2}))
    assert reasons["clep/supervised.c0"] == "config clep.epochs 1 -> 2"
    assert reasons["report/report"].startswith("depends on evaluate")
    assert not {n for n in reasons if n.partition("/")[0] in DATA}


def test_a_failed_corpus_is_named_and_the_others_are_finished(trees, stood, tmp_path):
    from clepdg_flows.run.run import StagesFailed

    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("no audio here")
    with pytest.raises(
        StagesFailed, match=r"(?s)1 of \d+ stages failed, \d+ stages after that were not started.*index/emodb"
    ) as caught:
        run({**trees, "emodb": str(tmp_path / "empty")}, {"rows": "majority,log-mel"})
    assert "ravdess" not in str(caught.value)
    log = last_log()
    assert log["index/emodb"]["outcome"] == "Failed"
    assert log["shard/emodb"]["outcome"] == "Skipped"
    assert log["shard/ravdess"]["outcome"] == "Reused"
    run(trees)
    assert computed() == set()


def test_a_failed_fold_is_named_and_the_others_are_finished(trees, stood, monkeypatch):
    from clepdg_flows.run.run import StagesFailed

    fit = models.compute_clep

    def broken(work):
        if set(work.records) == {"backbone", "shard/ravdess", "index/ravdess"}:
            raise ClepError("The loss is not a number.")
        return fit(work)

    with monkeypatch.context() as patched, pytest.raises(StagesFailed) as caught:
        patched.setattr(models, "compute_clep", broken)
        run(trees, {"clep.weight_decay": 0.02})
    assert "clep/leave-out-emodb.c0: The loss is not a number." in str(caught.value)
    assert str(caught.value).startswith("1 of ")
    log = last_log()
    for fold in ("supervised", "leave-out-ravdess"):
        assert log[f"clep/{fold}.c0"]["outcome"] == log[f"evaluate/{fold}"]["outcome"] == "Completed"
    assert log["clep/leave-out-emodb.c0"]["outcome"] == "Failed"
    assert log["evaluate/leave-out-emodb"]["outcome"] == log["report/report"]["outcome"] == "Skipped"
    run(trees, {"clep.weight_decay": 0.02})
    assert {n for n in computed() if n.startswith(("clep/", "evaluate/", "report/"))} == {
        *("clep/leave-out-emodb.c0", "evaluate/leave-out-emodb", "report/report"),
    }


def test_all_faults_come_in_one_error_before_anything_runs(trees, tmp_path):
    from clepdg_flows.clep_dg import clep_dg

    (tmp_path / "not.zip").write_text("<html>")
    before = len(list((load_settings().open_store().root / "runs").glob("*.json")))
    with pytest.raises(ClepError) as caught:
        clep_dg(
            preset="open",
            backbone=str(tmp_path / "no model"),
            corpora=["ravdess", "emodb", "crema-d"],
            sources={"ravdess": str(tmp_path / "not.zip"), "emodb": str(tmp_path / "missing")},
        )
    message = str(caught.value)
    assert "4 things" in message
    assert all(name in message for name in ("not.zip", "missing", "crema-d", "no model"))
    assert len(list((load_settings().open_store().root / "runs").glob("*.json"))) == before


def test_compare_and_promote(trees, stood):
    from clepdg_tasks.tracking import champion as promotion
    from clepdg_tasks.tracking import compare

    settings = load_settings()
    run(trees, {"classifier.steps": 9})
    versions = compare.read_versions(mlflow_client(), "open")
    eligible = [v for v in versions if v.place[:2] == ("supervised", "text-acpt")]
    champion, newest = next(v for v in eligible if v.champion), eligible[-1]
    assert newest.number != champion.number
    text = compare.compare(settings, "open")
    block = text.partition(f"version {newest.number} against the champion, version {champion.number}")[2]
    assert all(f"{metric} difference: " in block for metric in ("UAR", "WAR", "macro-F1"))
    digest = newest.tags["test_digest"][:8]
    assert " ".join(block.partition("test utterances")[2].split()[:2]) == f"{digest} {digest}"
    assert "corpus emodb" in block and "differs" not in block.partition("\n\n")[0]
    two = compare.compare(settings, "open", ["champion", str(newest.number)])
    assert two.endswith(block.partition("\n\n")[0].rstrip())
    assert compare.compare(settings, "open", [str(newest.number)]) == two
    rival = next(v for v in versions if v.place[1] == "text-none")
    kinds = compare.compare(settings, "open", [str(rival.number), "champion"])
    assert "different methods: text classifier, ACPT contexts (fold supervised) against text classifier, no" in kinds
    listed = compare.compare(settings, "open", method="text-none").partition("\n\nversion")[0]
    assert "text-none" in listed and "text-acpt" not in listed
    with pytest.raises(ConfigError, match="No version has this fold and method"):
        compare.compare(settings, "open", fold="leave-out-emodb")
    with pytest.raises(ConfigError, match="Two versions"):
        compare.compare(settings, "open", [str(champion.number), "9999"])
    assert "validation UAR difference, which decides on a champion: " in block
    assert "ignores speakers" in block  # few speakers: such a difference promotes nobody by itself
    assert "setting classifier.steps" in block
    with pytest.raises(ConfigError, match="no such version"):
        promotion.promote(settings, "open", 9999, "no")
    said = promotion.promote(settings, "open", newest.number, "better")
    assert f"version {newest.number} is the champion now" in said
    assert "is the champion already" in promotion.promote(settings, "open", newest.number, "again")
    with pytest.raises(ConfigError, match="needs a reason"):
        promotion.promote(settings, "open", champion.number, "  ")
    after = {v.number: v for v in compare.read_versions(mlflow_client(), "open")}
    assert after[newest.number].champion
    assert after[newest.number].tags["champion_why"] == "better"
    assert not after[champion.number].champion


def test_lineage_leads_from_a_version_to_the_corpora(trees, stood):
    from clepdg_tasks.tracking import compare

    store = load_settings().open_store()
    version = compare.read_versions(mlflow_client(), "open")[-1]
    log = json.loads((store.root / "runs" / f"{version.tags['run']}.json").read_text())
    digests = compare.corpus_digests(store, log)
    assert set(digests) == {"ravdess", "emodb"}
    assert all(len(digest) == 64 for digest in digests.values())


def test_what_a_broken_mlflow_missed_is_registered_later(trees, stood, monkeypatch, caplog):
    def down(self):
        raise ConnectionError("MLflow went away")

    with monkeypatch.context() as broken:
        broken.setattr(run_logger.MlflowLogger, "client", down)
        told = run(trees, {"classifier.steps": 11})
    assert "MLflow went away" in caplog.text
    assert [note for note in told["notes"] if "MLflow did not accept" in note and "went away" in note]
    log = last_log()
    ended = {n: f for n, f in log.items() if n.startswith("classifier/") and is_version(n)}
    keys = {facts["key"] for facts in ended.values() if facts["outcome"] == "Completed"}
    assert keys

    def registered() -> set[str]:
        versions = mlflow_client().search_model_versions("name = 'clep-dg-classifier'")
        return {v.tags["stage_key"] for v in versions}

    assert not keys & registered()
    result = run(trees, {"classifier.steps": 11})
    assert result["computed"] == 0
    assert keys <= registered()
    assert [note for note in result["notes"] if "registered in MLflow" in note]
