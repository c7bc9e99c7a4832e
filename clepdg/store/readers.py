"""Read the tables and JSON files of an output; every fault is a StoreError."""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clepdg.errors import StoreError
from clepdg.hashing import read_json

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


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
    import pyarrow.parquet as pq

    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError("not a file")
        table = pq.ParquetFile(path).read()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(error, path) from error
    found = {field.name: str(field.type) for field in table.schema}
    if list(found) != list(columns) or not all(_fits(found[name], kind) for name, kind in columns.items()):
        raise unreadable(", ".join(f"{name} {kind}" for name, kind in found.items()) or "no column", path, columns)
    return table


def read_frame(path: Path, columns: Iterable[str]) -> "pd.DataFrame":
    """Read a Parquet file that has at least these columns.

    Raises:
        StoreError: it is missing, truncated, not Parquet, or lacks a column.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(error, path) from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise unreadable(f"no column {', '.join(missing)}", path)
    return table


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
