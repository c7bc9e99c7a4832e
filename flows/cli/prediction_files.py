"""Files of predictions that a later `clep-dg predict` continues: JSON Lines, CSV and Parquet.

Rows are appended to JSON Lines, batch by batch. Those of FILE.csv and FILE.parquet wait in FILE.csv.jsonl and
FILE.parquet.jsonl, and become the file when all are done.
"""

import csv
import errno
import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

from clepdg.errors import ConfigError
from clepdg_tasks.host import preflight

TEXTS: Final = ("path", "segments", "segment", "emotion", "error", "model")  # the other columns are numbers
MOST_ROWS: Final = 10_000  # of a table in memory
Row = dict[str, Any]


class Predictions:
    """A file of predictions, open to be continued.

    Attributes:
        done: the paths whose rows are all there.
    """

    def __init__(self, path: Path, columns: Sequence[str], same: Mapping[str, str]) -> None:
        """Open or create a file.

        Errors are dropped, to be tried again, and so is what a killed command left half.

        Args:
            path: ends in one of SUFFIXES.
            columns: of every row: path, segment and error are among them.
            same: column -> the value that every row must have, such as the model's.

        Raises:
            ConfigError: it is no such file, is of another model, or is being written.
        """
        self.path, self.columns, self.same = path, tuple(columns), dict(same)
        self.place = path if path.suffix == ".jsonl" else path.with_name(f"{path.name}.jsonl")
        if path.exists() and not self.place.exists():
            self._replace(map(self._checked, READ[path.suffix](path, self._other)))
        self.file = self._open()
        counts, pieces, rows = Counter[str](), dict[str, int](), 0
        for row in self._rows():
            rows += 1
            if not row.get("error"):
                counts[row["path"]] += 1
                pieces[row["path"]] = int(str(row.get("segment", "1/1")).partition("/")[2])
        self.done = {name for name, count in counts.items() if count == pieces[name]}
        if sum(counts[name] for name in self.done) < rows or not self._ends_whole():
            self._replace(row for row in self._rows() if row["path"] in self.done and not row.get("error"))
            self.file.close()
            self.file = self._open()

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows; they are in the file when this returns."""
        self.file.write("".join(map(self._line, rows)))
        self.file.flush()

    def rows(self, path: str) -> list[Row]:
        """Return the rows of one audio file."""
        return [row for row in self._rows() if row["path"] == path]

    def complete(self) -> None:
        """Write the CSV or Parquet file, all or nothing; every audio file is done."""
        if self.place != self.path:
            aside = self.path.with_name(f".{self.path.name}.tmp")
            WRITE[self.path.suffix](aside, self._rows(), self.columns)
            aside.replace(self.path)
            self.place.unlink()

    def close(self) -> None:
        """Close the file, for another command."""
        self.file.close()

    def _open(self) -> IO[str]:
        file = self.place.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise ConfigError("Another clep-dg predict writes this file.", where=self.path) from error
        except OSError:  # a file system without locks
            pass
        return file

    def _replace(self, rows: Iterable[Row]) -> None:
        """Replace the rows, all or nothing."""
        aside = self.place.with_name(f".{self.place.name}.tmp")
        try:
            with aside.open("w", encoding="utf-8") as file:
                file.writelines(map(self._line, rows))
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.place)
        finally:
            aside.unlink(missing_ok=True)

    def _line(self, row: Row) -> str:
        return json.dumps({name: row[name] for name in self.columns if row.get(name) not in (None, "")}) + "\n"

    def _ends_whole(self) -> bool:
        with self.place.open("rb") as file:
            return file.seek(0, os.SEEK_END) == 0 or (file.seek(-1, os.SEEK_END), file.read(1))[1] == b"\n"

    def _rows(self) -> Iterator[Row]:
        """Yield the rows, without a last one that a killed command left half.

        Raises:
            ConfigError: a row is none of this command.
        """
        with self.place.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith("\n"):
                    return
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise self._other(f"line {number}: {line.strip()[:200]}") from error
                yield self._checked(row)

    def _checked(self, row: Any) -> Row:
        """Return a row of this command's columns and model, or raise."""
        if not isinstance(row, dict) or not isinstance(row.get("path"), str) or not {*row} <= {*self.columns}:
            raise self._other([*row] if isinstance(row, dict) else str(row)[:200])
        for name, value in self.same.items():
            if row.get(name) != value:
                raise self._other(f"{name} {row.get(name) or 'none'}", f"{name} {value}")
        return row

    def _other(self, got: Any, expected: Any = None) -> ConfigError:
        do = "give --out another name, or remove the file"
        what = "This file holds something else, and can't be continued."
        return ConfigError(what, got=got, expected=expected or self.columns, where=self.path, do=do)


def unwritable(path: Path) -> OSError | None:
    """Return why a file can't be written in its folder, or None if it can."""
    if path.is_dir():
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not os.access(path, os.W_OK):
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return preflight.unwritable(path.absolute().parent)


def _read_csv(path: Path, other: Callable[[Any], ConfigError]) -> Iterator[Row]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        table = csv.DictReader(file)
        try:
            if not {"path", "error", "model"} <= {*(table.fieldnames or ())}:
                raise other(table.fieldnames or "no columns")
            for row in table:
                yield {name: text if name in TEXTS else float(text) for name, text in row.items() if text}
        except (csv.Error, ValueError, TypeError, AttributeError) as error:
            raise other(f"line {table.line_num}: {error}") from error


def _write_csv(path: Path, rows: Iterator[Row], columns: Sequence[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows({**row, "path": _unicode(row["path"])} for row in rows)


def _read_parquet(path: Path, other: Callable[[Any], ConfigError]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise other(" ".join(str(error).split())[:200]) from error
    for batch in table.iter_batches(MOST_ROWS):
        yield from batch.to_pylist()


def _write_parquet(path: Path, rows: Iterator[Row], columns: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string() if name in TEXTS else pa.float64()) for name in columns])
    with pq.ParquetWriter(path, schema) as writer:
        while part := [{**row, "path": _unicode(row["path"])} for row in islice(rows, MOST_ROWS)]:
            writer.write_table(pa.Table.from_pylist(part, schema))


def _unicode(name: str) -> str:
    """Return a path as valid Unicode, which not every file name is."""
    return name.encode(errors="replace").decode()


READ = {".csv": _read_csv, ".parquet": _read_parquet}
WRITE = {".csv": _write_csv, ".parquet": _write_parquet}
SUFFIXES: Final = (".jsonl", *READ)
