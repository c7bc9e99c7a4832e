"""Open a store by its address."""

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from clepdg.errors import StoreError
from clepdg.hashing import digest
from clepdg.store.record import STORE, check_format
from clepdg.store.s3.bucket import Bucket
from clepdg.store.s3.cache import Cache
from clepdg.store.s3.documents import BucketDocuments
from clepdg.store.s3.store import RemoteStore
from clepdg.store.store import Store


def open_store(
    url: str,
    *,
    durable: bool = True,
    cache: Path | None = None,
    cache_gigabytes: float = 100.0,
    upload_seconds: float = 300.0,
) -> Store:
    """Open the store at a folder, a file:// or an s3:// address.

    Args:
        durable: flush the files of an output to the disk before it counts as done; of a store in a folder.
        cache: folder that holds the caches of remote stores.
        cache_gigabytes: size of a cache, beyond which the least recently used outputs are removed from it.
        upload_seconds: interval at which a remote store uploads the checkpoints of a running computation.

    Raises:
        StoreError: the address is of an unknown kind, the store can't be created, reached or written, or it has
            another format.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3" and cache is not None:
        return _open_remote(url, cache, cache_gigabytes, upload_seconds)
    if parts.scheme not in ("", "file"):
        raise StoreError(
            "A store of this kind is not supported.",
            got=url,
            expected="a folder, file:///folder or s3://bucket/folder",
        )
    root = Path(os.path.expanduser(url2pathname(parts.path) if parts.scheme else url)).absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError("The store can't be created.", got=error, where=root) from error
    store = Store(root, durable=durable)
    check_format(store.documents.read(STORE), url)
    return store


def _open_remote(url: str, cache: Path, cache_gigabytes: float, upload_seconds: float) -> RemoteStore:
    """Open the store at an s3:// address.

    Raises:
        StoreError: the address is not valid, or no server answers within seconds.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query:
        raise StoreError(
            "An address holds no credentials.",
            got=f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}{parts.path}",
            expected="s3://bucket/folder",
            do="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or another source that botocore reads",
        )
    if not parts.netloc:
        raise StoreError("The store's address names no bucket.", got=url, expected="s3://bucket/folder")
    check_format(BucketDocuments(Bucket(url, patient=False)).read(STORE), url)
    name = "".join(c if c.isalnum() else "-" for c in f"{parts.netloc}{parts.path}".rstrip("/"))
    root = cache / f"{name[:60]}-{digest(url.rstrip('/'))[:8]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError("The store's cache can't be created.", got=error, where=root) from error
    return RemoteStore(Bucket(url), Cache(root, cache_gigabytes * 1e9), upload_seconds)
