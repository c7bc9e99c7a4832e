"""Read and write a store's documents in a bucket."""

from collections.abc import Iterator
from typing import Any, Final

from clepdg.hashing import JSON_BYTES, json_bytes, parse_json
from clepdg.store.documents import RUN_BYTES, Documents, checked, damaged
from clepdg.store.s3.bucket import Bucket

READ_AT_ONCE: Final = 50


class BucketDocuments(Documents):
    """Documents of a remote store, with the methods of Documents."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket

    def read(self, name: str) -> Any:
        """As Documents.read."""
        data = self.bucket.read(checked(name))
        try:
            return None if data is None else _parsed(data)
        except ValueError as error:
            raise damaged(error, self.address(name)) from error

    def write(self, name: str, value: Any) -> None:
        """As Documents.write."""
        self.bucket.write(checked(name), json_bytes(value))

    def newest(self, folder: str, count: int) -> Iterator[tuple[str, Any, float]]:
        """As Documents.newest: one listing, then several documents at once."""
        listed = {name: facts for name, facts in self.bucket.listing(folder).items() if facts[0] <= RUN_BYTES}
        names = sorted((name for name in listed if name.endswith(".json")), reverse=True)[:count]
        for start in range(0, len(names), READ_AT_ONCE):
            several = names[start : start + READ_AT_ONCE]
            contents = self.bucket.read_many(several)
            for name in several:
                try:
                    found = (name, _parsed(contents[name]), listed[name][1])
                except (ValueError, KeyError):
                    continue
                yield found

    def states(self, folder: str) -> dict[str, tuple[int, float]]:
        """As Documents.states."""
        return {name: facts for name, facts in self.bucket.listing(folder).items() if name.endswith(".json")}

    def address(self, name: str) -> str:
        """As Documents.address."""
        return f"{self.bucket.url}/{name}"


def _parsed(data: bytes) -> Any:
    if len(data) > JSON_BYTES:
        raise ValueError(f"more than {JSON_BYTES} bytes")
    return parse_json(data)
