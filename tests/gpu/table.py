"""A table of NumPy columns, with what CLEP's training uses of a pandas DataFrame."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Column(np.ndarray):
    """A column, with what is used of a pandas Series."""

    @property
    def iloc(self) -> "Column":
        """The column, which is indexed by position."""
        return self

    def isin(self, values: Sequence[Any]) -> "Column":
        """Return whether each value is among some values."""
        return np.isin(self, list(values)).view(Column)

    def map(self, values: Mapping[Any, Any]) -> "Column":
        """Return the values that a mapping has for this column's."""
        return np.array([values[one] for one in self.tolist()]).view(Column)

    def unique(self) -> "Column":
        """Return the distinct values."""
        return np.unique(self).view(Column)

    def to_numpy(self, dtype: Any = None) -> np.ndarray:
        """Return the column as a plain array."""
        return np.asarray(self, dtype)


class _Places:
    def __init__(self, take: Callable[[Any], "Table"]) -> None:
        self.take = take

    def __getitem__(self, places: Any) -> "Table":
        return self.take(places)


class Table:
    """Columns of equal length."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = {name: np.asarray(values).view(Column) for name, values in columns.items()}

    def __getattr__(self, name: str) -> Column:
        if name.startswith("_") or name not in self._columns:
            raise AttributeError(name)
        return self._columns[name]

    def __getitem__(self, key: Any) -> Any:
        return self._columns[key] if isinstance(key, str) else self._take(np.asarray(key))

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    @property
    def empty(self) -> bool:
        """True where there are no rows."""
        return len(self) == 0

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._columns)

    @property
    def iloc(self) -> _Places:
        """The rows, by position."""
        return _Places(self._take)

    def _take(self, places: Any) -> "Table":
        return Table({name: column[places] for name, column in self._columns.items()})

    def sort_values(self, name: str, ignore_index: bool = True) -> "Table":
        """Return the rows in the order of a column."""
        return self._take(np.argsort(self._columns[name], kind="stable"))

    def reset_index(self, drop: bool = True) -> "Table":
        """Return the table: it has no index."""
        return self

    def itertuples(self, index: bool = False) -> Iterator[Any]:
        """Yield the rows as named tuples."""
        row = NamedTuple("Row", [(name, Any) for name in self._columns])  # type: ignore[misc]
        return (row(*values) for values in zip(*(c.tolist() for c in self._columns.values()), strict=True))
