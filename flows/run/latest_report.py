"""Keep the newest report under a short path: report.html in the home folder, its files in report/ beside it."""

import filecmp
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from clepdg.redaction import scrub
from clepdg.report.sections.reproduce import fill_run
from clepdg.store.record import MARKER as RECORD
from clepdg_tasks.engine.run_history import RunLog, as_command, split_id
from clepdg_tasks.tracking.lineage import git_commit
from clepdg_tasks.tracking.marker import MARKER

log = logging.getLogger("clepdg")

PAGE: Final = "report.html"
FOLDER: Final = "report"
LINK: Final = re.compile(r'href="([^"#:]+)"')  # starts with its text, which is found fast in a page of megabytes


def run_facts(run: RunLog, started: float) -> dict[str, Any]:
    """Return what a run did, for its copy of the page.

    Args:
        started: seconds since the epoch.
    """
    stages: dict[str, dict[str, Any]] = {}
    for node_id, facts in run.stages.items():
        counts = stages.setdefault(split_id(node_id)[0], {"computed": 0, "reused": 0, "why": {}})
        counts["reused" if facts["outcome"] == "Reused" else "computed"] += 1
        if facts["outcome"] != "Reused":
            why = str(facts.get("reason", "")).partition("\n")[0]
            counts["why"][why] = counts["why"].get(why, 0) + 1
    ended = time.time()
    found = {
        "run": run.path.stem,
        "command": as_command(run.arguments),
        "commit": git_commit(),
        "started": _utc(started),
        "ended": _utc(ended),
        "seconds": round(ended - started, 1),
        "cpu_seconds": round(sum(os.times()[:4]), 1),
        "stages": stages,
    }
    scrubbed: dict[str, Any] = _scrubbed(found)
    return scrubbed


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _scrubbed(value: Any) -> Any:
    """Return texts, and those within mappings, without secrets."""
    if isinstance(value, Mapping):
        return {scrub(name): _scrubbed(each) for name, each in value.items()}
    return scrub(value) if isinstance(value, str) else value


def publish(folder: Path, home: Path, facts: Mapping[str, Any]) -> None:
    """Copy a report's page and files into the home folder.

    Each file is replaced at once, the page as the last. Links of the page to its files lead into their folder.

    Args:
        folder: the output of stage report.
        facts: as `run_facts`.
    """
    try:
        with FileLock(home / f"{FOLDER}.lock"):
            names = [
                path.relative_to(folder)
                for path in sorted(folder.rglob("*"))
                if path.is_file() and path.name not in (RECORD, MARKER, PAGE)
            ]
            for name in names:
                _replace(folder / name, home / FOLDER / name)
            inside = {name.as_posix() for name in names}
            page = fill_run((folder / PAGE).read_text(encoding="utf-8"), facts)
            page = LINK.sub(lambda found: f'href="{FOLDER}/{found[1]}"' if found[1] in inside else found[0], page)
            partial = home / f".{PAGE}.partial"
            partial.write_text(page, encoding="utf-8")
            partial.replace(home / PAGE)
            for path in sorted((home / FOLDER).rglob("*")):
                if path.is_file() and path.relative_to(home / FOLDER) not in names:
                    path.unlink()
    except OSError as error:
        log.warning("The report can't be copied to %s: %s", home / PAGE, error)


def _replace(source: Path, target: Path) -> None:
    if target.exists() and filecmp.cmp(source, target):  # of the same size and time
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copy2(source, partial)
    partial.replace(target)
