"""Read, write and digest the tables of an index."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.hashing import digest_lines, inside
from clepdg.store.readers import read_table, unreadable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

UTTERANCES: Final = "utterances.parquet"
QUARANTINE: Final = "quarantine.parquet"
COLUMNS: Final = {  # of an utterance's row
    "utterance_id": "string",  # ravdess/03-01-05-01-02-01-12
    "corpus": "string",
    "speaker": "string",  # ravdess/12
    "gender": "string",  # female, male or null
    "language": "string",  # ISO 639-1
    "raw_label": "string",
    "emotion": "string",  # canonical; null where the raw label has none
    "split": "string",
    "cluster": "string",  # what is independent of the rest: the speaker, or a session
    "path": "string",  # relative to the corpus's root
    "sample_rate": "int64",  # Hz
    "num_samples": "int64",
    "rms_db": "float64",  # of the mono mix, full scale = 0
    "sha256": "string",  # of the file
    "text": "string",  # id of the spoken text
    "transcript": "string",  # null where unknown
    "notes": "list",
}
LEARNING: Final = ("utterance_id", "emotion", "split", "speaker", "gender", "transcript")  # read by training
QUARANTINE_COLUMNS: Final = {"path": "string", "utterance_id": "string", "reason": "string"}
Row = dict[str, Any]


def digests(utterances: "pd.DataFrame", quarantine: "pd.DataFrame") -> dict[str, str]:
    """Return the content digests of an index.

    "content" is over all rows. "audio" is what shards depend on, so an edited label map does not encode audio again.
    "learning" is what training depends on: train and validation rows only, so its key holds no test labels.
    """
    rows = utterances.to_dict("records")
    learning = [row for row in rows if row["split"] != "test"]
    return {
        "content": digest_lines([*rows, *quarantine.to_dict("records")]),
        "audio": digest_lines(_pick(rows, "utterance_id", "sha256", "split", "raw_label")),
        "learning": digest_lines(_pick(learning, *LEARNING)),
    }


def _pick(rows: Iterable[Mapping[Any, Any]], *names: str) -> list[list[Any]]:
    return [[row[name] for name in names] for row in rows]


def write_index(folder: Path, utterances: "pd.DataFrame", quarantine: "pd.DataFrame") -> None:
    """Write utterances.parquet and quarantine.parquet.

    Equal rows give equal bytes.
    """
    import pyarrow.parquet

    for name, frame, columns in ((UTTERANCES, utterances, COLUMNS), (QUARANTINE, quarantine, QUARANTINE_COLUMNS)):
        pyarrow.parquet.write_table(_table(frame, columns), folder / name)


def read_utterances(folder: Path) -> "pd.DataFrame":
    """Read the utterances (`COLUMNS`) of an index; null is None.

    Raises:
        StoreError: the table is damaged, or a path leads out of the corpus.
    """
    table = _read(folder / UTTERANCES, COLUMNS)
    for path in table.path:
        if path is None or not inside(path):
            raise unreadable(f"path {path!r}", folder / UTTERANCES)
    return table


def read_quarantine(folder: Path) -> "pd.DataFrame":
    """Read the quarantine of an index: path, utterance_id or None, reason."""
    return _read(folder / QUARANTINE, QUARANTINE_COLUMNS)


def _read(path: Path, columns: Mapping[str, str]) -> "pd.DataFrame":
    found = read_table(path, columns)
    return _frame({name: found[name].to_pylist() for name in columns}, columns)


def _table(frame: "pd.DataFrame", columns: Mapping[str, str]) -> "pa.Table":
    import pyarrow

    types = {
        "string": pyarrow.string(),
        "int64": pyarrow.int64(),
        "float64": pyarrow.float64(),
        "list": pyarrow.list_(pyarrow.string()),
    }
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    return pyarrow.Table.from_pydict({name: frame[name].tolist() for name in columns}, schema=schema)


def build_frame(rows: list[Row], columns: Mapping[str, str]) -> "pd.DataFrame":
    """Return rows as a data frame.

    Strings have dtype object, since pandas' string type turns None into NaN.
    """
    return _frame({name: [row[name] for row in rows] for name in columns}, columns)


def _frame(values: Mapping[str, list[Any]], columns: Mapping[str, str]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(
        {
            name: pd.Series(values[name], dtype=kind if kind in ("int64", "float64") else "object")
            for name, kind in columns.items()
        }
    )
