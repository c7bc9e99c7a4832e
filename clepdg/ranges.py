"""Which values settings may have: one error that names the setting, what it is and what it may be."""

import math

from clepdg.errors import ConfigError

Check = tuple[bool, str]  # is it valid; what would be


def require(owner: object, **checks: Check) -> None:
    """Check a dataclass of settings.

    Args:
        checks: setting -> whether its value is valid, and what would be.

    Raises:
        ConfigError: one is not, or is no finite number.
    """
    section = type(owner).__name__.removesuffix("Config").lower()
    for name, value in vars(owner).items():
        finite = not isinstance(value, float) or math.isfinite(value)
        valid, expected = checks.get(name, (True, "")) if finite else (False, "a finite number")
        if not valid:
            raise ConfigError(
                "A setting is out of range.",
                got=repr(value),
                expected=expected,
                where=f"{section}.{name}" if section else name,
            )


def seeds(given: tuple[int, ...]) -> Check:
    """Return whether these can be seeds of numpy's and torch's generators."""
    valid = bool(given) and len(set(given)) == len(given) and all(0 <= seed < 1 << 63 for seed in given)
    return valid, "whole numbers from 0 to below 2^63, none twice"


def phrases(given: tuple[str, ...]) -> Check:
    """Return whether these are phrases, to be put into templates."""
    valid = bool(given) and all(phrase.strip() and not {*"{}"} & {*phrase} for phrase in given)
    return valid, "at least one, none empty or with braces"


def holds(template: str, *fields: str) -> bool:
    """Tell whether a template has each of these fields once, and no other."""
    braces = template.count("{") == template.count("}") == len(fields)
    return braces and all(template.count(f"{{{field}}}") == 1 for field in fields)
