"""Corpora: what a tree of files says about its utterances. One file per grammar of file names."""

from typing import Final

from clepdg.corpora import crema_d, emodb, ravdess, tess
from clepdg.corpora.grammar import Finding, Parser, Spoken

__all__ = ["CORPORA", "Finding", "Parser", "Spoken"]

# grammar -> parser; a card names its grammar, so that several corpora may share one
CORPORA: Final[dict[str, Parser]] = {
    "ravdess": ravdess.utterances,
    "tess": tess.utterances,
    "emodb": emodb.utterances,
    "crema-d": crema_d.utterances,
}
