"""Check that predictions agree with themselves and with the label set."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from clepdg.config.conditions import CLEAN
from clepdg.config.folds import LEAVE_OUT, PAIR, SUPERVISED, kind
from clepdg.errors import ClepError
from clepdg.evaluation.blocks import COLUMNS, Block, Blocks
from clepdg.evaluation.predictions import PROBABILITY, probability_columns

if TYPE_CHECKING:
    import pandas as pd


def check(predictions: "pd.DataFrame", labels: tuple[str, ...]) -> Blocks:
    """Check that predictions agree with themselves and with the label set.

    Returns:
        The predictions as codes.

    Raises:
        ClepError: they do not; all faults are listed.
    """
    expected, own = [*COLUMNS, *probability_columns(labels)], [str(column) for column in predictions]
    faults = [f"no column {column}" for column in expected if column not in own]
    others = [column for column in own if column.startswith(PROBABILITY) and column not in expected]
    faults += [f"column {column} is not of one of {', '.join(labels)}" for column in others]
    if not faults and not predictions.empty:
        blocks = Blocks(predictions)
        faults = list(_faults(blocks, labels))
    if predictions.empty or faults:
        raise ClepError("The predictions can't be evaluated.", got=faults or "no predictions", where="predictions")
    return blocks


def _faults(blocks: Blocks, labels: tuple[str, ...]) -> Iterator[str]:
    for column in ("true", "predicted"):
        if unknown := sorted(set(blocks.used(column)) - set(labels)):
            yield f"{column} {', '.join(unknown)} is not one of {', '.join(labels)}"
    misnamed = [seed for seed in blocks.used("seed") if not re.fullmatch(r"-|c\d+(\.l\d+)?", seed)]
    if misnamed:
        yield f"seed {', '.join(misnamed)} is not of the form c0.l0, c0 or -"
    yield from _lines(blocks, labels)
    for column in ("corpus", "speaker", "split", "true"):
        found = blocks.by_utterance(column)
        several = found["several"] | (found["codes"] < 0)
        unused = np.ones(len(several), bool)
        for lines in blocks.chunks():
            unused[blocks.codes("utterance_id", lines)] = False
        if places := np.flatnonzero(several & ~unused).tolist():
            first = blocks.categories["utterance_id"][places[0]]
            yield f"{len(places)} utterances have more than one {column}, first {first}"
    yield from _different_utterances(blocks)
    for fold in blocks.used("fold"):
        corpora = {name for block in blocks.of_fold(fold) for name in blocks.used("corpus", block.lines)}
        others = sorted(corpus for corpus in corpora if not _is_target(corpus, fold))
        if fold != SUPERVISED and others:
            yield f"fold {fold} holds other corpora: {', '.join(others)}"


def _lines(blocks: Blocks, labels: tuple[str, ...]) -> Iterator[str]:
    """Yield the faults of single lines: probabilities, repetitions."""
    wrong: list[int] = []
    for lines in blocks.chunks():
        values = [
            blocks.numbers(column, lines).astype(np.float64, copy=False) for column in probability_columns(labels)
        ]
        valid = np.abs(sum(values) - 1) < 1e-3
        for value in values:
            valid &= value >= 0
        wrong += (lines.start + np.flatnonzero(~valid)).tolist()
    again = [
        block.lines.start + 1 + place
        for block in blocks.blocks
        for utterances in [blocks.codes("utterance_id", block.lines)]
        for place in np.flatnonzero(utterances[1:] == utterances[:-1]).tolist()
    ]
    for found, fault in ((wrong, "lines have probabilities whose sum is not 1"), (again, "lines stand twice")):
        if found:
            first = blocks.categories["utterance_id"][blocks.codes("utterance_id")[found[0]]]
            yield f"{len(found)} {fault}, first of {first}"


def _different_utterances(blocks: Blocks) -> Iterator[str]:
    """Yield the folds whose blocks are about different utterances.

    All share the test part; clean blocks share all utterances, and so do corrupted ones.
    """
    splits = blocks.categories["split"].tolist()
    test = blocks.by_utterance("split")["codes"] == (splits.index("test") if "test" in splits else -2)
    folds = blocks.used("fold")
    for fold in folds:
        yield from _unlike(blocks, blocks.of_fold(fold), fold, test)
    for fold in folds:
        own = blocks.of_fold(fold)
        yield from _unlike(blocks, [block for block in own if block.condition == CLEAN], f"{fold}, {CLEAN}")
        yield from _unlike(blocks, [block for block in own if block.condition != CLEAN], f"{fold}, corrupted")


def _unlike(blocks: Blocks, own: Sequence[Block], of: str, chosen: "np.ndarray | None" = None) -> Iterator[str]:
    """Yield a line about blocks with other utterances than the first."""
    first, odd = None, []
    for block in own:
        utterances = blocks.codes("utterance_id", block.lines)
        if chosen is not None:
            utterances = utterances[chosen[utterances]]
        if not len(utterances):
            continue
        first = utterances if first is None else first
        if not np.array_equal(first, utterances):
            odd.append(str((block.row, block.condition, block.seed)))
    if odd:
        yield f"not all predictions of {of} are about the same utterances: {', '.join(odd)}"


def _is_target(corpus: str, fold: str) -> bool:
    return fold.endswith(f"-to-{corpus}") if kind(fold) == PAIR else fold == LEAVE_OUT + corpus
