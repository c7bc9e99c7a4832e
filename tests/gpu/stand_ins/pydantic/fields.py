"""Stand in for pydantic.fields."""

from pydantic import Field as FieldInfo  # noqa: F401
