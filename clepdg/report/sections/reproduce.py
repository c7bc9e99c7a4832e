"""The report's section on how to repeat its run."""

import json
from collections.abc import Mapping
from typing import Any, Final

RUN: Final = '<script type="application/json" id="run">'  # an element that a run fills in its own copy of the page
END: Final = "</script>"


def fill_run(html: str, facts: Mapping[str, Any]) -> str:
    """Fill in what one run did, in its own copy of the page.

    The page in the store says nothing of a single run, since other runs reuse it. Its script shows these facts.

    Args:
        html: the page; one without the element comes back as it is.
        facts: any of "run" its name, "command" as it was given, "commit" of the checkout, "ended" when, as text,
            "seconds" of wall time, and "stages": stage -> {"computed": count, "reused": count}. They hold no secrets:
            `redaction.scrub` them before.
    """
    before, element, after = html.partition(RUN)
    _, end, rest = after.partition(END)
    if not end:
        return html
    return before + element + json.dumps(facts, allow_nan=False).replace("<", "\\u003c") + end + rest
