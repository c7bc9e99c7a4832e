"""Folds of an evaluation: the source corpora of a training and its target corpora."""

from dataclasses import dataclass
from itertools import permutations
from typing import Final

from clepdg.config.schema import PROTOCOLS
from clepdg.errors import ConfigError, unknown_name

SUPERVISED: Final = "supervised"
LEAVE_OUT: Final = "leave-out-"  # followed by the corpus
PAIR: Final = "from-"  # followed by SOURCE-to-TARGET
KINDS: Final = (SUPERVISED, LEAVE_OUT, PAIR)  # of folds, by how their names begin


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Source corpora of one training, and the targets it is evaluated on.

    Training uses the train and validation parts of the sources. In `supervised` every corpus is source and target, and
    its test part is evaluated. In leave-out-<corpus> only the evaluation sees the target, the whole corpus.
    from-<a>-to-<b> trains on one corpus and is evaluated on another; its models are the same for every target.
    """

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]


def kind(fold: str) -> str:
    """Return which of KINDS a fold's name is of; LEAVE_OUT if unknown."""
    return next((begin for begin in KINDS if fold.startswith(begin)), LEAVE_OUT)


def pair(source: str, target: str) -> str:
    """Return the name of the fold from one corpus to another."""
    return f"{PAIR}{source}-to-{target}"


def order(fold: str) -> tuple[int, str]:
    """Return the sort key of a fold's name: its kind, then the name."""
    return (KINDS.index(kind(fold)), fold)


def folds(corpora: tuple[str, ...], protocols: tuple[str, ...], only: tuple[str, ...] | None = None) -> list[Fold]:
    """Return the folds of a run: supervised, leave-one-out, then pairs.

    Args:
        only: names of the wanted folds; None: all.

    Raises:
        ConfigError: a fold of `only` does not exist, or a protocol needs at least two corpora.
    """
    supervised, leave_out, pairs = PROTOCOLS
    found: list[Fold] = []
    if supervised in protocols:
        found.append(Fold(name=SUPERVISED, sources=corpora, targets=corpora))
    if len(corpora) < 2 and {leave_out, pairs} & set(protocols):
        raise ConfigError(
            "Leaving a corpus out needs at least two corpora, and so do pairs.",
            got=corpora,
            do="add a corpus, or set protocols=supervised",
        )
    if leave_out in protocols:
        for target in corpora:
            sources = tuple(corpus for corpus in corpora if corpus != target)
            found.append(Fold(name=LEAVE_OUT + target, sources=sources, targets=(target,)))
    if pairs in protocols:
        for source, target in permutations(corpora, 2):
            found.append(Fold(name=pair(source, target), sources=(source,), targets=(target,)))
    if only is not None:
        unknown = sorted(set(only) - {fold.name for fold in found})
        if unknown:
            raise unknown_name("fold", unknown, [fold.name for fold in found], "docs/method.md#folds")
        found = [fold for fold in found if fold.name in only]
    return found
