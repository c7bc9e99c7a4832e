"""Folds and rows: who is trained on what, and which methods are compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from clepdg.errors import ConfigError

SUPERVISED: Final = "supervised"
LEAVE_OUT: Final = "leave-out-"  # and the corpus


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One training on source corpora (their train and validation parts) and its target corpora.

    In `supervised` every corpus is source and target, and its test part is evaluated. In leave-out-<corpus> the target
    is seen by the evaluation alone: its test part is the headline, the whole corpus a second column.
    """

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]


def folds(corpora: tuple[str, ...], protocols: tuple[str, ...], only: tuple[str, ...] | None = None) -> list[Fold]:
    """Return the folds of a run: supervised first, then one per corpus left out.

    Args:
        only: names of the folds that are wanted; None: all.

    Raises:
        ConfigError: a fold of `only` does not exist, or leaving out is asked for with fewer than two corpora.
    """
    found: list[Fold] = []
    if "supervised" in protocols:
        found.append(Fold(name=SUPERVISED, sources=corpora, targets=corpora))
    if "leave-one-corpus-out" in protocols:
        if len(corpora) < 2:
            raise ConfigError(
                "Leave-one-corpus-out needs at least two corpora.",
                got=corpora,
                do="add a corpus, or set protocols=supervised",
            )
        for target in corpora:
            sources = tuple(corpus for corpus in corpora if corpus != target)
            found.append(Fold(name=LEAVE_OUT + target, sources=sources, targets=(target,)))
    if only is not None:
        unknown = sorted(set(only) - {fold.name for fold in found})
        if unknown:
            raise ConfigError("There is no such fold.", got=unknown, expected=[fold.name for fold in found])
        found = [fold for fold in found if fold.name in only]
    return found


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method of the results table.

    Attributes:
        model: whose audio embeddings it is applied to.
        head: how it is learnt: counting labels, logistic regression on audio, class prompts, or trained on text.
        contexts: which contexts its text embeddings hold.
        centring: whether class and audio means are subtracted.
    """

    title: str
    model: Literal["log-mel", "backbone", "clep"]
    head: Literal["majority", "logistic", "prompts", "text"]
    contexts: Literal["none", "random", "hand-written", "acpt"] = "none"
    centring: bool = False


ROWS: Final[Mapping[str, Row]] = {
    "majority": Row(title="majority", model="log-mel", head="majority"),
    "log-mel": Row(title="floor: log-mel statistics + logistic regression", model="log-mel", head="logistic"),
    "clap-zero-shot": Row(title="CLAP zero-shot", model="backbone", head="prompts"),
    "clep-zero-shot": Row(title="CLEP zero-shot", model="clep", head="prompts"),
    "clep-zero-shot-centred": Row(title="CLEP zero-shot, centred", model="clep", head="prompts", centring=True),
    "clep-probe": Row(title="linear probe on CLEP audio", model="clep", head="logistic"),
    "text-none": Row(title="text classifier, no contexts", model="clep", head="text", centring=True),
    "text-random": Row(
        title="text classifier, random contexts", model="clep", head="text", contexts="random", centring=True
    ),
    "text-hand-written": Row(
        title="text classifier, hand-written contexts",
        model="clep",
        head="text",
        contexts="hand-written",
        centring=True,
    ),
    "text-acpt": Row(title="text classifier, ACPT contexts", model="clep", head="text", contexts="acpt", centring=True),
}
MAIN_ROW: Final = "text-acpt"


def rows(names: tuple[str, ...] | None) -> dict[str, Row]:
    """Return the wanted rows in the table's order.

    Raises:
        ConfigError: a row does not exist.
    """
    unknown = sorted(set(names or ()) - set(ROWS))
    if unknown:
        raise ConfigError("There is no such row.", got=unknown, expected=tuple(ROWS))
    return {name: row for name, row in ROWS.items() if names is None or name in names}
