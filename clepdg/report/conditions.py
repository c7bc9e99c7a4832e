"""The report's part on corruptions: a table by kind, a chart by SNR."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clepdg.audio.corruptions import CLEAN, parse
from clepdg.config.folds import SUPERVISED
from clepdg.evaluation.cells import CORRUPTED
from clepdg.report.tables import figure, headline_cells, svg

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


def picture(cells: "pd.DataFrame", rows: Mapping[str, str], main: str) -> str:
    """Draw UAR against SNR as SVG, a line for each row.

    A panel for each headline target and noise.

    Returns:
        "" where no noise was heard at two SNRs or more.
    """
    import matplotlib
    from matplotlib.figure import Figure

    own = corrupted(cells)
    noisy = own[own.snr.notna()]
    counted = noisy.groupby("curve", sort=False).snr.nunique()
    curves, titles = [name for name, count in counted.items() if count > 1], list(noisy.title.unique())
    if not curves:
        return ""
    order = [row for row in rows if row in set(noisy["row"])]
    with matplotlib.rc_context({"svg.hashsalt": "clep-dg", "font.size": 8, "font.family": ["DejaVu Sans"]}):
        chart = Figure(figsize=(11, 1.9 * len(titles) + 0.2 * len(order)), layout="constrained")
        axes = chart.subplots(len(titles), len(curves), squeeze=False, sharex=True, sharey=True)
        for line, title in zip(axes, titles, strict=True):
            for axis, curve in zip(line, curves, strict=True):
                _panel(axis, own[own.title == title], str(curve), order, main)
                axis.set_title(f"{_text(title)}, {_text(str(curve))}")
        for axis in axes[-1]:
            axis.set_xlabel("SNR over active speech, dB")
        handles, _ = axes[0][0].get_legend_handles_labels()
        chart.legend(handles, [_text(rows[row]) for row in order], loc="outside lower center", ncols=3)
        chart.supylabel("UAR")
        return svg(chart, "UAR against SNR, one panel per target and noise, one line per method")


def _panel(axis: Any, own: "pd.DataFrame", curve: str, order: Sequence[str], main: str) -> None:
    snrs = sorted(own.snr[own.curve == curve].unique())
    for number, row in enumerate(order):
        part = own[own["row"] == row]
        values_at = part[part.curve == curve].set_index("snr").uar
        clean = part.uar[part.condition == CLEAN].mean()  # NaN, as all of it, where a target has no such row
        values = [*(values_at.get(snr, float("nan")) for snr in snrs), clean]
        style: dict[str, Any] = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":", "-.")[number // 10 % 4]}
        style |= {"linewidth": 2.6 if row == main else 0.8, "alpha": 1.0 if row == main else 0.7}
        axis.plot(range(len(values)), values, marker=".", markersize=3, label=row, **style)
    axis.axhline(own.chance.iloc[0], color="#b33", linewidth=0.8, linestyle="--")
    axis.set_xticks(range(len(snrs) + 1), [*(f"{snr:.0f}" for snr in snrs), CLEAN])
    axis.set(ylim=(0, 1))
    axis.spines[["top", "right"]].set_visible(False)


def _text(title: str) -> str:
    return title.replace("$", r"\$")
