"""Write a run's summary for a terminal of 80 columns: warnings, verdict, and one table of its main methods."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from clepdg.audio.corruptions import CLEAN
from clepdg.config.folds import LEAVE_OUT, SUPERVISED, order
from clepdg.config.rows import MAIN_ROW
from clepdg.corpora.cards import load_card
from clepdg.evaluation.cells import POOLED, rows_on_test_part
from clepdg.report.headline import FLOOR, Headline
from clepdg.report.tables import figure, text

if TYPE_CHECKING:
    import pandas as pd

WIDTH: Final = 80  # columns
LINES: Final = 19  # at most; `clep-dg run` has a few of its own, and ends with at most 30
SENTENCES: Final = 3  # of the verdict
MAIN_ROWS: Final = (
    FLOOR,
    "clep-zero-shot",
    "encoder-probe",
    "clep-probe",
    "text-none",
    "text-random",
    MAIN_ROW,
)
BEST: Final = "* "  # before the best method
WARNING: Final = "! "
FULL: Final = "--table full"  # of clep-dg run

Column = dict[str, tuple[float, float, float]]  # row -> UAR and its interval


def summary(
    cells: "pd.DataFrame", rows: Mapping[str, str], headline: Headline, facts: Mapping[str, Any], *, confidence: float
) -> str:
    """Return the summary, of at most LINES lines of at most WIDTH columns.

    Sentences that do not fit are left to the report.

    Args:
        cells: what `evaluate.cells` returns.
        rows: row -> title, in the order of the table.
        headline: means over targets.
        facts: what was run, as in `write_report`.
        confidence: of the intervals.
    """
    warned = [line for each in warnings(cells, facts) for line in textwrap.wrap(WARNING + each, WIDTH, max_lines=2)]
    table = list(_table(cells, rows, headline, confidence))
    verdict: list[str] = []
    where = headline.sentences[0].partition(": ")[0] if headline.sentences else ""
    for sentence in headline.sentences[:SENTENCES]:
        if not sentence.startswith(f"{where}: "):
            break  # of other targets
        said = textwrap.wrap(f"- {sentence.removeprefix(f'{where}: ')}", WIDTH, subsequent_indent="  ")
        lines = [*verdict, *said] if verdict else [f"{where}:", *said]
        if len(warned) + len(lines) + len(table) + 2 <= LINES:
            verdict = lines
    return "\n\n".join("\n".join(part) for part in (warned, verdict, table) if part) + "\n"


def warnings(cells: "pd.DataFrame", facts: Mapping[str, Any]) -> list[str]:
    """Return what changes how the figures are read, in a sentence each."""
    corpora: Mapping[str, Mapping[str, Any]] = facts.get("corpora", {})
    found = []
    if any(load_card(corpus).acoustics for corpus in corpora):
        found.append("Synthetic speech: the figures say nothing about real emotional speech.")
    partial = [corpus for corpus, own in corpora.items() if own["differs from the whole corpus"] != "no"]
    if partial:
        found.append(f"Not the whole corpora, or altered ones: {text(partial)}.")
    marks = sorted({mark for own in cells["marks"] for mark in own if mark.startswith("conditional on ")})
    found.extend(f"Intervals are {mark}: --set clep_seeds=0,1,2 trains three." for mark in marks)
    return found


def _table(cells: "pd.DataFrame", rows: Mapping[str, str], headline: Headline, confidence: float) -> Iterator[str]:
    """Yield the lines of the table: its header, main methods, and how many others there are."""
    clean = cells[cells["condition"] == CLEAN]
    columns = list(_columns(clean, headline))[:2]
    first = columns[0][1]
    transductive = rows_on_test_part(cells)
    fair = [row for row in rows if row in first and row not in transductive]
    best = max(fair, key=lambda row: first[row][0], default=None)
    present = [row for row in rows if any(row in column for _, column in columns)]
    shown = [row for row in present if row in MAIN_ROWS or row == best] or present[: len(MAIN_ROWS)]
    width = WIDTH - len(BEST) - 22 * len(columns)
    chance = {figure(value) for value in clean["chance"]}
    header = f"UAR [{confidence:.0%}]" + (f", chance {chance.pop()}" if len(chance) == 1 else "")
    yield header.ljust(WIDTH - 22 * len(columns)) + "".join(f"  {name:>20.20}" for name, _ in columns)
    for row in shown:
        title = textwrap.shorten(rows[row], width, placeholder="…")
        figures = "".join(f"  {_figures(column.get(row)):>20}" for _, column in columns)
        yield f"{BEST if row == best else ' ' * len(BEST)}{title:{width}}{figures}".rstrip()
    others = len(present) - len(shown)
    yield f"{BEST}best" + (f"; {others} more with {FULL}" if others else "")


def _columns(clean: "pd.DataFrame", headline: Headline) -> Iterator[tuple[str, Column]]:
    """Yield (title, column): left-out targets, supervised corpora, else a fold each."""
    folds = sorted(dict.fromkeys(map(str, clean["fold"])), key=order)
    left_out = [fold for fold in folds if fold.startswith(LEAVE_OUT)]
    supervised = [fold for fold in folds if fold == SUPERVISED]
    for kind, own, title in (
        ("left-out targets", left_out, "without "),
        ("supervised corpora", supervised, SUPERVISED),
    ):
        means = [line for line in headline.records if line["where"].endswith(f"{kind}, {CLEAN}")]
        if means:
            bounds = {line["row"]: (line["uar"], line["low"], line["high"]) for line in means}
            yield means[0]["where"].partition(",")[0], bounds
        elif own:
            yield title + own[0].removeprefix(LEAVE_OUT if own is left_out else SUPERVISED), _of_fold(clean, own[0])
    if not left_out and not supervised:
        yield from ((fold, _of_fold(clean, fold)) for fold in folds)


def _of_fold(clean: "pd.DataFrame", fold: str) -> Column:
    own = clean[clean["fold"] == fold]
    target = POOLED if POOLED in set(own["target"]) else own["target"].iloc[0]
    lines = own[own["target"] == target][["row", "uar", "low", "high"]].itertuples(index=False)
    return {str(row): (float(uar), float(low), float(high)) for row, uar, low, high in lines}


def _figures(found: tuple[float, float, float] | None) -> str:
    if found is None:
        return ""
    uar, low, high = found
    return f"{figure(uar)} [{figure(low)}, {figure(high)}]" if low == low else figure(uar)
