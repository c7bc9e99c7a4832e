"""Frozen dataclasses whose types and ranges pydantic checks; a value that is not valid raises a ConfigError."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as validated
from pydantic.fields import FieldInfo

from clepdg.errors import ClepError, ConfigError, unknown_name

IF_SET: Final = {"keyed if set": True}  # of fields that keys lack where they are None; clepdg.hashing reads it
STRICT: Final = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # strict: neither "1" nor True is a number
LIMITS: Final = ("gt", "ge", "lt", "le")  # as pydantic names the ends of a range
TYPES: Final = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(**options: Any) -> Callable[[type], type]:
        """Return a decorator that makes a pydantic dataclass.

        An instance with a value that is not valid raises a ConfigError, by dataclasses.replace too.

        Args:
            options: those of dataclasses.dataclass.
        """

        def decorate(kind: type) -> type:
            made = validated(config=STRICT, **options)(kind)
            initialize = made.__init__

            def __init__(self: Any, **values: Any) -> None:
                try:
                    initialize(self, **values)
                except ValidationError as error:
                    raise _explain(made, error.errors(include_url=False)[0], values) from None

            made.__init__ = __init__
            return made

        return decorate


def check(valid: Callable[[Any], bool], expected: str) -> AfterValidator:
    """Return a validator of a value that has the right type.

    Args:
        valid: returns whether the value is valid.
        expected: what is valid, for the message.
    """

    def checked(value: Any) -> Any:
        if not valid(value):
            raise ValueError(expected)
        return value

    return AfterValidator(checked)


def some_of(names: Iterable[str]) -> AfterValidator:
    """Return a validator of names that have to be among the given ones."""
    known = tuple(names)
    return check(lambda values: set(values) <= set(known), f"some of {', '.join(known)}")


def unique(values: tuple[Any, ...]) -> bool:
    """Return whether no value occurs twice."""
    return len(set(values)) == len(values)


def has_fields(template: str, *fields: str) -> bool:
    """Return whether a template has each of these fields once, and no other."""
    braces = template.count("{") == template.count("}") == len(fields)
    return braces and all(template.count(f"{{{field}}}") == 1 for field in fields)


def template(*fields: str) -> AfterValidator:
    """Return a validator of a template that has each of these fields once."""
    expected = " and ".join(f"one {{{field}}}" for field in fields)
    return check(lambda text: has_fields(text, *fields), expected)


emotion_templates = check(
    lambda texts: bool(texts) and all(has_fields(text, "emotion") for text in texts),
    "at least one, each with {emotion}",
)


def are_phrases(texts: tuple[str, ...]) -> bool:
    """Return whether all texts can be put into templates."""
    return bool(texts) and all(text.strip() and not {*"{}"} & {*text} for text in texts)


def are_seeds(*numbers: int) -> bool:
    """Return whether all numbers are seeds for numpy and torch."""
    return bool(numbers) and unique(numbers) and all(0 <= number < 1 << 63 for number in numbers)


_SEEDS: Final = "whole numbers from 0 to below 2^63, none twice"
MOST: Final = 1_000_000_000  # of steps, utterances and such: a larger number is a slip
AtLeast0 = Annotated[int, Field(ge=0, le=MOST)]
AtLeast1 = Annotated[int, Field(ge=1, le=MOST)]
AtLeast2 = Annotated[int, Field(ge=2, le=MOST)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, check(bool, "a name or a folder")]
_TUPLE: Final = BeforeValidator(lambda values: tuple(values) if isinstance(values, list) else values)
Texts = Annotated[tuple[str, ...], _TUPLE]
Phrases = Annotated[Texts, check(are_phrases, "at least one, none empty or with braces")]
Seed = Annotated[int, check(are_seeds, _SEEDS)]
Seeds = Annotated[tuple[int, ...], _TUPLE, check(lambda numbers: are_seeds(*numbers), _SEEDS)]


def dotted(kind: type, name: str) -> str:
    """Return a setting's dotted name, such as "clep.epochs"."""
    section = kind.__name__.removesuffix("Config").lower()
    return f"{section}.{name}" if section else name


def unknown(name: str, valid: tuple[str, ...]) -> ConfigError:
    """Return the error of an unknown setting, with the nearest valid one."""
    return unknown_name("setting", name, valid, "docs/reference.md#settings-of-a-run")


def out_of_range(kind: type, name: str, value: Any, expected: str) -> ConfigError:
    """Return the error of a setting whose value is out of range."""
    return ConfigError("A setting is out of range.", got=repr(value), expected=expected, where=dotted(kind, name))


def _explain(kind: type, fault: Mapping[str, Any], values: Mapping[str, Any]) -> ClepError:
    """Convert one of pydantic's errors to ours."""
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, ClepError):  # of __post_init__
        return cause
    name, hints = str(fault["loc"][0]), get_type_hints(kind, include_extras=True)
    if fault["type"] == "unexpected_keyword_argument":
        return unknown(dotted(kind, name), tuple(dotted(kind, known) for known in hints))
    if fault["type"] == "missing":
        return ConfigError("A setting is missing.", where=dotted(kind, name))
    if cause is not None:  # of `check`
        return out_of_range(kind, name, values[name], str(cause))
    if fault["type"] == "finite_number":
        return out_of_range(kind, name, values[name], "a finite number")
    if {*LIMITS} & {*fault.get("ctx", {})}:
        return out_of_range(kind, name, values[name], _range(hints[name]))
    return ConfigError(
        "A setting has the wrong type or value.",
        got=repr(fault["input"]),
        expected=_type(hints[name], item=len(fault["loc"]) > 1),
        where=dotted(kind, name),
    )


def _range(hint: Any) -> str:
    """Return the range of a field's type in words."""
    none = ", or none" if type(None) in get_args(hint) else ""
    match dict(_limits(hint)):
        case {"ge": low, "le": high}:
            return f"{low} to {high}{none}"
        case {"ge": low, "lt": high}:
            return f"from {low} to below {high}{none}"
        case {"gt": low, "lt": high}:
            return f"between {low} and {high}{none}"
        case {"gt": low}:
            return f"above {low}{none}"
        case {"ge": low}:
            return (f"at least {low}" if low else "0 or more") + none
    raise AssertionError(hint)


def _limits(hint: Any) -> Iterator[tuple[str, float]]:
    """Yield the limits in a field's type: ("ge", 0), ("lt", 1)."""
    for part in get_args(hint):
        if isinstance(part, FieldInfo):
            yield from ((end, getattr(limit, end)) for limit in part.metadata for end in LIMITS if hasattr(limit, end))
        else:
            yield from _limits(part)


def _type(hint: Any, *, item: bool = False) -> str:
    """Return a field's type in words.

    Args:
        item: return the type of one item of a list.
    """
    if get_origin(hint) is Annotated:
        return _type(get_args(hint)[0], item=item)
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is tuple:
        one = _type(get_args(hint)[0])
        return one if item else f"a list of {one.removeprefix('a ')}s"
    if type(None) in get_args(hint):
        return f"{_type(get_args(hint)[0], item=item)}, or none"
    return TYPES.get(hint, getattr(hint, "__name__", str(hint)))


def items_of(text: str) -> list[Any]:
    """Return the items of a list: with commas between them, or in JSON."""
    if text.startswith("["):
        with contextlib.suppress(ValueError):
            return list(json.loads(text))
    return [*text.split(",")]
