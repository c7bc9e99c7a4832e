"""CLEP-DG: what is computed. A pure library: no orchestrator, no tracker, no environment, no socket when imported.

`import clepdg` offers the functions of clepdg.api; each loads what it needs when it is called.
"""

import importlib
from typing import Any

__all__ = [
    "fit_classifier",
    "fit_clep",
    "learn_contexts",
    "load_clap",
    "load_classifier",
    "load_corpus",
    "results",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("clepdg.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the module's names, with the functions not yet loaded."""
    return sorted({*globals(), *__all__})
