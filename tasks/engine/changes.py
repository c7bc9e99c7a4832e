"""Say why a stage is stale: which settings, inputs and files changed; and how far an interrupted training came."""

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clepdg.store.record import Record

SHOWN = 3  # changes, and names of files
CHECKPOINT = "training.resume"  # as clepdg.training.loop writes it, which would load torch


def difference(
    before: Record, version: int, config: Any, digests: Mapping[str, str], detail: Callable[[str], str]
) -> str:
    """Describe which parts of a stage's key changed since the last run.

    Args:
        before: the record of the last run's output.
        config: plain values.
        detail: returns what changed within an input of this name, or "".
    """
    if before.version != version:
        return f"version {before.version} -> {version}"
    changes = [f"config {line}" for line in config_changes(before.config, config)]
    for name in sorted({*before.inputs, *digests}):
        if before.inputs.get(name) != digests.get(name):
            what = "is new" if name not in before.inputs else "was dropped" if name not in digests else "changed"
            within = detail(name) if what == "changed" else ""
            changes.append(f"input {name} {what}{within and f': {within}'}")
    more = f"; and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return "; ".join(changes[:SHOWN]) + more if changes else "new"


def config_changes(before: Any, after: Any, prefix: str = "") -> list[str]:
    """Return the differences of two configurations as lines "a.b 10 -> 15"."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted({*before, *after})
        lines = [config_changes(before.get(n), after.get(n), f"{prefix}.{n}" if prefix else n) for n in names]
        return [line for group in lines for line in group]
    return [] if before == after else [f"{prefix} {_short(before)} -> {_short(after)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def files_changed(before: Path | None, after: Path | None, given: str | None) -> str:
    """Return which files of a corpus were added, removed and changed, or "".

    Args:
        before: the source output of the last run; None: it is not on this machine.
        after: the source output of this run; None: it is not computed yet.
        given: the user's own source, listed where `after` is None and it is a folder.
    """
    from clepdg.download.folders import listing
    from clepdg.download.source import file_rows
    from clepdg.errors import ClepError

    with contextlib.suppress(ClepError, OSError):
        if before is None:
            return ""
        old = file_rows(before)
        if after is not None:
            return compare_files({f.path: f.sha256 for f in old}, {f.path: f.sha256 for f in file_rows(after)})
        if given is not None and Path(given).is_dir():
            new = {path: (size, mtime) for path, size, mtime in listing(Path(given))}
            return compare_files({file.path: (file.bytes, file.mtime_ns) for file in old}, new)
    return ""


def compare_files(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return "2 added (a.wav, b.wav), 1 removed (c.wav)" of path -> content."""
    groups = {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": sorted(path for path in before.keys() & after.keys() if before[path] != after[path]),
    }
    return ", ".join(
        f"{len(paths)} {what} ({', '.join(paths[:SHOWN])}{', ...' if len(paths) > SHOWN else ''})"
        for what, paths in groups.items()
        if paths
    )


def reached(folder: Path) -> dict[str, int] | None:
    """Return the step, and of how many, of a checkpoint in a folder.

    Only its header is read; None where there is no checkpoint, or a damaged one.
    """
    with (
        contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError),
        (folder / CHECKPOINT).open("rb") as file,
    ):
        size = int.from_bytes(file.read(8), "little")
        facts = json.loads(json.loads(file.read(min(size, 1 << 24)))["__metadata__"]["facts"])
        numbers = {"step": facts["done"], "steps": facts.get("steps")}
        return {name: number for name, number in numbers.items() if type(number) is int and number > 0} or None
    return None
