"""Show which stages run, with rate and time left: live lines on a terminal, else a line every 30 s."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from clepdg_flows.run.progress import describe, describe_done, since_first
from clepdg_tasks.engine.node import Node, Outcome

EVERY = 30.0  # seconds between two lines of a stage where there is no terminal
BAR_COLUMNS = 100  # a narrower terminal has no room for bars


@dataclass(frozen=True)
class Show:
    """How a run shows its stages; the command line sets its own."""

    bar: Callable[[Node, str], Any]
    done: Callable[[list[tuple[Node, Outcome]]], None]
    failed: Callable[[Node, str], None]
    say: Callable[[str], None] = lambda line: None


SHOW: ContextVar[Show | None] = ContextVar("SHOW", default=None)


def silent() -> Show:
    """Return what shows nothing."""

    @contextmanager
    def bar(node: Node, reason: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: None

    return Show(bar=bar, done=lambda outcomes: None, failed=lambda node, message: None)


class Display:
    """Live lines of running stages, with their own wall seconds.

    Without a terminal that can move its cursor, nothing is live. Leaving it, also by an error, leaves the terminal as
    it was.
    """

    def __init__(self) -> None:
        self._progress = _progress() if sys.stderr.isatty() else None
        if self._progress and not self._progress.console.is_interactive:  # TERM=dumb
            self._progress = None
        self._spans: dict[str, tuple[float, float]] = {}
        self._whole = self._progress.add_task("", total=None, said="", whole=True) if self._progress else None

    def __enter__(self) -> Self:
        if self._progress:
            try:
                self._progress.start()
            except BaseException:  # a signal while it starts: Python does not call __exit__ then
                with suppress(Exception):
                    self._progress.stop()
                self._progress.console.show_cursor()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the live lines away."""
        if self._progress:
            self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line above the live ones."""
        sys.stdout.write(f"{line}\n")  # in one write: threads print at once
        sys.stdout.flush()

    def whole(self, words: str, done: int = 0, total: int | None = None) -> None:
        """Show what the run does, or how many of its stages ended."""
        if self._progress and self._whole is not None:
            said = f"{done} of {total}" if total else ""
            self._progress.update(self._whole, description=words, said=said, completed=done, total=total)

    @contextmanager
    def bar(self, stage: str, name: str) -> Iterator[Callable[[int, int], None]]:
        """Yield a progress function (done, total) of a running stage."""
        started = time.monotonic()
        try:
            if self._progress is None:
                yield _lines(stage, name)
            else:
                task = self._progress.add_task(f"{stage} {name}", total=None, said="")
                try:
                    yield _updates(self._progress, task, stage)
                finally:
                    self._progress.remove_task(task)
        finally:
            self._spans[f"{stage}/{name}"] = started, time.monotonic()

    def seconds(self, ids: list[str]) -> float | None:
        """Return wall seconds in which any of these stages ran; None: none did."""
        spans = sorted(self._spans.pop(node_id) for node_id in ids if node_id in self._spans)
        total, until = 0.0, 0.0
        for start, end in spans:
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        return total if spans else None


class _Seconds(ProgressColumn):
    """Wall time since a stage started, also after its last step."""

    def render(self, task: Task) -> Text:
        return Text(str(timedelta(seconds=int(task.elapsed or 0))), style="progress.elapsed")


class _Left(TimeRemainingColumn):
    """Time left of a stage whose rate is known."""

    def render(self, task: Task) -> Text:
        known = task.total and task.speed and not task.fields.get("whole")
        return Text.assemble(super().render(task), " left") if known else Text()


class _Console(Console):
    """A console of which one thread at a time prints.

    Rich moves the cursor above the live lines before it prints, and another thread may print between the two: its line
    would be erased. The lock is the live display's own, which its refreshing thread holds: two could deadlock.
    """

    lock: "threading.RLock | None" = None

    def __enter__(self) -> Self:
        if self.lock:
            self.lock.acquire()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            if self.lock:
                self.lock.release()


def _progress() -> Progress:
    console = _Console(stderr=True)
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        *([BarColumn(bar_width=20)] if console.width >= BAR_COLUMNS else []),
        TextColumn("{task.fields[said]}", markup=False, table_column=Column(no_wrap=True, justify="right")),
        _Left(compact=True, table_column=Column(no_wrap=True)),
        _Seconds(table_column=Column(no_wrap=True)),
    ]
    progress = Progress(
        *columns,
        console=console,
        transient=True,
        expand=True,
        refresh_per_second=5,
        redirect_stdout=sys.stdout.isatty(),  # a file or a pipe gets its lines itself
    )
    console.lock = getattr(progress.live, "_lock", None)  # private: another rich may have none
    return progress


def _updates(progress: Progress, task: int, stage: str) -> Callable[[int, int], None]:
    since = since_first()

    def update(done: int, total: int) -> None:
        said = describe_done(stage, done, total, *since(done))
        progress.update(task, completed=done, total=total or None, said=said)  # type: ignore[arg-type]

    return update


def _lines(stage: str, name: str, every: float = EVERY) -> Callable[[int, int], None]:
    last, since = time.monotonic(), since_first()

    def update(done: int, total: int) -> None:
        nonlocal last
        lately = since(done)
        if time.monotonic() - last >= every:
            last = time.monotonic()
            sys.stderr.write(f"{describe(stage, name, done, total, *lately)}\n")

    return update
