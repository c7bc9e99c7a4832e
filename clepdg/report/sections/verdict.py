"""The report's first section: warnings, the verdict in three sentences, and its picture."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.folds import LEAVE_OUT
from clepdg.config.rows import MAIN_ROW
from clepdg.emotions import EMOTIONS
from clepdg.evaluation.credit import RIVALS
from clepdg.report.facts import CREDIT, NO_EMOTION, OUTSIDE
from clepdg.report.grid import Column, ranked
from clepdg.report.headline import FLOOR, RANDOM, signed
from clepdg.report.section import Section, render
from clepdg.report.sections.limits import warnings
from clepdg.report.sections.picture import bounds, picture
from clepdg.report.tables import figure

if TYPE_CHECKING:
    import pandas as pd

SAID_BEFORE: Final = (
    "Real speech",
    "Synthetic speech",
    "Backbone micro is a random model",
)  # how sentences of a caption begin that warnings leave no need of


def verdict(
    grid: Sequence[Column], cells: "pd.DataFrame", rows: Mapping[str, str], facts: Mapping[str, Any]
) -> Section:
    """Return the section.

    Args:
        grid: methods x targets.
        cells: what `evaluate.cells` returns.
        rows: row -> title, in the order of the tables.
        facts: what was run, as in `write_report`.
    """
    chart = picture(grid, rows, ranked(grid[0], cells))
    warned = warnings(cells, facts)
    return Section(
        id="verdict",
        title="Verdict",
        html=render(
            "verdict",
            warnings=[*warned, *(each for each in _limits(str(facts.get("caption", ""))) if each not in warned)],
            sentences=list(sentences(grid, cells, rows, facts)),
            trained=trained(grid, facts),
            picture=chart,
        ),
        charts=[chart] if chart else [],
    )


def _limits(caption: str) -> list[str]:
    """Return the sentences of a caption, but those that warnings say."""
    found = [each.strip().rstrip(".") + "." for each in caption.split(". ") if each.strip()]
    return [each for each in found if not each.startswith(SAID_BEFORE)]


def joined(names: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1] if names else "") if part)


def trained(grid: Sequence[Column], facts: Mapping[str, Any]) -> str:
    """Return what was trained on what, and what was evaluated."""
    of: Mapping[str, Mapping[str, Any]] = facts.get("corpora", {})
    left_out = [column for column in grid if column.kind == LEAVE_OUT and column.targets == 1]
    names = [_evaluated(column, of.get(column.name, {})) for column in left_out]
    others = [name for name in of if name not in {column.name for column in left_out}]
    found = []
    if len(left_out) == 1:
        whole = "" if "(" in names[0] else " whole"
        of_others = f"training parts of {joined(others) or 'the other corpora'}"
        found.append(f"{names[0]} is evaluated{whole}, after training on {of_others} alone")
    elif left_out:
        whole = "" if any("(" in name for name in names) else " whole"
        other = "corpus" if len(of) == 2 else "corpora"
        found.append(
            f"{joined(names)}: each is evaluated{whole}, after training on training parts of the other {other} alone"
        )
    if any(column.kind != LEAVE_OUT for column in grid):
        every = "test parts, after training on the training parts of all corpora"
        found.append(f"Supervised: {every if len(of) > 1 else 'the test part, after training on the training part'}")
    if outside := _outside(of.values()):
        found.append(f"Not evaluated, as outside the label set: {outside}")
    return ". ".join(found) + "." * bool(found)


def _evaluated(column: Column, own: Mapping[str, Any]) -> str:
    """Return a target's name, and its share that is evaluated, if not all."""
    every = int(own.get("utterances", 0))
    part = f" ({column.utterances:,} of {every:,} utterances)" if 0 < column.utterances < every else ""
    return f"{column.name}{part}"


def _outside(corpora: Iterable[Mapping[str, Any]]) -> str:
    """Return the utterances that no label stands for, in words."""
    found = {emotion for own in corpora for emotion in own.get(OUTSIDE, {})}
    named = joined([emotion for emotion in EMOTIONS if emotion in found])
    without = ["utterances without an emotion"] if NO_EMOTION in found else []
    return joined([f"{named} utterances"] * bool(named) + without)


def sentences(
    grid: Sequence[Column], cells: "pd.DataFrame", rows: Mapping[str, str], facts: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the verdict: the best method, what it is ahead of, ACPT."""
    lead = grid[0]
    row, following = [*ranked(lead, cells), None, None][:2]
    if row is None:
        return
    beside = next((column for column in grid if column.kind != lead.kind and row in column.values), None)
    aside = [] if math.isnan(lead.chance) else [_chance(lead.chance, lead.values[row].uar[1])]
    known = beside is not None and lead.kind == LEAVE_OUT and not math.isnan(beside.values[row].uar[0])
    aside += [f"supervised {figure(beside.values[row].uar[0])}"] if beside and known else []
    ahead = any(own.uar[0] > lead.values[row].uar[0] for own in lead.values.values())
    best = "the best method without the target's own data" if ahead else "the best method"
    mean = "mean UAR" if lead.targets > 1 else "UAR"
    said = f"{_where(lead)}, {best} is “{rows[row]}”: {mean} {bounds(lead.values[row].uar)}"
    said += f" ({'; '.join(aside)})" if aside else ""
    yield f"{said}."
    compare = _Comparer(lead)
    beaten = [f"it {compare(row, following, 'the next', rows[following])}"] if following else []
    beaten += (
        [f"it {compare(row, FLOOR, 'the floor')}"] if FLOOR in lead.values and FLOOR not in (row, following) else []
    )
    if beaten:
        yield f"I{'; '.join(beaten)[1:]}."
    if MAIN_ROW in lead.values:
        yield from _acpt(lead, rows, compare, str(facts.get(CREDIT, "")).partition(":")[0])


def _chance(chance: float, low: float) -> str:
    """Return chance, and how the interval's lower end stands to it."""
    if math.isnan(low):
        return f"chance {figure(chance)}"
    return f"above chance, {figure(chance)}" if low > chance else f"chance {figure(chance)}, in the interval"


class _Comparer:
    """Put differences in words, their caveat once."""

    def __init__(self, column: Column) -> None:
        self.column, self.warned = column, False

    def __call__(self, row: str, other: str, name: str, title: str = "") -> str:
        """Return how a row stands against another, beginning with a verb."""
        value, low, high = self.column.difference(row, other)
        level = not abs(round(value, 3))
        verb = "is level with" if level else "is ahead of" if value > 0 else "is behind"
        said = f"{verb} {name} ({f'“{title}”, ' * bool(title)}{figure(self.column.values[other].uar[0])})"
        said += "" if level and math.isnan(low) else f": {signed(value)}"
        caveat = ""
        if math.isnan(low):
            caveat = "; a single target says nothing about other corpora" * (self.column.targets == 1)
        else:
            said += f" [{signed(low)},\u00a0{signed(high)}]"
            if low <= 0 <= high:
                said += ", which includes 0"
                caveat = ": other corpora may turn it round"
        if caveat and not self.warned:
            self.warned, said = True, said + caveat
        return said


def _acpt(lead: Column, rows: Mapping[str, str], compare: _Comparer, credit: str) -> Iterator[str]:
    """Yield the sentence on ACPT: its best rival, random contexts, the rule."""
    rivals = [row for row in RIVALS if row in lead.values]
    if not rivals:
        return
    rival = min(rivals, key=lambda row: ((MAIN_ROW, row) not in lead.comparisons, lead.difference(MAIN_ROW, row)[0]))
    name = rows[rival].removeprefix("text classifier, ")
    ours = f"The classifier with ACPT ({figure(lead.values[MAIN_ROW].uar[0])})"
    said = f"{ours} {compare(MAIN_ROW, rival, 'its best rival', name)}"
    if rival != RANDOM and RANDOM in lead.values:
        value, low, high = lead.difference(MAIN_ROW, RANDOM)
        interval = "" if math.isnan(low) else f" [{signed(low)},\u00a0{signed(high)}]"
        said += f"; against random contexts ({figure(lead.values[RANDOM].uar[0])}): {signed(value)}{interval}"
    yield said + (f"; the credit rule says: {credit}." if credit else ".")


def _where(column: Column) -> str:
    if column.kind == LEAVE_OUT:
        return f"On {column.targets} left-out corpora" if column.targets > 1 else f"On {column.title}"
    return f"On {column.title.replace('mean over ', '')}"
