"""Protects the whole table: every row there is computes on two tiny corpora, and says what it must beside its cells."""

import pandas as pd
import pytest

from clepdg.config.presets import build
from clepdg.config.rows import ALL, rows
from clepdg.evaluation.marks import CEILING
from clepdg_flows.graph.pipeline import graph
from clepdg_tasks.engine import execute
from clepdg_tasks.engine.node import decide
from clepdg_tasks.host.settings import Settings
from tests.flow.small import SMALL, run_nodes, silent

pytestmark = pytest.mark.slow

TINY = {
    **SMALL,
    "synthetic.utterances": 40,
    "acpt.contexts": 3,
    "acpt.tokens": 2,
    "text.redraws": 2,
    "rows": "all",
}
FOLD = "leave-out-synthetic-2"


@pytest.fixture(scope="module")
def nodes():
    config = build("demo", corpora=("synthetic-1", "synthetic-2"), overrides=TINY)
    return graph(config, {}, folds=(FOLD,))


@pytest.fixture(scope="module")
def machine(home):
    return Settings(home=home, store=str(home / "store"), tracking_url=None, device="cpu", workers=2)


@pytest.fixture(scope="module")
def ran(nodes, machine):
    """Run every node once, in order; return the store and the records."""
    return run_nodes(nodes, machine.home)[:2]


@pytest.fixture
def cells(ran):
    store, records = ran
    return pd.read_parquet(store.local("evaluate", records[f"evaluate/{FOLD}"].key) / "cells.parquet")


def test_every_row_has_a_cell(cells):
    assert list(cells.row.sort_values()) == sorted(rows((ALL,)))
    assert cells.uar.between(0, 1).all()


def test_rows_that_are_unlike_the_others_say_so(cells):
    for cell in cells.to_dict("records"):
        added = cell["row"].startswith("new-")
        assert (cell["new_label"] == cell["row"].removeprefix("new-")) == added
        assert any("added by its word alone" in mark for mark in cell["marks"]) == added
        assert (CEILING in cell["marks"]) == (cell["row"] == "target-probe")
    of_row = cells.set_index("row")
    test_parts = {"target-probe", "text-acpt-target-centred"}
    assert set(of_row.index[of_row.part == "test"]) == test_parts
    assert (of_row.n[of_row.part == "whole"] > of_row.n_test[of_row.part == "whole"]).all()


def test_the_report_names_every_row(ran):
    store, records = ran
    page = (store.local("report", records["report/report"].key) / "report.html").read_text()
    table = (store.local("report", records["report/report"].key) / "table.txt").read_text()
    assert "not testable: no pretrained text" in table
    for title in ("ceiling: probe learnt from the target", "ACPT, contexts redrawn each pass", "ACPT, CLEP by LoRA"):
        assert title in page
        assert title in table


def test_each_row_answers_in_its_own_way(ran):
    """No two have the same head, but where the evaluation alone sees the target's mean, or nothing is beyond 8 kHz."""
    _, records = ran
    heads = {n: r.digests["content"] for n, r in records.items() if n.startswith("classifier/")}
    same = {digest: [n for n in heads if heads[n] == digest] for digest in heads.values()}
    shared = [sorted(name.split(".")[1] for name in names) for names in same.values() if len(names) > 1]
    assert sorted(shared) == [["clap-zero-shot", "clap-zero-shot-full-band"], ["text-acpt", "text-acpt-target-centred"]]


def test_how_much_models_read_of_contexts_is_known_before_and_after(ran):
    _, records = ran
    names = {"context_shift", "context_variance_share", "context_effective_rank"}
    models = [record for node_id, record in records.items() if node_id.startswith(("clep/", "backbone/"))]
    assert len(models) > 10
    for record in models:
        assert names <= set(record.figures)
    frozen = records[f"clep/{FOLD}.frozen-text.c0"].figures
    before = records["backbone/backbone"].figures
    assert {name: frozen[name] for name in names} == pytest.approx({name: before[name] for name in names}, abs=1e-4)
    assert records[f"clep/{FOLD}.c0"].figures["context_shift"] != before["context_shift"]
    store, _ = ran
    page = (store.local("report", records["report/report"].key) / "report.html").read_text()
    for shown in ("what models read of contexts", "CLEP frozen-text", "CLEP interpolated", "context_effective_rank"):
        assert shown in page


def test_the_same_seed_gives_the_same_digest_wherever_words_or_noise_are_drawn(ran, nodes, machine, tmp_path):
    from clepdg.store.store import Store

    store, records = ran
    wanted = ("vocabulary", "noise", "redrawn", "one-prompt", "non-acoustic", "interpolated.c0")
    again = Store(tmp_path)
    chosen = [
        node
        for node in nodes
        if node.stage in ("clep", "acpt", "text_embeddings", "classifier")
        if any(part in node.name for part in wanted)
    ]
    assert len(chosen) > 8

    class Both:
        """Reads inputs from the first store, and writes to another one."""

        root = again.root

        def __getattr__(self, name):
            return getattr(again, name)

        def local(self, stage, key):
            found = again.local(stage, key)
            return found if found.exists() else store.local(stage, key)

    for node in chosen:
        outcome = execute.run(node, decide(node, records, Both(), dict), records, Both(), machine, reporting=silent)
        assert not outcome.reused
        assert outcome.record.digests == records[node.id].digests, node.id
