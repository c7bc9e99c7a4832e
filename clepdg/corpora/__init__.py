"""Corpora: what a tree of files says about its utterances. One file per grammar of file names."""

from typing import Final

from clepdg.corpora import crema_d, emodb, esd, iemocap, meld, msp_podcast, ravdess, savee, table, tess
from clepdg.corpora.grammar import Finding, Parser, Spoken

__all__ = ["CORPORA", "Finding", "Parser", "Spoken"]

# grammar -> parser; a card names its grammar, so that several corpora may share one
CORPORA: Final[dict[str, Parser]] = {
    "ravdess": ravdess.utterances,
    "crema-d": crema_d.utterances,
    "tess": tess.utterances,
    "emodb": emodb.utterances,
    "meld": meld.utterances,
    "iemocap": iemocap.utterances,
    "msp-podcast": msp_podcast.utterances,
    "savee": savee.utterances,
    "esd": esd.utterances,
    "table": table.utterances,
}
