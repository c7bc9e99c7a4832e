"""Documents of a store: small JSON files that its runs share, such as runs/<run>.json and pins/<corpus>.json."""

import contextlib
from pathlib import Path
from typing import Any

from clepdg.errors import StoreError
from clepdg.hashing import inside, read_json, write_json


class Documents:
    """Documents below one folder. A remote store has the same four methods over its bucket."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> Any:
        """Return what a document says; None where there is none.

        Raises:
            StoreError: it can't be read, or is no JSON.
        """
        try:
            return read_json(self.root / checked(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise damaged(error, self.address(name)) from error

    def write(self, name: str, value: Any) -> None:
        """Write a document whole.

        Raises:
            StoreError: the store can't be written.
        """
        path = self.root / checked(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, value)
        except OSError as error:
            raise StoreError("The store can't be written.", got=error, where=path) from error

    def newest(self, folder: str, count: int) -> list[tuple[str, Any, float]]:
        """Return (name, what it says, when it was written in seconds since 1970) of the last documents by name.

        What can't be read is passed over.
        """
        found = []
        for path in sorted((self.root / folder).glob("*.json"), reverse=True)[:count]:
            with contextlib.suppress(OSError, ValueError):
                found.append((f"{folder}/{path.name}", read_json(path), path.stat().st_mtime))
        return found

    def address(self, name: str) -> str:
        """Return where a document lies, for a person."""
        return str(self.root / name)


def checked(name: str) -> str:
    """Return a document's name.

    Raises:
        StoreError: it leads out of the store.
    """
    if not inside(name):
        raise StoreError("This can't be the name of a document.", got=repr(name))
    return name


def damaged(error: Exception, where: str) -> StoreError:
    """Return the error that a document can't be understood."""
    return StoreError("A document of the store can't be read.", got=error, where=where, do="mend or delete it")
