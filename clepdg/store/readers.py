"""Readers of tables and facts that lie in an output: what is not exactly what was written is one clear error."""

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
    """Return what a JSON file of an output says.

    Args:
        kind: dict or list: what it has to be.

    Raises:
        StoreError: it is missing, no JSON, nested too deep, or of another kind.
    """
    try:
        said = read_json(path)
        if not isinstance(said, kind):
            raise ValueError(f"a {type(said).__name__}, not a {kind.__name__}")
        return said
    except (OSError, ValueError) as error:
        raise unreadable(error, path) from error


def read_names(path: Path) -> tuple[str, ...]:
    """Return a JSON list of strings.

    Raises:
        StoreError: it is missing or something else.
    """
    said = read_facts(path, list)
    if not all(isinstance(name, str) for name in said):
        raise unreadable("not a list of names", path)
    return tuple(said)


def read_table(path: Path, columns: Mapping[str, str]) -> "pa.Table":
    """Read a Parquet file with exactly these columns.

    Args:
        columns: name -> type as pyarrow calls it, such as int64; "list" is one of strings.

    Raises:
        StoreError: it is missing, truncated, no Parquet, or has other columns.
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
        StoreError: it is missing, truncated, no Parquet, or lacks a column.
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
    """Return the error that a file of an output is not what was written."""
    do = "run clep-dg verify, then the same command again"
    said = " ".join(str(got).split())[:400]
    return StoreError("A file of an output can't be read.", got=said, expected=expected, where=path, do=do)
