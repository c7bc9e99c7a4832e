"""Protects the links of a run's page: each leads to what it says, also where all was reused or nothing was reported."""

import base64

import pytest

from clepdg.hashing import write_json
from clepdg.store.opening import open_store
from clepdg.store.record import Record
from clepdg_flows.run.prefect_page import results_page
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.tracking.marker import MARKER
from clepdg_tasks.tracking.run_logger import MlflowLogger

SERVER = "http://127.0.0.1:5000"
ML = "?workflowType=machine_learning"


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "a störe"))
    nothing = {"config": {}, "inputs": {}, "figures": {}, "files": {}, "seconds": 0.0, "version": 1}
    for stage, key, run in (("shard", "s1", "r-shard"), ("report", "p", "r-report")):
        folder = store.partial(stage, key)
        one = {"title": "a method", "figures": [".5 [.4, .6]"], "best": True, "place": 0}
        methods = [one, *[{**one, "best": False, "place": None}] * 7]
        table = {"header": "UAR of methods", "columns": ["all corpora"], "methods": methods}
        write_json(folder / "summary.json", {"warnings": [], "sentences": [], **table})
        (folder / "charts").mkdir()
        (folder / "charts" / "methods.svg").write_text("<svg/>")
        record = store.commit(Record(stage=stage, name="tess", key=key, digests={"content": "d"}, **nothing))
        store.documents.write(store.beside(record, MARKER), {"tracking": "x", "run_id": run, "experiment": "7"})
    return store


def page(store, tmp_path, outputs, url=SERVER, **known):
    settings = Settings(home=tmp_path, store=str(store.root), tracking_url=url, device="cpu", workers=1)
    run_logger = MlflowLogger(settings=settings, preset="demo", store=store, parameters={}, **known)
    return results_page([store.lookup(*output) for output in outputs], store, run_logger)


SHARD = [("shard", "s1")]
ALL = [*SHARD, ("report", "p")]


def test_links_come_first_and_lead_to_the_run_that_made_the_report(store, tmp_path):
    text = page(store, tmp_path, ALL, parent="r-flow", _experiment="7")
    links, results = text.split("```text")
    assert f"[report.html]({SERVER}/#/experiments/7/runs/r-report/artifacts/report.html{ML})" in links
    assert f"`{store.local('report', 'p') / 'report.html'}`" in links
    assert f"[this run]({SERVER}/#/experiments/7/runs/r-flow{ML})" in links
    assert results.startswith("\nUAR of methods") and "* a method" in results
    assert "\n* best; 7 more in the report\n```" in results
    assert f"(data:image/svg+xml;base64,{base64.b64encode(b'<svg/>').decode()})" in results


def test_where_all_was_reused_the_report_has_its_page(store, tmp_path):
    text = page(store, tmp_path, ALL)
    assert f"[report.html]({SERVER}/#/experiments/7/runs/r-report/artifacts/report.html{ML})" in text
    assert "computed nothing" in text


def test_without_a_report_it_says_where_the_outputs_lie(store, tmp_path):
    text = page(store, tmp_path, SHARD, parent="r-flow", _experiment="7")
    assert "ends with shard" in text
    assert f"- [shard tess]({SERVER}/#/experiments/7/runs/r-shard{ML}): `{store.local('shard', 's1')}`" in text


def test_without_a_server_there_are_paths_and_a_command_and_no_dead_link(store, tmp_path):
    text = page(store, tmp_path, ALL, url=None, parent="r-flow", _experiment="7")
    assert "](" not in text.replace("](data:", "")
    assert "`mlflow ui --backend-store-uri sqlite:///" in text and "report.html`" in text
    assert "No report" not in page(store, tmp_path, [])


def test_the_report_and_its_files_have_their_short_path_once_they_are_there(store, tmp_path):
    (tmp_path / "report.html").write_text("a page")
    text = page(store, tmp_path, ALL)
    assert f"`{tmp_path / 'report.html'}`" in text and f"`{tmp_path / 'report'}`" in text
