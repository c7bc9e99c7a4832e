"""Stand in for pydantic.dataclasses."""

import dataclasses
from typing import Any


def dataclass(*, config: Any = None, **options: Any) -> Any:
    """Return the decorator of the standard library."""
    return dataclasses.dataclass(**options)
