"""Protects what the demo claims: CLEP and the classifier with ACPT's contexts beat the floor on unseen corpora."""

import pandas as pd
import pytest

from clepdg_tasks.host.settings import load_settings

pytestmark = pytest.mark.usefixtures("prefect_server")

METHODS = ("clep-zero-shot", "text-acpt")


def test_the_methods_beat_the_floor_on_the_mean_of_left_out_corpora_beyond_the_interval() -> None:
    from clepdg_flows.clep_dg import clep_dg

    overrides = {
        "clep_seeds": "0,1,2",
        "protocols": "leave-one-corpus-out",
        "rows": ",".join(("log-mel", *METHODS)),
    }
    clep_dg(preset="demo", overrides=overrides)
    (path,) = (load_settings().open_store().root / "report").glob("*/headline.csv")
    table = pd.read_csv(path)
    table = table[table["where"].str.contains("left-out targets, clean")].set_index("row")
    assert (table.targets == 5).all()
    for method in METHODS:
        assert table.low_minus_floor[method] > 0
        assert table.low_these_corpora[method] > 0
