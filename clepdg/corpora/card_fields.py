"""Validate the fields of a card: names and types."""

import typing
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from clepdg.errors import ConfigError


def part_of(kind: type[Any], raw: Any, name: str, path: Path) -> Any:
    """Build a part of a card; lists become tuples.

    Raises:
        ConfigError: a field is unknown, missing or of the wrong type.
    """
    if not isinstance(raw, dict):
        raise wrong_type(name.strip("[]"), raw, f"a table {name}", path)
    known = {each.name: each for each in fields(kind) if each.name != "recorded"}
    needed = {key for key, each in known.items() if each.default is MISSING and each.default_factory is MISSING}
    faults = [f"{key} is not known" for key in raw if key not in known]
    faults += [f"{key} is missing" for key in known if key in needed - set(raw)]
    if faults:
        got = f"{name} {', '.join(faults)}".strip()
        raise ConfigError("A card has an unknown or a missing field.", got=got, expected=tuple(known), where=path)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    for key, hint in typing.get_type_hints(kind).items():
        if key in values and not _fits(values[key], hint):  # a string in place of a list would become its letters
            raise wrong_type(f"{name} {key}".strip(), raw[key], _in_words(hint), path)
    return kind(**values)


def wrong_type(name: str, value: Any, expected: str, path: Path) -> ConfigError:
    """Return the error for a field of the wrong type."""
    return ConfigError("A card's field has the wrong type.", got=f"{name} = {value!r}", expected=expected, where=path)


def _in_words(hint: Any) -> str:
    """Return a field's type in words."""
    kind, inner = typing.get_origin(hint), [each for each in typing.get_args(hint) if each is not NoneType]
    if kind is Literal:
        return " or ".join(f'"{value}"' for value in inner)
    if kind is tuple:
        return "a list of texts"
    if kind is dict:
        return f"a table whose values are each {_in_words(inner[1])}"
    if inner:  # an optional one
        return _in_words(inner[0])
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "a table")


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of its field's type."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind is Literal:
        return value in inner
    if kind is tuple:
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if kind is dict:
        return isinstance(value, dict) and all(_fits(item, inner[1]) for item in value.values())
    if inner:  # one of several
        return any(_fits(value, option) for option in inner)
    return type(value) in ((int, float) if hint is float else (hint,))
