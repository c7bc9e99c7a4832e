"""Write methods x targets as a LaTeX table."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from clepdg.config.folds import LEAVE_OUT, SUPERVISED
from clepdg.report.grid import Bounds, Column
from clepdg.report.tables import figure

ESCAPED: Final = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "–": "--", "−": "$-$", "…": r"\dots{}"},
}
HEADS: Final = {LEAVE_OUT: "left out", SUPERVISED: "supervised"}


def latex(grid: Sequence[Column], rows: Mapping[str, str], best: Sequence[str | None], note: str) -> str:
    """Return a tabular environment, which needs the package booktabs.

    Each figure has its interval below it; the best of a column is bold.

    Args:
        grid: methods x targets.
        rows: row -> title, in the order of the table.
        best: the best row of each column.
        note: what the intervals are.
    """
    spans: list[tuple[str, int]] = []
    for column in grid:
        head = HEADS.get(column.kind, "pairs")
        before, span = spans[-1] if spans else ("", 0)
        spans[len(spans) - (before == head) :] = [(head, span + 1 if before == head else 1)]
    heads = " & ".join(rf"\multicolumn{{{span}}}{{c}}{{{head}}}" for head, span in spans)
    names = [f"mean of {column.targets}" if column.targets > 1 else column.name for column in grid]
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{l{'r' * len(grid)}}}",
        r"\toprule",
        rf" & {heads} \\",
        rf"method & {' & '.join(map(escape, names))} \\",
        r"\midrule",
    ]
    for row, title in rows.items():
        values = [column.values.get(row) for column in grid]
        if any(values):
            own = [_value(value.uar, row == top) if value else "" for value, top in zip(values, best, strict=True)]
            under = [_interval(value.uar) if value else "" for value in values]
            lines += [rf"{escape(title)} & {' & '.join(own)} \\", rf" & {' & '.join(under)} \\"]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {line}" for line in note.splitlines())]) + "\n"


def escape(text: str) -> str:
    """Return a text so that LaTeX shows it as it is."""
    return "".join(ESCAPED.get(letter, letter) for letter in text)


def _value(uar: Bounds, best: bool) -> str:
    shown = escape(figure(uar[0]))
    return rf"\textbf{{{shown}}}" if best else shown


def _interval(uar: Bounds) -> str:
    _, low, high = uar
    return "" if math.isnan(low) else rf"{{\scriptsize[{figure(low)}, {figure(high)}]}}"
