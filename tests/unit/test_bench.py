"""Protects the pages that `make bench` writes: what got worse is said, and no figure of docs/scale.md is typed."""

import pytest

from tests.benchmark import scale_page
from tests.benchmark.lines import NO_GPU, Line, as_json, as_table, in_turn, line, ratios, regressed


def test_functions_run_in_turn_and_a_first_round_does_not_count() -> None:
    called: list[str] = []
    spent = in_turn({name: lambda name=name: called.append(name) for name in ("peer", "ours")}, rounds=2)
    assert called == ["peer", "ours"] * 3 and [len(own) for own in spent.values()] == [2, 2]
    assert ratios({"peer": [2.0, 3.0], "ours": [1.0, 1.0]}, "peer", "ours") == [2.0, 3.0]


@pytest.mark.parametrize(
    ("now", "more", "said"),
    [
        ((0.5, 0.6, 0.7), True, "loading: 0.6, was 1"),
        ((0.5, 0.6, 0.9), True, ""),  # within the spread
        ((1.5, 1.6, 1.7), True, ""),
        ((1.5, 1.6, 1.7), False, "loading: 1.6, was 1"),
    ],
)
def test_a_line_is_worse_where_the_spreads_do_not_meet(now: tuple[float, ...], more: bool, said: str) -> None:
    old = as_json({"loading": line([0.9, 1.0, 1.1])})["loading"]
    assert regressed("loading", line(now, more=more), old) == said
    assert regressed("loading", line(now, more=more), None) == ""
    assert regressed("loading", Line(value=None, said=NO_GPU), old) == ""


def test_the_table_shows_median_spread_and_what_was_not_measured() -> None:
    table = as_table(
        {"a": line([1.0, 2.0, 4.0], unit="ms", goal="< 3", said="of b"), "c": Line(value=None, said=NO_GPU)}
    )
    assert table.splitlines()[2:] == ["| a | 2 ms | 1-4 | < 3 | of b |", f"| c | {NO_GPU} | |  | |"]


def test_docs_scale_is_what_the_figures_give() -> None:
    assert (scale_page.DOCS / "scale.md").read_text() == scale_page.page()
