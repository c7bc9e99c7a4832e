"""Compare the sizes and hashes that addresses report with known ones."""

import base64
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from clepdg.corpora.cards import is_sum
from clepdg.download import http_client
from clepdg.download.urls import HASHES, expand
from clepdg.errors import ClepError, SourceError

if TYPE_CHECKING:
    import httpx

PARALLEL_REQUESTS: Final = 8  # requests at the same time
SHOWN: Final = 600  # characters of a result, since a server may write most of it
MOST_REDIRECTS: Final = 10
ALL_SECONDS: Final = 90.0  # for all jobs
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The result of checking one address.

    Attributes:
        what: the corpus, or "model weights".
        where: the address, without secrets.
        result: "ok", "differs", "not reachable" or "says no hash", and what was compared.
        good: the address answered and nothing differs.
    """

    what: str
    where: str
    result: str
    good: bool

    @property
    def line(self) -> str:
        """The line to print: bounded, without control characters."""
        result = "".join(sign if sign.isprintable() else " " for sign in self.result)
        return f"{self.what}  {self.where}  {result if len(result) <= SHOWN else f'{result[:SHOWN]}...'}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One check to run; `what` and `where` name it if it does not answer."""

    what: str
    where: str
    ask: Callable[[], Iterable[Checked]]


def compare(
    what: str, where: str, expected: Mapping[str, Any], reported: Mapping[str, Any], source: str = "the card"
) -> Checked:
    """Compare reported sizes and hashes with expected ones.

    Args:
        expected: "bytes", "md5" and "sha256", as far as they are known.
        reported: the same.
        source: where the expected values are from.
    """
    both = [name for name in ("bytes", *HASHES) if name in expected and name in reported]
    pairs = {name: (expected[name], reported[name]) for name in both}
    different = [f"{name} {old} -> {new}" for name, (old, new) in pairs.items() if str(old).lower() != str(new).lower()]
    if different:
        result = f"differs: {', '.join(different)} (compared with {source})"
    elif {*both} & {*HASHES}:
        result = f"ok ({', '.join(both)} as in {source})"
    else:
        known = ", ".join(f"{name} {reported[name]}" for name in reported if name in ("bytes", *HASHES)) or "nothing"
        alike = f"bytes as in {source}" if both else f"nothing to compare in {source}; it reports {known}"
        result = f"{'ok' if {*reported} & {*HASHES} else 'says no hash'} ({alike})"
    return Checked(what=what, where=where, result=result, good=not different)


def not_reachable(what: str, where: str, reason: str) -> Checked:
    """Return the result of an address that does not answer."""
    return Checked(what=what, where=where, result=f"not reachable: {reason}", good=False)


def reported_sums(url: str, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """Return the bytes, md5 and sha256 that an http address reports.

    Only headers are read, nothing is downloaded.

    Raises:
        SourceError: it does not answer within seconds, or answers with an error.
    """
    with http_errors(), http_client.client(http_client.INSPECT_SECONDS) as client:
        response = http_client.retry_while_busy(
            lambda: _headers(client, expand(url)), http_client.INSPECT_SECONDS, sleep
        )
    if response.status_code != 200 and "x-linked-etag" not in response.headers:
        raise SourceError(http_client.busy_status(response))
    if response.headers.get("content-type", "").startswith("text/html") and "x-linked-etag" not in response.headers:
        raise SourceError("a web page, not data")
    return _facts(response)


@contextlib.contextmanager
def http_errors() -> Iterator[None]:
    """Turn HTTP errors into a one-line SourceError."""
    import httpx

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
        raise SourceError(f"{type(error).__name__}: {error}") from error


def _headers(client: "httpx.Client", url: str) -> "httpx.Response":
    """Request headers, up to the first answer that names a hash.

    The Hugging Face hub names it in its redirect to the storage, which names none.
    """
    response = client.head(url, follow_redirects=False)
    for _ in range(MOST_REDIRECTS):
        if response.next_request is None or "x-linked-etag" in response.headers:
            break
        response = client.send(response.next_request, follow_redirects=False)
    refused = 400 <= response.status_code < 500 or response.status_code == 501
    return http_client.request_headers(client, url) if refused else response  # signed addresses want GET


def _facts(response: "httpx.Response") -> dict[str, Any]:
    headers = response.headers
    linked = headers.get("x-linked-etag", "").strip('"')
    size = headers.get("x-linked-size" if linked else "content-length", "")
    facts: dict[str, Any] = {"bytes": int(size)} if size.isdigit() else {}
    if linked:
        return facts | ({"sha256": linked} if is_sum("sha256", linked) else {})
    md5 = _md5(headers.get("content-md5", ""))
    return facts | ({"md5": md5} if md5 else md5_of(headers.get("etag", "")))


def md5_of(etag: str) -> dict[str, str]:
    """Return the md5 of an object store's ETag; empty for other ETags."""
    value = etag.strip('"')
    return {"md5": value} if is_sum("md5", value) else {}


def _md5(header: str) -> str:
    """Return a Content-MD5 header in hexadecimal digits, or ""."""
    if is_sum("md5", header):
        return header
    with contextlib.suppress(ValueError):
        if len(digest := base64.b64decode(header, validate=True)) == 16:
            return digest.hex()
    return ""


def run_jobs(jobs: Sequence[Job], seconds: float = ALL_SECONDS) -> Iterator[Checked]:
    """Run jobs in parallel and yield their results in order."""

    def lines(job: Job) -> list[Checked]:
        try:
            return list(job.ask())
        except ClepError as error:
            return [not_reachable(job.what, job.where, error.reason)]

    answers = run_in_threads([partial(lines, job) for job in jobs], seconds)
    for job, answer in zip(jobs, answers, strict=True):
        late = [not_reachable(job.what, job.where, f"no answer within {seconds:.0f} s")]
        yield from late if answer is None else answer


def run_in_threads(jobs: Sequence[Callable[[], Result]], seconds: float) -> Iterator[Result | None]:
    """Run jobs in threads; yield results in order, None for late ones.

    The threads are daemons, so a server that never completes its answer keeps no process alive.

    Args:
        seconds: for all jobs together.
    """
    waiting: queue.SimpleQueue[tuple[Future[Result], Callable[[], Result]]] = queue.SimpleQueue()
    futures = [Future[Result]() for _ in jobs]
    for pair in zip(futures, jobs, strict=True):
        waiting.put(pair)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                future, job = waiting.get_nowait()
                try:
                    future.set_result(job())
                except BaseException as error:  # raised again where the result is asked for
                    future.set_exception(error)

    for _ in range(min(PARALLEL_REQUESTS, len(jobs))):
        threading.Thread(target=work, daemon=True).start()
    end = time.monotonic() + seconds
    for future in futures:
        wait([future], timeout=max(0.0, end - time.monotonic()))
        yield future.result() if future.done() else None
