"""Files beside the report's page: tables of figures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clepdg.report.headline import RECORD, Headline
from clepdg.report.tables import counts

if TYPE_CHECKING:
    import pandas as pd

FILES: Final = {
    "results.csv": "Every figure of every method, fold, target and condition, unrounded.",
    "headline.csv": "Means over targets, with differences to the floor and to random contexts, unrounded.",
    "results.md": "The tables as Markdown.",
}


def write_tables(folder: Path, cells: "pd.DataFrame", headline: Headline) -> None:
    """Write results.csv and headline.csv."""
    import pandas as pd

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
