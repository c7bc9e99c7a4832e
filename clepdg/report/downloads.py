"""Files beside the report's page: tables of figures. The page itself carries the small ones."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clepdg.report.grid import Column, best, shown_columns
from clepdg.report.headline import RECORD, Headline
from clepdg.report.latex import latex
from clepdg.report.tables import counts

if TYPE_CHECKING:
    import pandas as pd

FILES: Final = {
    "results.csv": "Every figure of every method, fold, target and condition, unrounded.",
    "headline.csv": "Means over targets, with differences to the floor and to random contexts, unrounded.",
    "results.tex": "Methods by targets with intervals, as a LaTeX table (needs booktabs).",
    "results.md": "The tables as Markdown.",
    "predictions.parquet": "Every prediction, with the probability of each label.",
}

KINDS: Final = {".csv": "text/csv", ".tex": "text/plain", ".md": "text/markdown"}  # of files that a page may carry
LARGEST: Final = 500_000  # bytes of such a file


def embed(html: str, folder: Path) -> str:
    """Return a page whose links to small tables carry them.

    So that a copy of the page alone, such as one that was sent by mail, still has them.

    Args:
        html: the page.
        folder: has the files that it links to.
    """
    for name in FILES:
        path = folder / name
        if path.suffix in KINDS and path.stat().st_size <= LARGEST:
            content = base64.b64encode(path.read_bytes()).decode()
            carried = f'href="data:{KINDS[path.suffix]};base64,{content}" download="{name}"'
            html = html.replace(f'href="{name}" download', carried)
    return html


def write_tables(
    folder: Path,
    cells: "pd.DataFrame",
    predictions: "pd.DataFrame",
    methods: Sequence[Column],
    rows: Mapping[str, str],
    headline: Headline,
) -> None:
    """Write results.csv, headline.csv, results.tex and predictions.parquet.

    Args:
        cells: what `evaluate.cells` returns.
        predictions: what the cells were computed from.
        methods: methods x targets.
        rows: row -> title, in the order of the tables.
        headline: means over targets.
    """
    import pandas as pd

    shown = shown_columns(methods)
    winners = [best(column, cells) for column in shown]
    (folder / "results.tex").write_text(latex(shown, rows, winners, headline.note), encoding="utf-8")
    texts = [name for name, kind in predictions.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    sorted_texts = predictions.astype(dict.fromkeys(texts, "string")).astype(dict.fromkeys(texts, "category"))
    sorted_texts.to_parquet(folder / "predictions.parquet", index=False)

    pd.DataFrame(headline.records, columns=RECORD).to_csv(folder / "headline.csv", index=False, lineterminator="\n")
    flat = cells.assign(
        labels=cells["labels"].map(" ".join),
        marks=cells["marks"].map("; ".join),
        recalls=cells["recalls"].map(lambda recalls: json.dumps(_present(recalls))),
        confusion=cells["confusion"].map(lambda confusion: json.dumps(counts(confusion))),
    )
    flat.to_csv(folder / "results.csv", index=False, lineterminator="\n")


def _present(recalls: Mapping[str, float | None]) -> dict[str, float]:
    return {label: recall for label, recall in recalls.items() if recall is not None}
