"""Every error that a user can cause or mend.

ClepError
├── ConfigError (also a ValueError)   a setting, preset, stage or corpus name that is not valid
├── SourceError                       a source can't be reached, is not what it claims, or needs a licence
├── CorpusError                       a corpus's tree is not what its card says
├── IndexingError                     utterances that can't be used
├── ShardError                        a shard or its table is broken
├── StoreError                        the store can't be read or written
└── BackboneError                     model weights, tokenizer or front end
"""

from typing import Any, Final

SHOWN_FAULTS: Final = 20


def some(faults: list[str]) -> list[str]:
    """Return the first of many faults for a message, and how many more there are."""
    more = len(faults) - SHOWN_FAULTS
    return faults[:SHOWN_FAULTS] + ([f"and {more} more"] if more > 0 else [])


class ClepError(Exception):
    """Base of all errors of this project: says what, what was got, what was expected, where and what to do.

    Args:
        what: one sentence that stands alone.
        got: the offending value.
        expected: the valid values, or what would have been right.
        where: the file, setting or stage.
        do: what the user can do about it.
    """

    def __init__(
        self, what: str, *, got: Any = None, expected: Any = None, where: Any = None, do: str | None = None
    ) -> None:
        parts = [what]
        for name, value in (("got", got), ("expected", expected), ("where", where), ("do", do)):
            if value is not None:
                text = ", ".join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else str(value)
                parts.append(f"{name}: {text}")
        super().__init__("\n  ".join(parts))


class ConfigError(ClepError, ValueError):
    """A setting, preset, stage or corpus name that is not valid."""


class SourceError(ClepError):
    """A source can't be reached, is not what it claims to be, or needs a licence."""


class CorpusError(ClepError):
    """A corpus's tree is not what its card says."""


class IndexingError(ClepError):
    """A file or an utterance that can't be used as audio."""


class ShardError(ClepError):
    """A shard or its offset table is broken."""


class StoreError(ClepError):
    """The store can't be read or written."""


class StoreAway(StoreError):
    """The store can't be reached: no other stage would fare better."""


class BackboneError(ClepError):
    """Model weights, tokenizer or front end are missing or do not fit together."""
