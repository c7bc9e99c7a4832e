"""Errors that a user can cause or fix.

ClepError
├── ConfigError (also a ValueError)   a setting, preset, stage or corpus name that is not valid
├── SourceError                       a source can't be reached, is not what it claims, or needs a licence
├── CorpusError                       a corpus's tree is not what its card says
├── IndexingError                     utterances that can't be used
├── ShardError                        a shard or its table is broken
├── StoreError                        the store can't be read or written
│   └── StoreAway                     the store can't be reached
└── BackboneError                     model weights, tokenizer or front end
"""

import difflib
from collections.abc import Iterable
from copy import copy
from pathlib import Path
from typing import Any, Final, Self

from clepdg.redaction import scrub

SHOWN_FAULTS: Final = 20
SHORT_LIST: Final = 12  # at most as many valid names are listed in any case
HAS_DOCS: Final = (Path(__file__).resolve().parents[1] / "docs" / "method.md").is_file()  # a wheel has no docs/


def some(faults: list[str]) -> list[str]:
    """Return the first faults for a message, and how many more there are."""
    more = len(faults) - SHOWN_FAULTS
    return faults[:SHOWN_FAULTS] + ([f"and {more} more"] if more > 0 else [])


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: "1 file", "2 files"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _texts(value: Any) -> str | tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(scrub(str(each)) for each in value)
    return scrub(str(value))


def _shown(value: str | tuple[str, ...]) -> str:
    """Return a field's value as text.

    Several values stand in one line, or one a line if one of them holds a comma.
    """
    if isinstance(value, str):
        return f" {value}"
    if len(value) > 1 and any("," in each or "\n" in each for each in value):
        return "".join(f"\n    {each}" for each in value)
    return f" {', '.join(value)}"


class ClepError(Exception):
    """Base of this project's errors, without secrets in any of its texts.

    Args:
        what: one sentence that stands alone.
        got: the offending value, or a list of them.
        expected: the valid values, or what would have been right.
        where: the file, setting or stage.
        do: what the user can do about it.
        children: the faults that it consists of, each an error or its text.
        away: whether a server, the network or a store did not answer: the same may succeed later. Where it is not
            said, all children decide.
    """

    def __init__(
        self,
        what: str,
        *,
        got: Any = None,
        expected: Any = None,
        where: Any = None,
        do: str | None = None,
        children: Iterable["ClepError | str"] = (),
        away: bool = False,
    ) -> None:
        what = scrub(what)
        super().__init__(what)
        self.what, self.do = what, None if do is None else scrub(do)
        self.got, self.expected, self.where = _texts(got), _texts(expected), _texts(where)  # texts can be pickled
        self.children = [child if isinstance(child, ClepError) else ClepError(child) for child in children]
        self.away: bool = away or (bool(self.children) and all(child.away for child in self.children))

    def __str__(self) -> str:
        """Return the sentence, then the fields and the children, one a line."""
        return self._text(do=True)

    @property
    def reason(self) -> str:
        """Return the text in one line, without what to do."""
        return " ".join(self._text(do=False).split())

    def labelled(self, label: str) -> Self:
        """Return a copy whose sentence begins with a label: "ravdess: ..."."""
        error = copy(self)
        error.what = f"{label}: {self.what}"
        error.args = (error.what,)
        return error

    def _text(self, *, do: bool) -> str:
        fields = {"got": self.got, "expected": self.expected, "where": self.where, "do": self.do if do else None}
        lines = [f"  {name}:{_shown(value)}" for name, value in fields.items() if value is not None]
        children = [child._text(do=do).replace("\n- ", "\n  - ") for child in self.children]
        return "\n".join([self.what, *lines, *(f"- {child}" for child in children)])


class ConfigError(ClepError, ValueError):
    """A setting, preset, stage or corpus name that is not valid."""


class SourceError(ClepError):
    """A source can't be reached, is not as declared, or needs a licence."""


class CorpusError(ClepError):
    """A corpus's tree is not what its card says."""


class IndexingError(ClepError):
    """A file or an utterance that can't be used as audio."""


class ShardError(ClepError):
    """A shard or its offset table is broken."""


class StoreError(ClepError):
    """The store can't be read or written."""


class StoreAway(StoreError):
    """The store can't be reached: every other stage would fail too."""

    def __init__(self, what: str, **fields: Any) -> None:
        super().__init__(what, **{"away": True, **fields})


class BackboneError(ClepError):
    """Model weights, tokenizer or front end are missing or do not fit."""


def unknown_name(
    kind: str, got: str | Iterable[str], valid: Iterable[str], listed: str, *, where: Any = None
) -> ConfigError:
    """Return the error of names that don't exist, with the nearest valid ones.

    All valid ones are listed only where they are few, none is near, or no page is at hand that lists them.

    Args:
        kind: what they name, such as "setting".
        got: one name or several.
        listed: where a user finds all valid ones.
        where: as in ClepError.
    """
    wrong, known = [got] if isinstance(got, str) else list(got), list(valid)
    near = list(dict.fromkeys(name for each in wrong for name in nearest(each, known)))
    expected = known if known and (len(known) <= SHORT_LIST or not near or not HAS_DOCS) else None
    do = f"see {listed}" if HAS_DOCS else None
    if near:
        do = f"did you mean {' or '.join(near)}?" + (f" {listed} lists all" if HAS_DOCS and not expected else "")
    return ConfigError(
        f"There is no such {kind}.", got=got if isinstance(got, str) else wrong, expected=expected, where=where, do=do
    )


def nearest(name: str, valid: Iterable[str]) -> list[str]:
    """Return the valid names that a misspelt one is most like, or [].

    Letters' cases count as equal; several names come back only where they are equally near.
    """
    lower = {each.lower(): each for each in valid}

    def alike(other: str) -> float:
        return difflib.SequenceMatcher(None, other, name.lower()).ratio()

    close = difflib.get_close_matches(name.lower(), lower, n=3)
    return [lower[each] for each in close if alike(each) == alike(close[0])]
