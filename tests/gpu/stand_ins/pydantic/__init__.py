"""Stand in for pydantic where it is not installed: settings are plain dataclasses, unchecked."""

from typing import Any


class ValidationError(ValueError):
    """Never raised."""


class ConfigDict(dict[str, Any]):
    """Settings of a class, unused."""


class Field:
    """A range, unused."""

    def __init__(self, *args: Any, **limits: Any) -> None: ...


class AfterValidator:
    """A check of a value, unused."""

    def __init__(self, function: Any) -> None: ...


BeforeValidator = AfterValidator
