"""The report's facts beside the cells, as texts and tables of texts.

A table of texts maps names to mappings, one line each.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.rows import AS_VECTORS, BEFORE, IN_WORDS, ROWS
from clepdg.emotions import EMOTIONS
from clepdg.evaluation import credit, learnt_vs_random
from clepdg.evaluation.intervals import Interval
from clepdg.evaluation.targets import Target
from clepdg.report.tables import interval_words

if TYPE_CHECKING:
    import pandas as pd

    from clepdg.corpora.cards import Card

CREDIT = "ACPT's credit"
CONTEXTS = "what models read of contexts"
DIAGNOSTICS = "what contexts are like"
LEARNT = "UAR with learnt contexts minus UAR with random ones"
ACOUSTICS = "do contexts look like acoustics?"
PART: Final = "part of the corpus"  # columns of a corpus's facts
ALTERED: Final = "altered"
UNUSABLE: Final = "quarantined"
OUTSIDE: Final = "not evaluated"
NO_EMOTION: Final = "no emotion"
WHOLE: Final = "whole"
ALWAYS = ("context_shift", "context_variance_share", "context_effective_rank")
TAUGHT = ("environment_accuracy_heard", "environment_accuracy_left_out")  # of a backbone that was taught environments

IN_WORDS_OF: Final = {  # figures of stages backbone, clep and acpt
    "context_shift": "how far contexts move text",
    "context_variance_share": "share of text's variance that contexts cause",
    "context_effective_rank": "effective rank of the moves",
    "environment_accuracy_heard": "accuracy on environments that were taught",
    "environment_accuracy_left_out": "on those that were left out",
    "context_mean_abs_cosine": "|cosine| between contexts",
    "shift_mean_abs_cosine": "|cosine| between their moves of text",
    "joint_mean_cosine": "cosine between joint prompts",
    "content_top1": "joint prompts nearest to their emotion",
    "shift_effective_rank": "effective rank of their moves",
    "nearest_caption_cosine": "cosine to the nearest hand-written context: mean",
    "nearest_caption_cosine_lowest": "cosine of the farthest context to its nearest",
    "nearest_caption_cosine_of_captions": "of hand-written ones among themselves",
}

Table = dict[str, dict[str, str]]


def credit_facts(targets: Sequence[Target], corpora: Sequence[str], untestable: str | None) -> dict[str, str]:
    """Return the verdict of the credit rule and the differences behind it.

    Args:
        targets: of the leave-out folds.
        corpora: each of them has to be a target once.
        untestable: why the rule can't be tested with this backbone; None where it can.
    """
    found = credit.verdict_on(targets, corpora)
    verdict = f"not testable: {untestable}" if untestable else f"{found.says}: {found.why}"
    return {CREDIT: verdict, **{f"{CREDIT}, {part}": _named(line) for part, line in found.parts().items()}}


def _named(line: str) -> str:
    """Return a line of differences with rivals by their titles."""
    return re.sub(r"(?<=against )[\w-]+", lambda found: ROWS[found[0]].title.removeprefix("text classifier, "), line)


def learnt_facts(
    predictions: "pd.DataFrame", labels: Mapping[str, tuple[str, ...]], *, confidence: float, test_only: Collection[str]
) -> dict[str, Table]:
    """Return the table of learnt contexts against random ones.

    A line per fold; nothing where no fold has both.

    Args:
        labels: fold -> its label set.
    """
    found: dict[str, dict[str, Interval]] = {}
    for fold, own in labels.items():
        part = predictions[predictions["fold"] == fold]
        found |= learnt_vs_random.against_random(part, own, confidence=confidence, test_only=test_only)
    lines = {
        fold: {
            **{part: f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]" for part, d in parts.items()},
            "interval": interval_words(parts["clean"].method, parts["clean"].cleps),
        }
        for fold, parts in found.items()
    }
    return {LEARNT: lines} if lines else {}


def acoustics_facts(tables: "Sequence[pd.DataFrame]", never_heard: Collection[str]) -> dict[str, Table]:
    """Return the table of contexts and corruptions, means over seeds.

    A line per fold and contexts.

    Args:
        tables: of each fold, as the evaluation writes them; empty ones are passed over.
        never_heard: corruptions that no pretraining taught.
    """
    import pandas as pd

    tables = [table for table in tables if not table.empty]
    if not tables:
        return {}
    lines: Table = {}
    for (fold, row), own in pd.concat(tables).groupby(["fold", "row"], sort=False):
        found = {
            "share of audio's moves": f"{own.share.mean():.3f}",
            "random directions, 95 % below": f"{own.random_share.mean():.3f}, {own.random_high.mean():.3f}",
        }
        if "p" in own and own.p.notna().any():
            first = own.dropna(subset="p").iloc[0]
            found |= {
                "mean rank of the context that names it": f"{own.mean_rank.mean():.1f} of {first.contexts:.0f}",
                "p, names dealt at random (median over seeds)": f"{own.p.median():.4f}",
                "ranks (first seed)": ", ".join(
                    f"{name} {rank}{' (never taught)' * (name in never_heard)}"
                    for name, rank in json.loads(first.ranks).items()
                ),
            }
        lines[f"{fold}: {_contexts_of(str(row))}"] = found
    return {ACOUSTICS: lines}


def _contexts_of(row: str) -> str:
    """Return the name of the contexts that a row's line is about.

    Its own, or those in words as its CLEP reads them.
    """
    if row in AS_VECTORS:
        return ROWS[row].title.removeprefix("text classifier, ")
    if row == BEFORE:
        return "hand-written contexts, before CLEP"
    clep = ROWS[row].title.removeprefix("ACPT, ").removesuffix(", no contexts")
    return "hand-written contexts" + ("" if row == IN_WORDS else f", {clep}")


def model_facts(figures: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, Table]:
    """Return how much the backbone and every CLEP read of contexts.

    Means over folds and seeds.

    Args:
        figures: (model, figures of its stage); several of one model are averaged.
    """
    chosen = [
        (model, {name: own[name] for name in (*ALWAYS, *(name for name in TAUGHT if name in own))})
        for model, own in figures
    ]
    return _means(CONTEXTS, chosen)


def diagnostics_facts(figures: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, Table]:
    """Return the diagnostics of ACPT's contexts and of its rivals'.

    Means over folds and seeds.

    Args:
        figures: (contexts, figures of their stage).
    """
    return _means(DIAGNOSTICS, figures)


def _means(title: str, figures: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, Table]:
    found: dict[str, list[Mapping[str, float]]] = {}
    for name, own in figures:
        found.setdefault(name, []).append(own)
    rows = {
        name: {IN_WORDS_OF.get(own, own): f"{sum(each[own] for each in all_) / len(all_):.3f}" for own in all_[0]}
        for name, all_ in sorted(found.items())
    }
    return {title: rows} if rows else {}


def corpus_facts(
    card: "Card",
    figures: Mapping[str, Any],
    differences: Sequence[str],
    copies: int | None = None,
    evaluated: Collection[str] = EMOTIONS,
) -> dict[str, object]:
    """Return a corpus's line of the table of corpora.

    Args:
        figures: of its index.
        differences: from the whole corpus, in short.
        copies: utterances that its leave-out fold drops; None where the run has no such fold.
        evaluated: emotions that its label set has.
    """
    emotions = figures["emotions"]
    outside = {emotion: emotions[emotion] for emotion in EMOTIONS if emotion in emotions and emotion not in evaluated}
    if unnamed := figures["utterances"] - sum(emotions.values()):
        outside[NO_EMOTION] = unnamed
    part, altered = _part(card, figures), _altered(card, figures)
    if differences and not part and not altered:
        part = "; ".join(differences)
    return {
        "title": card.title,
        "utterances": figures["utterances"],
        "speakers": figures["speakers"],
        "hours": round(figures["seconds"] / 3600, 2),
        PART: part or WHOLE,
        ALTERED: altered or "no",
        UNUSABLE: figures["quarantined"],
        "noted": "; ".join(f"{count} {note}" for note, count in figures["notes"].items()) or "nothing",
        **({OUTSIDE: outside} if outside else {}),
        **({} if copies is None else {"excluded as copies of source audio": copies}),
        "licence": card.licence,
        "citation": card.citation,
    }


def _part(card: "Card", figures: Mapping[str, Any]) -> str:
    """Return how much of its corpus a copy holds; "" of a whole one."""
    found, expected = figures["found"], card.expected
    counted = (
        ("utterances", found["utterances"], expected.utterances),
        ("speakers", found["speakers"], expected.speakers),
        ("emotions", len(found["raw_labels"]), len(expected.emotions)),
    )
    return ", ".join(
        f"{got:,} of {wanted:,} {name}" if got < wanted else f"{got:,} {name}, not {wanted:,}"
        for name, got, wanted in counted
        if wanted and got != wanted and not card.acoustics
    )


def _altered(card: "Card", figures: Mapping[str, Any]) -> str:
    """Return how a copy's files were altered; "" where they were not."""
    listed, altered = figures["published"]["listed"], figures["published"]["altered"]
    rate, usual = figures["sample_rate"], card.expected.sample_rate
    found = [f"{altered:,} of {listed:,} files are not the published ones"] * bool(altered)
    found += [f"{rate:,} Hz, not {usual:,} Hz"] * bool(usual and rate != usual and not card.acoustics)
    return ", ".join(found + [f"{count:,} files {what}" for what, count in figures["alterations"].items()])
