"""Any corpus as a folder and a table: utterances.csv, one line per utterance, so that no code is needed.

Columns: path (relative to the folder), speaker, label; and where they are known split, gender (female, male), language
(ISO 639-1), text (id of what was spoken), transcript and session (what intervals are over, if wider than a speaker).
The card maps the labels to emotions; with unit = "official" the column split says train, validation or test.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from clepdg.corpora.grammar import Finding, Spoken, audio_files, nearest, read_rows, relative, with_strays

TABLE: Final = "utterances.csv"
REQUIRED: Final = ("path", "speaker", "label")


def utterances(root: Path) -> Iterator[Spoken | Finding]:
    """Yield the utterances and findings of a folder with a table, in the table's order.

    Raises:
        CorpusError: there is no table, or it lacks a column.
    """
    table, *_ = nearest(root, TABLE, needed_by="a corpus with a table")
    rows = read_rows(table, REQUIRED)
    folder = relative(root, table.parent)
    told = [_utterance(row, number, PurePosixPath(folder)) for number, row in enumerate(rows, start=2)]
    found = [(PurePosixPath(folder) / path).as_posix() for path in audio_files(table.parent)]
    yield from with_strays(told, found, table=f"{TABLE} does not name it")


def _utterance(row: dict[str, str], number: int, folder: PurePosixPath) -> Spoken | Finding:
    path = PurePosixPath(row["path"])
    empty = [name for name in REQUIRED if not row[name]]
    gender = row.get("gender", "").lower()
    if empty:
        return Finding(path=f"{TABLE} line {number}", reason=f"no {', '.join(empty)}")
    if path.is_absolute() or ".." in path.parts:
        return Finding(path=f"{TABLE} line {number}", reason=f"{path} leads out of the corpus's folder")
    if gender not in ("", "female", "male"):
        return Finding(path=(folder / path).as_posix(), reason=f"line {number}: {gender} is not female or male")
    name = re.sub(r"[^\w-]+", "_", path.with_suffix("").as_posix())
    return Spoken(
        path=(folder / path).as_posix(),
        name=name,
        speaker=row["speaker"],
        gender=gender or None,
        language=row.get("language") or None,
        raw_label=row["label"],
        text=row.get("text") or row.get("transcript") or name,
        transcript=row.get("transcript") or None,
        part=row.get("split") or None,
        cluster=row.get("session") or None,
    )
