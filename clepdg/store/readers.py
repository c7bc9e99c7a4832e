"""Read the tables and JSON files of an output; every fault is a StoreError."""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.errors import StoreError
from clepdg.hashing import read_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

TABLE_BYTES: Final = 100 * 10**6
TABLE_RATIO: Final = 200  # bytes in memory per byte of a Parquet file
ENCODINGS: Final = {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}


def read_facts(path: Path, kind: type) -> Any:
    """Return the content of a JSON file of an output.

    Args:
        kind: its type: dict or list.

    Raises:
        StoreError: it is missing, not JSON, nested too deep, or of another type.
    """
    try:
        content = read_json(path)
        if not isinstance(content, kind):
            raise ValueError(f"a {type(content).__name__}, not a {kind.__name__}")
        return content
    except (OSError, ValueError) as error:
        raise unreadable(error, path) from error


def read_names(path: Path) -> tuple[str, ...]:
    """Return a JSON list of strings.

    Raises:
        StoreError: it is missing or anything else.
    """
    names = read_facts(path, list)
    if not all(isinstance(name, str) for name in names):
        raise unreadable("not a list of names", path)
    return tuple(names)


def read_table(path: Path, columns: Mapping[str, str]) -> "pa.Table":
    """Read a Parquet file with exactly these columns.

    Args:
        columns: name -> type as pyarrow calls it, such as int64; "list" is one of strings.

    Raises:
        StoreError: it is missing, truncated, not Parquet, or has other columns.
    """
    import pyarrow as pa

    try:
        file = _open_table(path)
        found = {field.name: str(field.type) for field in file.schema_arrow}
        if list(found) != list(columns) or not all(_fits(found[name], kind) for name, kind in columns.items()):
            raise unreadable(", ".join(f"{name} {kind}" for name, kind in found.items()) or "no column", path, columns)
        return file.read()
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        raise unreadable(error, path) from error


def read_frame(path: Path, columns: Iterable[str]) -> "pd.DataFrame":
    """Read a Parquet file that has at least these columns.

    Raises:
        StoreError: it is missing, truncated, not Parquet, or lacks a column.
    """
    import pyarrow as pa

    try:
        table: pd.DataFrame = _open_table(path).read().to_pandas()
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        raise unreadable(error, path) from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise unreadable(f"no column {', '.join(missing)}", path)
    return table


def _open_table(path: Path) -> "pq.ParquetFile":
    """Open a Parquet file whose content is not far larger than the file.

    Raises:
        OSError: it is not a file.
        ValueError: it grows more than `TABLE_RATIO`-fold, beyond `TABLE_BYTES`, or is encoded by other means.
        pyarrow.ArrowException: it is not Parquet.
    """
    import pyarrow.parquet as pq

    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise OSError("not a file")
    file, limit = pq.ParquetFile(path), max(TABLE_BYTES, TABLE_RATIO * facts.st_size)
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    if sum(chunk.total_uncompressed_size + 8 * chunk.num_values for chunk in chunks) > limit:
        raise ValueError(f"{facts.st_size} bytes of Parquet grow to more than {limit}")
    if odd := {encoding for chunk in chunks for encoding in chunk.encodings} - ENCODINGS:
        raise ValueError(f"Parquet with encoding {', '.join(sorted(odd))}")
    longest = sum(chunk.total_uncompressed_size * chunk.num_values for chunk in chunks if _is_text(chunk))
    if longest > limit and _text_bytes(path, {chunk.path_in_schema for chunk in chunks if _is_text(chunk)}) > limit:
        raise ValueError(f"texts in {facts.st_size} bytes of Parquet grow to more than {limit}")
    return file


def _is_text(chunk: "pq.ColumnChunkMetaData") -> bool:
    return bool(chunk.physical_type == "BYTE_ARRAY")


def _text_bytes(path: Path, columns: set[str]) -> int:
    """Return the bytes that the texts of a Parquet file take in memory.

    The file may hold a text once that stands in many rows.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    total = 0
    for batch in pq.ParquetFile(path, read_dictionary=sorted(columns)).iter_batches():
        for column in batch.columns:
            while hasattr(column, "flatten") and not hasattr(column, "dictionary"):
                column = column.flatten()
            if hasattr(column, "dictionary"):
                total += pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0
    return total


def _fits(found: str, kind: str) -> bool:
    if kind == "list":
        return found.startswith("list<") and "string" in found
    import pyarrow as pa

    return found in {"string": ("string", "large_string")}.get(kind, (str(getattr(pa, kind)()),))


def unreadable(got: object, path: Path, expected: object = None) -> StoreError:
    """Return the error of a file of an output that can't be read."""
    do = "run clep-dg verify, then the same command again"
    short = " ".join(str(got).split())[:400]
    return StoreError("A file of an output can't be read.", got=short, expected=expected, where=path, do=do)
