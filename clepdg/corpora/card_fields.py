"""Build a card from its TOML: pydantic checks its fields, each fault is a line of one error."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from clepdg.errors import ClepError, ConfigError, nearest


def build(kind: type[Any], raw: Mapping[str, Any], path: Path) -> Any:
    """Return a card of this dataclass.

    Raises:
        ConfigError: fields are unknown, missing, of the wrong type or out of range; one error names all.
    """
    text = json.dumps(raw, default=lambda date: {"date": str(date)})  # TOML's other types are JSON's
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        faults = [_explain(kind, fault) for fault in error.errors(include_url=False)]
        raise ConfigError("A card is not valid.", where=path, children=faults) from None


def _explain(kind: type[Any], fault: Mapping[str, Any]) -> ClepError | str:
    """Return a line about one of pydantic's faults."""
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, ClepError):  # of __post_init__
        return cause
    *tables, last = [part for part in fault["loc"] if isinstance(part, str)]
    name = ".".join([*tables, last])
    if fault["type"] == "missing":
        return f"{name} is missing"
    if fault["type"] == "unexpected_keyword_argument":
        for table in tables:
            hint = get_type_hints(kind)[table]
            kind = next(iter(get_args(hint)), hint)  # of the tables in a list, one
        known = [field.name for field in fields(kind)]
        near = nearest(last, known)
        return f"{name} is not known: " + (f"did you mean {' or '.join(near)}?" if near else f"not in {known}")
    expected = f"should be {cause}" if cause else fault["msg"].removeprefix("Input ").replace("an object", "a table")
    return f"{name} = {fault['input']!r}: {expected}"
