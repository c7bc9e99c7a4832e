"""Stop downloads of objects that are not as large as a record says."""

from collections.abc import Mapping
from typing import Any

from fsspec.callbacks import DEFAULT_CALLBACK, Callback

from clepdg.store.record import Damaged


class Sizes(Callback):  # type: ignore[misc]
    """Callback of a download of several objects.

    Args:
        sizes: {path as s3fs takes it: bytes}; others are not checked.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.sizes = sizes

    def branched(self, path_1: str, path_2: str, **kwargs: Any) -> Callback:
        """Return the callback of one object."""
        return _Size(path_1, self.sizes[path_1]) if path_1 in self.sizes else DEFAULT_CALLBACK


class _Size(Callback):  # type: ignore[misc]
    def __init__(self, path: str, expected: int) -> None:
        super().__init__()
        self.path, self.expected = path, expected

    def set_size(self, size: int | None) -> None:
        super().set_size(size)
        if size is not None and size != self.expected:
            raise self._damaged(f"{size} bytes")

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value > self.expected:
            raise self._damaged("more bytes")

    def _damaged(self, found: str) -> Damaged:
        name = self.path.rpartition("/")[2]
        return Damaged(f"file truncated or altered: {name} ({found}, {self.expected} expected)")
