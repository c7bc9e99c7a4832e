"""Progress of stages as text: names in short, bytes of a source, counts of other stages, and the rate."""

import math
import os
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

NAMES = 26, 38  # columns for names, on a narrow and on a wide terminal


def describe(stage: str, name: str, done: int, total: int, lately: int, seconds: float) -> str:
    """Return a line of progress, with the rate.

    "source tess: 12.3 MB of 224.0 MB, 1.5 MB/s", "index tess: 40 of 2800, 310/s" or ", 12 s each".

    Args:
        lately: bytes or items done in the last `seconds`.
    """
    return f"{stage} {name}: {describe_done(stage, done, total, lately, seconds)}"


def describe_done(stage: str, done: int, total: int, lately: int, seconds: float) -> str:
    """Return how much of a stage is done, and the rate, as `describe`."""
    whole = f" of {_amount(stage, total)}" if total else ""
    return f"{_amount(stage, done)}{whole}{_rate(stage, lately, seconds)}"


def since_first() -> Callable[[int], tuple[int, float]]:
    """Return a function that measures what was done since its first call.

    It returns (done, seconds). Work of an earlier process is not counted. If `done` falls, another part of the stage
    started, and the measurement restarts.
    """
    first, last = (0, 0.0), math.inf

    def since(done: int) -> tuple[int, float]:
        nonlocal first, last
        now = time.monotonic()
        first = (done, now) if done < last else first
        last = done
        return done - first[0], now - first[1]

    return since


def in_bytes(stage: str) -> bool:
    """Return whether a stage counts bytes."""
    return stage == "source"


def _amount(stage: str, value: float) -> str:
    return f"{value / 1e6:.1f} MB" if in_bytes(stage) else f"{value:.0f}"


def _rate(stage: str, done: int, seconds: float) -> str:
    if seconds <= 0 or done <= 0:
        return ""
    rate = done / seconds
    if in_bytes(stage):
        return f", {_amount(stage, rate)}/s"
    if rate >= 1:
        return f", {rate:.0f}/s" if rate >= 10 else f", {rate:.1f}/s"
    return f", {1 / rate:.0f} s each" if rate > 1 / 120 else f", {1 / rate / 60:.0f} min each"


def by_reason(items: Iterable[tuple[tuple[str, str], str]]) -> Iterator[tuple[str, str, str, int]]:
    """Yield (stage, names, reason, count) of adjacent items alike.

    Args:
        items: ((stage, name), reason).
    """
    for (stage, reason), group in groupby(items, key=lambda item: (item[0][0], item[1])):
        names = [name for (_, name), _ in group]
        yield (stage, named(names), reason, len(names))


def named(names: Sequence[str], fold: str | None = None) -> str:
    """Return names in short, and how many they are.

    The only name, else a fold, what all begin or end with, or the first ones.
    """
    if len(names) == 1:
        return names[0]
    begin = os.path.commonprefix(names)
    end = os.path.commonprefix([name[::-1] for name in names])[::-1].partition(".")[2]  # "backbone.emodb": its corpus
    first = textwrap.shorten(", ".join(names), NAMES[0] - len(" (99)"), placeholder=" …")
    return f"{fold or (f'{begin}*' if len(begin) > 2 else end or first)} ({len(names)})"
