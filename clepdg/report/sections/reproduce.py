"""The report's section on how to repeat its run."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from clepdg.report.section import Section, render
from clepdg.report.tables import cut

if TYPE_CHECKING:
    from clepdg.store.record import Record

RUN: Final = '<script type="application/json" id="run">'  # an element that a run fills in its own copy of the page
END: Final = "</script>"
DIGITS: Final = 12  # of a key or digest
LINE: Final = 90  # characters of a command


def reproduce(
    command: str, settings: Mapping[str, Sequence[str]], digests: Mapping[str, str], *, partial: Sequence[str] = ()
) -> Section:
    """Return the section.

    Args:
        command: that asks for the same configuration.
        settings: name -> its value, and the preset's where it differs.
        digests: output -> its content digest, of what the report is made of.
        partial: corpora that are not whole, which the command has to allow.
    """
    return Section(
        id="reproduce",
        title="How to reproduce",
        html=render(
            "reproduce",
            command=in_lines(command + " --allow-partial" * bool(partial)),
            partial=partial,
            changed={
                name: [(cut(value), value) for value in values] for name, values in settings.items() if len(values) > 1
            },
            settings={name: values[0] for name, values in settings.items()},
            digests={name: digest[:DIGITS] for name, digest in sorted(digests.items())},
        ),
    )


def in_lines(command: str) -> str:
    """Return a long command with an option in each line, for a shell."""
    lines = [list[str]()]
    for word in shlex.split(command):
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return command if len(command) <= LINE else " \\\n  ".join(map(shlex.join, lines))


def fill_run(html: str, facts: Mapping[str, Any]) -> str:
    """Fill in what one run did, in its own copy of the page.

    The page in the store says nothing of a single run, since other runs reuse it. Its script shows these facts.

    Args:
        html: the page; one without the element comes back as it is.
        facts: any of "run" its name, "command" as it was given, "commit" of the checkout, "started" and "ended" as
            text, "seconds" and "cpu_seconds" of the run, "stages": stage -> {"computed": count,
            "reused": count, "why": reason -> count}, and `record_facts`. They hold no secrets: `redaction.scrub` them
            before.
    """
    before, element, after = html.partition(RUN)
    _, end, rest = after.partition(END)
    if not end:
        return html
    return before + element + json.dumps(facts, allow_nan=False).replace("<", "\\u003c") + end + rest


def record_facts(records: Iterable["Record"]) -> dict[str, Any]:
    """Return what the outputs of a run took when they were computed.

    Returns:
        "costs": stage -> number of outputs, sums of wall and CPU seconds, the number of outputs whose CPU seconds are
        recorded, devices, and the highest memory of a GPU in bytes; "libraries": name -> versions; "outputs": lines of
        id, key, content digest, wall seconds, CPU seconds, device. None and "": not recorded.
    """
    costs: dict[str, dict[str, Any]] = {}
    libraries: dict[str, set[str]] = {}
    outputs = list[list[Any]]()
    for record in records:
        own = costs.setdefault(
            record.stage,
            {"outputs": 0, "seconds": 0.0, "cpu_seconds": 0.0, "measured": 0, "devices": [], "peak_bytes": None},
        )
        own["outputs"] += 1
        own["seconds"] = round(own["seconds"] + record.seconds, 3)
        if record.cpu_seconds is not None:
            own["cpu_seconds"] = round(own["cpu_seconds"] + record.cpu_seconds, 3)
            own["measured"] += 1
        if record.device and record.device not in own["devices"]:
            own["devices"].append(record.device)
        if record.peak_bytes is not None:
            own["peak_bytes"] = max(own["peak_bytes"] or 0, record.peak_bytes)
        for name, version in record.versions.items():
            libraries.setdefault(name, set()).add(version)
        digest = record.digests["content"][:DIGITS]
        name = f"{record.stage}/{record.name}"
        outputs.append([name, record.key[:DIGITS], digest, record.seconds, record.cpu_seconds, record.device])
    return {
        "costs": costs,
        "libraries": {name: sorted(found) for name, found in sorted(libraries.items())},
        "outputs": outputs,
    }
