"""Parse the file trees of corpora: one module per grammar of file names."""

from importlib import import_module
from typing import Final

from clepdg.corpora.parsing import Finding, Parser, Utterance

__all__ = ["CORPORA", "Finding", "Parser", "Utterance"]

_GRAMMARS: Final = (  # modules here; a card names its grammar, so several cards may share one
    "ravdess",
    "crema-d",
    "tess",
    "emodb",
    "meld",
    "iemocap",
    "msp-podcast",
    "savee",
    "esd",
    "table",
)
CORPORA: Final[dict[str, Parser]] = {
    name: import_module(f"{__name__}.{name.replace('-', '_')}").utterances for name in _GRAMMARS
}
