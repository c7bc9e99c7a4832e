"""Warnings that stand above a report's figures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clepdg.config.folds import SUPERVISED
from clepdg.config.schema import MICRO
from clepdg.errors import counted
from clepdg.report.facts import ALTERED, PART, UNUSABLE, WHOLE

if TYPE_CHECKING:
    import pandas as pd


def incomplete(corpora: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return warnings about partial or altered corpora and unusable files."""
    said = {
        "Parts of corpora": {corpus: own[PART] for corpus, own in corpora.items() if own.get(PART, WHOLE) != WHOLE},
        "Altered corpora": {corpus: own[ALTERED] for corpus, own in corpora.items() if own.get(ALTERED, "no") != "no"},
        "Left out as unusable": {
            corpus: f"{own[UNUSABLE]:,} of its files" for corpus, own in corpora.items() if own.get(UNUSABLE)
        },
    }
    return [
        f"{title}: {', '.join(f'{corpus} ({words})' for corpus, words in own.items())}."
        for title, own in said.items()
        if own
    ]


def warnings(cells: "pd.DataFrame", facts: Mapping[str, Any]) -> list[str]:
    """Return the warnings, a sentence each."""
    from clepdg.corpora.cards import load_card

    corpora: Mapping[str, Mapping[str, Any]] = facts.get("corpora", {})
    found = []
    if any(load_card(corpus).acoustics for corpus in corpora):
        found.append("Synthetic speech: the figures say nothing about real emotional speech.")
    if str(facts.get("backbone", "")).partition(" ")[0] == MICRO:  # what it is follows its name
        found.append("Backbone micro is not pretrained: its contexts in words are random ones.")
    if not cells.empty and set(cells["fold"]) == {SUPERVISED}:
        tested = cells.iloc[0]
        found.append(
            "No corpus was left out: the figures say nothing about corpora that were not trained on. Tested on"
            f" {counted(int(tested['n']), 'utterance')} of {counted(int(tested['speakers']), 'speaker')}."
        )
    found += incomplete(corpora)
    marks = sorted({mark for own in cells["marks"] for mark in own if mark.startswith("conditional on ")})
    found.extend(f"Intervals are {mark}: --set clep_seeds=0,1,2 trains three." for mark in marks)
    return found
