"""Prefect's server, for `make up` and for one run."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

from prefect.server.api import deployments, server
from prefect.utilities.schema_tools.validation import ValidationError
from starlette.middleware.trustedhost import TrustedHostMiddleware

from clepdg.errors import nearest

SHORT: Final = 12  # valid names that are listed in any case
NEW: Final = "A corpus that was added later is known after: clep-dg deploy"


def create_app() -> Any:
    """Return Prefect's server, which refuses requests for another host.

    It refuses a misspelt parameter with the nearest valid name.
    """
    deployments.validate = explaining(deployments.validate)  # type: ignore[attr-defined]
    return TrustedHostMiddleware(server.create_app(), allowed_hosts=["127.0.0.1", "localhost"])


def explaining(validate: Callable[..., Any]) -> Callable[..., Any]:
    """Return a check of parameters whose errors give the nearest valid name."""

    @functools.wraps(validate)
    def check(*given: Any, **options: Any) -> Any:
        try:
            return validate(*given, **options)
        except ValidationError as error:
            message = next(_messages(error.__cause__), None)
            if message is None:
                raise
            raise ValidationError(message) from error.__cause__

    return check


def _messages(error: Any) -> Iterator[str]:
    """Yield a message for each misspelt name among the causes of a fault."""
    for leaf in _leaves(error):
        valid = _valid_names(leaf)
        names = sorted({*leaf.instance} - {*valid}) if leaf.validator == "additionalProperties" else [leaf.instance]
        for name in names if valid else ():
            near = nearest(str(name), valid)
            which = f"{len(valid)} valid names" if len(valid) > SHORT else str(valid)
            said = [f"Did you mean {near[0]!r}?"] if near else []
            where = leaf.json_path.removeprefix("$.").removeprefix("$") or "parameters"
            said += [NEW] if where.partition("[")[0] in ("corpora", "sources", "folds") else []
            yield " ".join([f"{where}: {name!r} is not one of {which}.", *said])


def _leaves(error: Any) -> Iterator[Any]:
    """Yield the faults that a fault of jsonschema consists of, and itself."""
    for child in getattr(error, "context", None) or ():
        yield from _leaves(child)
    if error is not None:
        yield error


def _valid_names(error: Any) -> list[str]:
    """Return the names that a schema's rule allows; [] for other rules."""
    if error.validator == "enum":
        return [str(name) for name in error.validator_value]
    if error.validator == "pattern":
        return list(error.schema.get("examples", ()))
    return list(error.schema.get("properties", ())) if error.validator == "additionalProperties" else []
