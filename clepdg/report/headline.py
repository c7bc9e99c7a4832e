"""The report's headline: each row's mean over targets, beside the floor, in tables and in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from clepdg.config.conditions import CLEAN
from clepdg.config.rows import MAIN_ROW, ROWS
from clepdg.evaluation.credit import RIVALS
from clepdg.evaluation.marks import seed_marks
from clepdg.evaluation.targets import OverTargets, Target, average
from clepdg.report.tables import figure

FLOOR: Final = "log-mel"
RANDOM: Final = "text-random"  # contexts as ACPT starts: what ACPT's training adds is the difference to it
METHODS: Final = ("clep-zero-shot", MAIN_ROW)  # of which words say how they stand beside the floor
HEADER: Final = ("UAR", "[low, high]", "minus floor", "[low, high]", "these corpora alone", "targets")
RECORD: Final = (
    *("where", "row", "uar", "low", "high", "targets", "minus_floor", "low_minus_floor", "high_minus_floor"),
    *("low_these_corpora", "high_these_corpora", "minus_random", "low_minus_random", "high_minus_random"),
)
NOTE: Final = (
    "Targets have equal weight. [low, high]: {confidence:.0%}, over targets x speakers x CLEP seeds: would it hold on"
    " other corpora? These corpora alone: over speakers x CLEP seeds: would it hold for other speakers of the same"
    " corpora? One may include 0 and the other not: corpora that disagree widen the first, few speakers the second."
)

Differences = dict[tuple[str, str], tuple[float, float, float]]  # (row, another) -> difference and interval


@dataclass(frozen=True, kw_only=True)
class Headline:
    """Tables (title, lines below HEADER), and sentences.

    Attributes:
        records: every line of the tables, unrounded.
        comparisons: "left-out targets" or "supervised corpora" -> (row, another) -> their clean difference: the best
            row's to the next, and the main row's to its best rival.
    """

    note: str = ""
    tables: list[tuple[str, list[list[str]]]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    comparisons: dict[str, Differences] = field(default_factory=dict)

    def means(self, where: str, conditions: str = CLEAN) -> dict[str, dict[str, Any]]:
        """Return row -> record over "left-out targets" or "supervised corpora"."""
        return {line["row"]: line for line in self.records if line["where"].endswith(f"{where}, {conditions}")}


def headline(
    left_out: Sequence[Target], supervised: Sequence[Target], rows: Mapping[str, str], *, confidence: float
) -> Headline:
    """Compute the headline.

    Args:
        left_out: the targets of the leave-out folds.
        supervised: the test parts of the corpora of fold supervised.
        rows: row -> title, in the order of the tables.
        confidence: of the intervals.
    """
    marks = seed_marks({seed for target in (*left_out, *supervised) for seed in target.seeds})
    found = Headline(note=" ".join([NOTE.format(confidence=confidence), *(f"{_upper(mark)}." for mark in marks)]))
    named = ((left_out, "left-out target", "left-out targets"), (supervised, "supervised corpus", "supervised corpora"))
    for targets, one, several in named:
        for conditions, words in (([CLEAN], "clean"), (None, "corrupted (mean over families)")):
            said = f"{len(targets)} {one if len(targets) == 1 else several}, {words}"
            _add(found, targets, rows, conditions, said, confidence)
            if targets is left_out:
                found.sentences.extend(_best_rival(targets, rows, conditions, said, confidence))
        found.comparisons[several] = _comparisons(targets, rows, confidence)
    return found


def uses_target(row: str) -> bool:
    """Return whether a row uses a target's own labels or audio."""
    return row in ROWS and (ROWS[row].ceiling or ROWS[row].target_standardised)


def _comparisons(targets: Sequence[Target], rows: Mapping[str, str], confidence: float) -> Differences:
    """Return the clean differences that the verdict names, by their rows."""
    fair = [row for row in rows if not uses_target(row) and not any(each.on_test_part([row]) for each in targets)]
    means = {row: mean.value for row in fair if (mean := average(targets, row, [CLEAN])) is not None}
    first = sorted((row for row in means if not math.isnan(means[row])), key=lambda row: -means[row])[:2]
    differences = _to_rivals(targets, rows, [CLEAN])
    pairs = {(MAIN_ROW, row): difference for row, difference in [*differences.items()][:1]}
    if len(first) > 1 and (difference := average(targets, first[0], [CLEAN], minus=first[1])) is not None:
        pairs[first[0], first[1]] = difference
    return {pair: (found.value, *found.sample.interval(confidence)) for pair, found in pairs.items()}


def _to_rivals(
    targets: Sequence[Target], rows: Mapping[str, str], conditions: list[str] | None
) -> dict[str, OverTargets]:
    """Return the main row's differences to its rivals, the smallest first."""
    if MAIN_ROW not in rows:
        return {}
    found = {row: average(targets, MAIN_ROW, conditions, minus=row) for row in RIVALS if row in rows}
    return dict(
        sorted(
            ((row, difference) for row, difference in found.items() if difference is not None),
            key=lambda item: item[1].value,
        )
    )


def _add(
    found: Headline,
    targets: Sequence[Target],
    rows: Mapping[str, str],
    conditions: list[str] | None,
    where: str,
    confidence: float,
) -> None:
    """Add a table, where there are several targets, and its sentences."""
    means = {row: average(targets, row, conditions) for row in rows}
    above = {row: average(targets, row, conditions, minus=FLOOR) if row != FLOOR else None for row in rows}
    to_random = {row: average(targets, row, conditions, minus=RANDOM) if row != RANDOM else None for row in rows}
    lines = []
    for row, mean in means.items():
        if mean is not None and len(targets) > 1:
            difference = above[row]
            part = ", test parts" * any(target.on_test_part([row]) for target in targets)
            lines.append([rows[row], *_line(mean, difference, confidence), f"{mean.targets}{part}"])
            found.records.append({"where": where, "row": row, **_record(mean, difference, to_random[row], confidence)})
    if lines:
        found.tables.append((f"Mean over {where}", lines))
    for row in METHODS:
        ours, difference = means.get(row), above.get(row)
        if ours and difference:
            behind = [target.name for target in targets if _below(target, row, FLOOR, conditions)]
            said = f"{where}: {_verdict(rows[row], 'the floor', difference, confidence)}, {figure(ours.value)} against"
            said += f" {figure(ours.value - difference.value)}, {_difference(difference, confidence)}"
            found.sentences.append(said + (f"; the floor is ahead on {', '.join(behind)}." if behind else "."))


def _best_rival(
    targets: Sequence[Target], rows: Mapping[str, str], conditions: list[str] | None, where: str, confidence: float
) -> list[str]:
    """Return a sentence on the main row and the rival that it is least above."""
    differences = _to_rivals(targets, rows, conditions)
    if not differences:
        return []
    best = next(iter(differences))
    verdict = _verdict(rows[MAIN_ROW], f"its best rival ({rows[best]})", differences[best], confidence)
    return [f"{where}: {verdict}, {_difference(differences[best], confidence)}."]


def _verdict(ours: str, theirs: str, difference: OverTargets, confidence: float) -> str:
    """Return which of two is ahead, and whether beyond both intervals.

    Three targets that happen to agree have a narrow interval, which alone is no proof.
    """
    first, second = (ours, theirs) if difference.value >= 0 else (theirs, ours)
    if not difference.value:
        return f"{_upper(first)} ties with {second}"
    for mean, where in ((difference.sample, "over targets"), (difference.these, "on these corpora alone")):
        low, high = mean.interval(confidence)
        if low <= 0 <= high:
            return f"{_upper(first)} is ahead of {second}, but within the interval {where}"
    return f"{_upper(first)} beats {second}"


def _upper(words: str) -> str:
    return words[0].upper() + words[1:]


def _difference(difference: OverTargets, confidence: float) -> str:
    """Return a difference with those of its intervals that it has."""
    found = (
        (mean.interval(confidence), where)
        for mean, where in ((difference.sample, "over targets"), (difference.these, "on these corpora alone"))
    )
    shown = [f"{_interval(bounds, signed)} {where}" for bounds, where in found if not math.isnan(bounds[0])]
    return f"{signed(difference.value)} {', '.join(shown) or '(no interval)'}"


def _below(target: Target, row: str, other: str, conditions: list[str] | None) -> bool:
    mean = target.mean(row, target.conditions(row) if conditions is None else conditions, minus=other)
    return mean is not None and mean.value < 0


def signed(value: float | None) -> str:
    """Format a difference with its sign."""
    shown = figure(value)
    return shown if shown.startswith(("-", "–")) else f"+{shown}"


def _interval(bounds: tuple[float, float], show: Any) -> str:
    return f"[{show(bounds[0])}, {show(bounds[1])}]"


def _line(mean: OverTargets, difference: OverTargets | None, confidence: float) -> list[str]:
    own = [figure(mean.value), _interval(mean.sample.interval(confidence, low=0.0), figure)]
    if difference is None:
        return [*own, "", "", ""]
    bounds = [_interval(each.interval(confidence), signed) for each in (difference.sample, difference.these)]
    return [*own, signed(difference.value), *bounds]


def _record(
    mean: OverTargets, difference: OverTargets | None, to_random: OverTargets | None, confidence: float
) -> dict[str, Any]:
    low, high = mean.sample.interval(confidence, low=0.0)
    found: dict[str, Any] = {"uar": mean.value, "low": low, "high": high, "targets": mean.targets}
    if difference is not None:
        bounds = (*difference.sample.interval(confidence), *difference.these.interval(confidence))
        names = ("low_minus_floor", "high_minus_floor", "low_these_corpora", "high_these_corpora")
        found |= {"minus_floor": difference.value, **dict(zip(names, bounds, strict=True))}
    if to_random is not None:
        low, high = to_random.sample.interval(confidence)
        found |= {"minus_random": to_random.value, "low_minus_random": low, "high_minus_random": high}
    return found
