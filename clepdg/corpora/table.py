"""Parse any corpus that has a table: utterances.csv, a line per utterance.

Such a corpus needs no code of its own. Columns: path (relative to the folder), speaker, label; and where they are known
split, gender (female, male), language (ISO 639-1), text (id of what was spoken), transcript and session (the unit of
the bootstrap, if wider than a speaker). The card maps the labels to emotions; with unit = "official" the column split
says train, validation or test.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from clepdg.corpora.parsing import (
    LONGEST_NAME,
    Finding,
    Utterance,
    add_unlisted,
    audio_files,
    find_nearest,
    read_rows,
    relative,
)

TABLE: Final = "utterances.csv"
REQUIRED: Final = ("path", "speaker", "label")


def utterances(root: Path) -> Iterator[Utterance | Finding]:
    """Yield the utterances and findings of a table, in its order.

    Raises:
        CorpusError: there is no table, or it lacks a column.
    """
    table, *_ = find_nearest(root, TABLE, needed_by="a corpus with a table")
    rows = read_rows(table, REQUIRED)
    folder = PurePosixPath(relative(root, table.parent))
    found = audio_files(table.parent)
    spellings = {_composed(path): path for path in found} | {path: path for path in found}
    for row in rows:
        path = PurePosixPath(row["path"]).as_posix() if row["path"] else ""
        row["path"] = spellings.get(path) or spellings.get(_composed(path), path)
    names = _names({row["path"] for row in rows})
    listed = [_utterance(row, number, folder, names) for number, row in enumerate(rows, start=2)]
    yield from add_unlisted(listed, [(folder / path).as_posix() for path in found], table=f"{TABLE} does not name it")


def _composed(path: str) -> str:
    """Return a path in Unicode NFC; some systems store names in NFD."""
    return unicodedata.normalize("NFC", path)


def _names(paths: Iterable[str]) -> dict[str, str]:
    """Return {path: name}.

    A name that is not unique, or too long, ends in a hash of its path.
    """
    plain = {path: _plain_name(path) for path in paths}
    counts = Counter(plain.values())
    return {
        path: _hashed(path, name) if counts[name] > 1 or len(name.encode()) > LONGEST_NAME else name
        for path, name in plain.items()
    }


def _plain_name(path: str) -> str:
    stem = PurePosixPath(path).parent / PurePosixPath(path).stem
    return re.sub(r"[^\w-]+", "_", _composed(stem.as_posix()))


def _hashed(path: str, name: str) -> str:
    tail = "_" + hashlib.sha256(path.encode()).hexdigest()[:8]
    return name.encode()[: LONGEST_NAME - len(tail)].decode(errors="ignore") + tail


def _utterance(
    row: dict[str, str], number: int, folder: PurePosixPath, names: Mapping[str, str]
) -> Utterance | Finding:
    path = PurePosixPath(row["path"])
    empty = [name for name in REQUIRED if not row[name]]
    gender = row.get("gender", "").lower()
    line = f"{TABLE} line {number}"
    if not row["path"]:
        return Finding(path=line, reason=f"no {', '.join(empty)}")
    if path.is_absolute() or ".." in path.parts:
        return Finding(path=line, reason=f"{path} leads out of the corpus's folder")
    if empty:
        return Finding(path=(folder / path).as_posix(), reason=f"{line}: no {', '.join(empty)}")
    if gender not in ("", "female", "male"):
        return Finding(path=(folder / path).as_posix(), reason=f"{line}: {gender} is not female or male")
    name = names[row["path"]]
    return Utterance(
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
