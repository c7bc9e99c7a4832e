"""Open a store by its address."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from clepdg.errors import StoreError
from clepdg.store.record import STORE, check_format
from clepdg.store.s3.store import open_remote
from clepdg.store.store import Store


def open_store(
    url: str,
    *,
    cache: Path | None = None,
    cache_gigabytes: float = 100.0,
    upload_seconds: float = 300.0,
) -> Store:
    """Open the store at a folder, a file:// or an s3:// address.

    Args:
        cache: folder that holds the caches of remote stores.
        cache_gigabytes: a cache's size, beyond which what was not used for longest is dropped from it.
        upload_seconds: how often a remote store keeps the checkpoints of what is being computed.

    Raises:
        StoreError: the address is of another kind, the store can't be made, reached or written, or it is of
            another format.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3" and cache is not None:
        return open_remote(url, cache, cache_gigabytes, upload_seconds)
    if parts.scheme not in ("", "file"):
        raise StoreError(
            "A store of this kind is not supported.",
            got=url,
            expected="a folder, file:///folder or s3://bucket/folder",
        )
    root = Path(url2pathname(parts.path) if parts.scheme else url).expanduser().absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError("The store can't be made.", got=error, where=root) from error
    store = Store(root)
    check_format(store.documents.read(STORE), url)
    return store
