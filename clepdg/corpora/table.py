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
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from clepdg.corpora.parsing import (
    LONGEST_NAME,
    Finding,
    Utterance,
    add_unlisted,
    audio_files,
    find_nearest,
    fold,
    read_rows,
    relative,
)
from clepdg.text_files import Row

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
    for row in rows:
        row["path"] = PureWindowsPath(row["path"]).as_posix() if row["path"] else ""
    files = _files({row["path"] for row in rows}, found)
    names = _names({files.get(row["path"], row["path"]) for row in rows})
    cases = {fold(path): path for path in found}
    listed = list[Utterance | Finding]()
    for row in rows:
        alike = cases.get(fold(row["path"]))
        if row["path"] not in files and alike:  # one of several, or another line's
            reason = f"{TABLE} line {row.line}: there is no such file; {alike} differs in upper and lower case"
            listed.append(Finding(path=(folder / row["path"]).as_posix(), reason=reason))
        else:
            row["path"] = files.get(row["path"], row["path"])
            listed.append(_utterance(row, folder, names))
    yield from add_unlisted(listed, [(folder / path).as_posix() for path in found], table=f"{TABLE} does not name it")


def _files(named: Collection[str], found: Iterable[str]) -> dict[str, str]:
    """Return {path in the table: path of its file}.

    A path that no file has stands for the one file that differs in Unicode form, or else in upper and lower case, and
    that no other path of the table names.
    """
    free = set(found)
    files: dict[str, str] = {}
    for spelling in (str, _composed, fold):
        alike: dict[str, list[str]] = {}
        for path in free:
            alike.setdefault(spelling(path), []).append(path)
        new = {path: alike.get(spelling(path), []) for path in named if path not in files}
        files |= {path: own[0] for path, own in new.items() if len(own) == 1}
        free -= {*files.values()}
    return files


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


def _utterance(row: Row, folder: PurePosixPath, names: Mapping[str, str]) -> Utterance | Finding:
    path = PurePosixPath(row["path"])
    empty = [name for name in REQUIRED if not row[name]]
    gender = row.get("gender", "").lower()
    line = f"{TABLE} line {row.line}"
    if not row["path"]:
        return Finding(path=line, reason=f"no {', '.join(empty)}")
    if path.is_absolute() or PureWindowsPath(row["path"]).is_absolute() or ".." in path.parts:
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
