"""The report's figures on corruptions: the cells in all conditions, and a table by kind."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from clepdg.config.conditions import CLEAN, parse
from clepdg.config.folds import SUPERVISED
from clepdg.evaluation.cells import CORRUPTED
from clepdg.report.tables import figure, headline_cells

if TYPE_CHECKING:
    import pandas as pd


def corrupted(cells: "pd.DataFrame") -> "pd.DataFrame":
    """Return the headline cells in all conditions.

    With `curve`, `family` and `snr` (dB; NaN where there is none).
    """
    own = headline_cells(cells)
    found = [parse(name) for name in own["condition"]]
    return own.assign(
        curve=[condition.curve for condition in found],
        family=[condition.family for condition in found],
        snr=[condition.snr if condition.noise else float("nan") for condition in found],
        title=[
            fold if fold != SUPERVISED else f"{fold}: {target}"
            for fold, target in zip(own.fold, own.target, strict=True)
        ],
    )


def table(cells: "pd.DataFrame", rows: Mapping[str, str]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return (target, header, lines) for each headline target.

    UAR by kind of corruption, averaged over its SNRs; over families of several kinds; and over families.

    The interval is that of the mean over families, found as the clean cell's is.

    Args:
        cells: what `evaluate.cells` returns.
        rows: row -> title, in the order of the table.
    """
    found = []
    for title, own in corrupted(cells).groupby("title", sort=False):
        columns = list(_columns(own[own.condition != CLEAN]))
        if not columns:
            continue
        lines = []
        for row, name in rows.items():
            part = own[own["row"] == row]
            if part.empty:
                continue
            means = [float(part.uar[part[column] == name].mean()) for column, name in (("curve", CLEAN), *columns)]
            every, low, high = (float(part.loc[part.condition == CLEAN, column].iloc[0]) for column in CORRUPTED)
            lines.append([name, *map(figure, (*means, every)), f"[{figure(low)}, {figure(high)}]"])
        header = [CLEAN, *(name for _, name in columns), "mean over families", "[low, high]"]
        found.append((str(title), header, lines))
    return found


def _columns(own: "pd.DataFrame") -> Iterator[tuple[str, str]]:
    """Yield ("curve", name) of each kind of corruption, family by family.

    A family of several kinds follows them, as ("family", name).
    """
    for family in dict.fromkeys(own.family):
        curves = list(dict.fromkeys(own.curve[own.family == family]))
        yield from (("curve", curve) for curve in curves)
        if len(curves) > 1:
            yield "family", family
