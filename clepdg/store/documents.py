"""Read and write a store's documents: small JSON files such as runs/<run>.json and pins/<corpus>.json."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from clepdg.errors import StoreError
from clepdg.hashing import inside, read_json, write_json

RUN_BYTES: Final = 1 << 24  # the largest file of a run that is read


class Documents:
    """Documents in a folder; a remote store has the same methods."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> Any:
        """Return a document's content, or None if there is no document.

        Raises:
            StoreError: it can't be read, or is not JSON.
        """
        try:
            return read_json(self.root / checked(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise damaged(error, self.address(name)) from error

    def write(self, name: str, value: Any) -> None:
        """Write or overwrite a document.

        Raises:
            StoreError: the store can't be written.
        """
        path = self.root / checked(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, value)
        except OSError as error:
            raise StoreError("The store can't be written.", got=error, where=path) from error

    def newest(self, folder: str, count: int) -> Iterator[tuple[str, Any, float]]:
        """Yield (name, content, modification time) of the last documents by name.

        Times are seconds since 1970. Documents that can't be read, or are larger than `RUN_BYTES`, are left out.
        """
        for path in sorted((self.root / folder).glob("*.json"), reverse=True)[:count]:
            try:
                found = (f"{folder}/{path.name}", read_json(path, RUN_BYTES), path.stat().st_mtime)
            except (OSError, ValueError):
                continue
            yield found

    def states(self, folder: str) -> dict[str, tuple[int, float]]:
        """Return {name: (bytes, modification time)} of a folder's documents.

        They differ once a document changed.
        """
        found = {f"{folder}/{path.name}": path.stat() for path in (self.root / folder).glob("*.json")}
        return {name: (facts.st_size, facts.st_mtime_ns / 1e9) for name, facts in found.items()}

    def address(self, name: str) -> str:
        """Return a document's address, for messages."""
        return str(self.root / name)


def checked(name: str) -> str:
    """Return a document's name.

    Raises:
        StoreError: it is outside the store.
    """
    if not inside(name):
        raise StoreError("This can't be the name of a document.", got=repr(name))
    return name


def damaged(error: Exception, where: str) -> StoreError:
    """Return the error of a document that can't be read."""
    return StoreError("A document of the store can't be read.", got=error, where=where, do="fix or delete it")
