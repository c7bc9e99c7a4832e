"""Read and write objects below one address of a bucket, with s3fs; every fault is a StoreError.

botocore finds credentials and endpoint (environment, ~/.aws, roles), and retries faults that may pass (500, 503, a
reset, a slow server).
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from clepdg.errors import StoreAway, StoreError
from clepdg.hashing import JSON_BYTES
from clepdg.store.record import Damaged

ATTEMPTS: Final = 6  # of one request, botocore's standard mode: about half a minute
BODY_ATTEMPTS: Final = 3  # of an answer that breaks off, which botocore does not retry
CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 30.0
FILES_AT_ONCE: Final = 8
PARTS_AT_ONCE: Final = 4  # of one large file
PART_BYTES: Final = 8 << 20  # at most a quarter of a gigabyte is in memory
DO: Final = "see that the address is right, the server runs, and botocore finds credentials (AWS_*, ~/.aws)"


class Bucket:
    """Objects below one s3:// address.

    Args:
        patient: False gives up in seconds, to check whether the server answers.
    """

    def __init__(self, url: str, *, patient: bool = True) -> None:
        import fsspec

        self.url = url.rstrip("/")
        config = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENCE_SECONDS if patient else CONNECT_SECONDS,
            "retries": {"max_attempts": ATTEMPTS if patient else 2, "mode": "standard"},
            "max_pool_connections": 2 * FILES_AT_ONCE * PARTS_AT_ONCE,
        }
        self.fs, self.prefix = fsspec.core.url_to_fs(
            self.url, config_kwargs=config, skip_instance_cache=True, use_listings_cache=False
        )
        self.fs.retries = BODY_ATTEMPTS if patient else 1

    def path(self, name: str) -> str:
        """Return the path of an object as s3fs takes it."""
        return f"{self.prefix}/{name}"

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Convert errors of s3fs, botocore and aiohttp to a StoreError.

        A missing object stays a FileNotFoundError.
        """
        try:
            yield
        except (StoreError, Damaged, AttributeError, TypeError, NameError, AssertionError):
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in repr(error.__cause__):
                raise StoreError(
                    "There is no such bucket.", where=self.url, do="create it, or name another one"
                ) from None
            raise
        except PermissionError as error:
            raise StoreError("The store may not be used.", got=error, where=self.url, do=DO) from error
        except Exception as error:  # there is no common base
            got = f"{type(error).__name__}: {error}"
            raise StoreAway("The store can't be reached.", got=got, where=self.url, do=DO) from error

    def read(self, name: str) -> bytes | None:
        """Return the bytes of a small object, or None.

        Of a larger one than `JSON_BYTES` there is one byte more.
        """
        with self.errors():
            try:
                data: bytes = self.fs.cat_file(self.path(name), start=0, end=JSON_BYTES + 1)
                return data
            except FileNotFoundError as error:
                if "NoSuchBucket" in repr(error.__cause__):
                    raise
                return None
            except Exception as error:
                if _code(error) == "InvalidRange":  # it is empty
                    return b""
                raise

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of those small objects that exist and are not empty."""
        with self.errors():
            paths = {self.path(name): name for name in names}
            found = self.fs.cat(list(paths), on_error="omit", start=0, end=JSON_BYTES + 1) if paths else {}
            return {paths[path]: data for path, data in found.items()}

    def write(self, name: str, data: bytes) -> None:
        """Write or overwrite a small object."""
        with self.errors():
            self.fs.pipe_file(self.path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small object unless it exists; return whether it did not.

        The request is conditional (If-None-Match: *). After a lost answer, False may mean our own object.

        Raises:
            StoreError: the server does not know conditional requests.
        """
        with self.errors():
            try:
                self.fs.pipe_file(self.path(name), data, mode="create")
                return True
            except Exception as error:
                code = _code(error)
                if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "ConditionalRequestConflict"):
                    return False
                if code == "NotImplemented":
                    raise self.unconditional() from error
                raise

    def unconditional(self) -> StoreError:
        """Return the error of a server that ignores If-None-Match."""
        return StoreError(
            "The S3 server ignores conditional writes: two machines would overwrite each other's outputs.",
            got="a PUT with If-None-Match: * that replaced an object, or is not known",
            where=self.url,
            do="use a server that honours them, such as AWS S3 or Ceph",
        )

    def listing(self, folder: str) -> dict[str, tuple[int, float]]:
        """Return {name: (bytes, modification time)} of objects in a folder.

        Times are seconds since 1970.
        """
        with self.errors():
            found = self.fs.find(self.path(folder), detail=True)
            start = len(self.prefix) + 1
            return {path[start:]: (facts["size"], facts["LastModified"].timestamp()) for path, facts in found.items()}

    def upload(self, files: dict[Path, str]) -> None:
        """Upload files in parallel: {file: name of the object}."""
        with self.errors():
            names = [self.path(name) for name in files.values()]
            if files:
                parts = {"chunksize": PART_BYTES, "max_concurrency": PARTS_AT_ONCE}
                self.fs.put([str(path) for path in files], names, batch_size=FILES_AT_ONCE, **parts)

    def download(self, names: dict[str, Path], sizes: dict[str, int] | None = None) -> None:
        """Download objects in parallel: {name: file}.

        Args:
            sizes: {name: bytes}; more bytes are not read.

        Raises:
            FileNotFoundError: an object does not exist.
            Damaged: an object has another size.
        """
        from clepdg.store.s3.sizes import Sizes

        with self.errors():
            if names:
                paths = [self.path(name) for name in names]
                files = [str(path) for path in names.values()]
                expected = Sizes({self.path(name): size for name, size in (sizes or {}).items()})
                # In one part each, since parts are not retried.
                self.fs.get(paths, files, batch_size=FILES_AT_ONCE, max_concurrency=1, callback=expected)

    def reader(self, name: str) -> Any:
        """Open an object as a binary file, for reading from start to end."""
        return self.fs.open(self.path(name), "rb", block_size=PART_BYTES, cache_type="readahead")

    def writer(self, name: str) -> Any:
        """Open a binary file that becomes an object when it is closed."""
        return self.fs.open(
            self.path(name), "wb", block_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE, fill_cache=False
        )

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; missing ones are no error."""
        bucket, _, prefix = self.prefix.partition("/")
        keys = [{"Key": f"{prefix}/{name}".lstrip("/")} for name in names]
        with self.errors():
            for start in range(0, len(keys), 1000):
                asked = {"Objects": keys[start : start + 1000], "Quiet": True}
                answer = self.fs.call_s3("delete_objects", Bucket=bucket, Delete=asked)
                if refused := answer.get("Errors"):
                    raise PermissionError(f"{len(refused)} objects were not deleted: {refused[0]}")

    def delete_below(self, folder: str) -> None:
        """Delete all objects below a folder."""
        self.delete(list(self.listing(folder)))


def _code(error: BaseException) -> Any:
    """Return the code of S3 in an error of s3fs, or None."""
    response = getattr(error.__cause__ or error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def call_every(seconds: float, function: Callable[[], None]) -> tuple[threading.Event, threading.Thread]:
    """Call a function periodically in a thread.

    Returns:
        The event that ends the thread when it is set, and the thread.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            function()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    return over, thread
