"""The report's page: one HTML file without scripts or links to anything, its charts drawn into it as SVG."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.report import conditions
from clepdg.report.tables import FIGURES, Cell, Footnotes, Section, by_protocol, counts, figure, is_table, svg, text

if TYPE_CHECKING:
    import pandas as pd

MAIN_ROW = "text-acpt"  # set in bold, and its confusions are shown; the last row where a run has none
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0 1rem;font-size:13px}
td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #e3e3e3;font-variant-numeric:tabular-nums}
td:first-child,th:first-child,.facts td,.facts th{text-align:left;vertical-align:top}
.group th{text-align:left;background:#f3f5f8;padding-top:.5rem}
.main td{font-weight:600}.wide{overflow-x:auto}.side{display:flex;flex-wrap:wrap;gap:1.5rem}
caption{text-align:left;font-weight:600}.caption{font-size:17px}.notes{font-size:13px;color:#444}
small{color:#666}svg,img{max-width:100%;height:auto}
"""


def page(
    sections: Sequence[Section],
    speakers: "pd.DataFrame",
    facts: Mapping[str, Any],
    rows: Mapping[str, str],
    pictures: Mapping[str, Path],
    cells: "pd.DataFrame",
) -> str:
    """Return the whole page. `speakers` is what `evaluate.speaker_uars` returns; the rest as in `write_report`."""
    main = MAIN_ROW if MAIN_ROW in rows else list(rows)[-1]
    parts = [f"<h1>CLEP-DG results</h1><p class='caption'>{escape(text(facts.get('caption', '')))}</p>"]
    parts.append(f"<h2>What was run</h2>{_facts(facts)}")
    for title, own in by_protocol(sections):
        parts += [f"<h2>{escape(title)}</h2>", _results(own, rows, main), _chart(own, rows, main)]
    parts += _conditions(cells, rows, main)
    parts.append(
        f"<h2>Confusions of {escape(rows[main])}</h2><p>Rows are the truth: share of its utterances, and counts"
    )
    parts.append(f"summed over seeds.</p><div class='side'>{_confusions(sections, main)}</div>")
    if len(speakers):
        parts.append("<h2>Speaker by speaker</h2><p>UAR where speakers, or sessions, are too few for a test.</p>")
        parts.append(f"<div class='side'>{_speakers(speakers, rows)}</div>")
    parts += ["<h2>The corpora</h2>"] * bool(pictures)
    for corpus, picture in pictures.items():
        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f"<img alt='what the utterances of {escape(corpus)} are like' src='data:image/png;base64,{data}'>")
    head = f"<meta charset='utf-8'><title>CLEP-DG results</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{chr(10).join(parts)}</body></html>\n"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], caption: str = "", kind: str = "") -> str:
    """Return a table of plain texts, all of them escaped."""
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table class='{kind}'>{above}{_line(header, 'th')}{''.join(map(_line, lines))}</table>"


def _line(values: Sequence[str], tag: str = "td", kind: str = "") -> str:
    return f"<tr class='{kind}'>" + "".join(f"<{tag}>{escape(value)}</{tag}>" for value in values) + "</tr>\n"


def _facts(facts: Mapping[str, Any]) -> str:
    tables = {name: value for name, value in facts.items() if is_table(value)}
    lines = [(name, text(value)) for name, value in facts.items() if name != "caption" and name not in tables]
    parts = [_table(("", ""), lines, kind="facts")]
    for name, value in tables.items():
        columns = list(dict.fromkeys(column for item in value.values() for column in item))
        lists = [(key, *(text(item.get(column, "")) for column in columns)) for key, item in value.items()]
        parts.append(_table((name, *columns), lists, kind="facts"))
    return "".join(parts)


def _results(sections: Sequence[Section], rows: Mapping[str, str], main: str) -> str:
    notes = Footnotes.of(sections)
    lines = [_line(("row", *FIGURES, "notes"), "th")]
    for section in sections:
        lines.append(f"<tr class='group'><th colspan='{len(FIGURES) + 2}'>{escape(section.title)}</th></tr>")
        for cell in section.cells:
            values = (rows[cell["row"]], *(show(cell) for show in FIGURES.values()), notes.of_cell(cell))
            lines.append(_line(values, kind="main" if cell["row"] == main else ""))
    footnotes = "<br>".join(map(escape, notes.lines()))
    return f"<div class='wide'><table>{''.join(lines)}</table></div><p class='notes'>{footnotes}</p>"


def _confusions(sections: Sequence[Section], main: str) -> str:
    return "".join(
        _confusion(section.title, cell) for section in sections for cell in section.cells if cell["row"] == main
    )


def _confusion(title: str, cell: Cell) -> str:
    labels = list(cell["labels"])
    lines = [_line(("", *labels), "th")]
    for label, row in zip(labels, counts(cell["confusion"]), strict=True):
        shares = [count / max(sum(row), 1) for count in row]
        tinted = "".join(
            f"<td style='background:rgba(31,95,168,{share * 0.6:.2f})'>{figure(share)} <small>{count}</small></td>"
            for share, count in zip(shares, row, strict=True)
        )
        lines.append(f"<tr><td>{escape(label)}</td>{tinted}</tr>")
    return f"<table><caption>{escape(title)}</caption>{''.join(lines)}</table>"


def _conditions(cells: "pd.DataFrame", rows: Mapping[str, str], main: str) -> list[str]:
    """Return the part on corruptions, or nothing where only clean audio was heard."""
    tables = conditions.table(cells, rows)
    if not tables:
        return []
    parts = ["<h2>In noise, in rooms, over lines</h2><p>UAR of the test part; a noise's is the mean over its SNRs. "]
    parts[0] += "How intervals are found, chance and what weakens a figure stands beside the clean ones above.</p>"
    parts += [_table(("", *header), lines, caption=title) for title, header, lines in tables]
    return [*parts, conditions.picture(cells, rows, main)]


def _speakers(speakers: "pd.DataFrame", rows: Mapping[str, str]) -> str:
    parts = []
    for (fold, target, condition), own in speakers.groupby(["fold", "target", "condition"], sort=False):
        found = {(line["row"], line["speaker"]): line for line in own.to_dict("records")}
        names = sorted(own["speaker"].unique())
        sizes = {line["speaker"]: line["n"] for line in found.values()}
        lines = [
            (rows[row], *(figure(found[row, name]["uar"]) for name in names))
            for row in rows
            if (row, names[0]) in found
        ]
        title = f"{fold}: {target}, {condition}"
        parts.append(_table(("", *(f"{name} (n {sizes[name]})" for name in names)), lines, caption=title))
    return "".join(parts)


def _chart(sections: Sequence[Section], rows: Mapping[str, str], main: str) -> str:
    """Draw UAR with its interval, one panel per section, and return the SVG element."""
    import matplotlib
    from matplotlib.figure import Figure

    present = {cell["row"] for section in sections for cell in section.cells}
    order = [row for row in rows if row in present][::-1]  # the first row on top
    columns = min(3, len(sections))
    lines = -(-len(sections) // columns)
    settings = {"svg.hashsalt": "clep-dg", "font.size": 8, "font.family": ["DejaVu Sans"]}
    with matplotlib.rc_context(settings):
        chart = Figure(figsize=(11, (0.24 * len(order) + 0.7) * lines), layout="constrained")
        axes = chart.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
        for axis, section in zip(axes, sections, strict=False):
            _panel(axis, section, order, main)
        for axis in axes:
            axis.tick_params(labelbottom=True)
        for axis in axes[len(sections) :]:
            axis.set_visible(False)
        axes[0].set_yticks(range(len(order)), [_short(rows[row]) for row in order])
        chart.supxlabel("UAR")
        return svg(chart, "UAR with intervals, one panel per fold and target; the dashed line is chance")


def _panel(axis: Any, section: Section, order: Sequence[str], main: str) -> None:
    for cell in section.cells:
        place = order.index(cell["row"])
        axis.barh(place, cell["uar"], color="#1f5fa8" if cell["row"] == main else "#a9bdd6", height=0.7)
        axis.plot([cell["low"], cell["high"]], [place, place], color="#222", linewidth=1)
    axis.axvline(section.cells[0]["chance"], color="#b33", linewidth=0.8, linestyle="--")
    axis.set(xlim=(0, 1), title=_short(section.title))
    axis.spines[["top", "right"]].set_visible(False)


def _short(title: str) -> str:
    return title.replace("$", r"\$") if len(title) <= 40 else title[:39].replace("$", r"\$") + "…"
