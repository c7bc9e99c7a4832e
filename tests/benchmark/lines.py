"""Lines of the benchmark: ratios of what is measured in turn, compared with the last run, as a table."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

NO_GPU: Final = "not measured: no GPU"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One figure of the benchmark.

    Attributes:
        value: the median; None: it was not measured.
        low, high: the spread: the smallest and largest round.
        unit: of the value; "" of a ratio.
        goal: as text; "" where there is none.
        said: what the ratio is of, and figures beside it.
        more: whether more is better.
    """

    value: float | None
    low: float = 0.0
    high: float = 0.0
    unit: str = ""
    goal: str = ""
    said: str = ""
    more: bool = True


def line(values: Sequence[float], **facts: Any) -> Line:
    """Return the line of a figure's rounds."""
    return Line(value=statistics.median(values), low=min(values), high=max(values), **facts)


def in_turn(functions: Mapping[str, Callable[[], Any]], rounds: int = 5) -> dict[str, list[float]]:
    """Return the CPU seconds of functions, called in turn after a first round that counts for nothing."""
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for place in range(rounds + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if place:
                spent[name].append(time.process_time() - start)
    return spent


def ratios(spent: Mapping[str, Sequence[float]], of: str, to: str) -> list[float]:
    """Return, for each round, how many times as long one function took as another."""
    return [a / b for a, b in zip(spent[of], spent[to], strict=True)]


def regressed(name: str, new: Line, old: Mapping[str, Any] | None) -> str:
    """Return how a line is worse than in the last run, by more than both spreads; "" where it is not."""
    if not old or old.get("value") is None or new.value is None:
        return ""
    worse = new.high < old["low"] if new.more else new.low > old["high"]
    return f"{name}: {shown(new.value)}, was {shown(old['value'])}" if worse else ""


def shown(value: float) -> str:
    """Return a figure with three digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def as_table(lines: Mapping[str, Line]) -> str:
    """Return the lines as a table in Markdown."""
    rows = ["| what | median | spread | goal | of what |", "|---|---|---|---|---|"]
    for name, one in lines.items():
        if one.value is None:
            rows.append(f"| {name} | {one.said} | | {one.goal} | |")
        else:
            value, unit = shown(one.value), f" {one.unit}" if one.unit else ""
            rows.append(f"| {name} | {value}{unit} | {shown(one.low)}-{shown(one.high)} | {one.goal} | {one.said} |")
    return "\n".join(rows)


def as_json(lines: Mapping[str, Line]) -> dict[str, dict[str, Any]]:
    """Return the lines as JSON values."""
    return {name: asdict(one) for name, one in lines.items()}
