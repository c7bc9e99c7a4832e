"""Parse the file trees of corpora: one module per grammar of file names."""

from importlib import import_module
from pathlib import Path
from typing import Final

from clepdg.corpora.parsing import Finding, Parser, Utterance, twin
from clepdg.errors import CorpusError

__all__ = ["CORPORA", "Finding", "Parser", "Utterance", "parse"]

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


def parse(grammar: str, root: Path) -> list[Utterance | Finding]:
    """Return the utterances and findings of a corpus's tree.

    No two utterances have one name: the first is kept, the others are findings.

    Raises:
        CorpusError: the tree is not that of the corpus, or one of its tables can't be read.
    """
    try:
        items = list(CORPORA[grammar](root))
    except OSError as error:
        raise CorpusError("A corpus's table can't be read.", got=error.strerror, where=error.filename) from error
    first: dict[str, Utterance] = {}
    return [
        item
        if isinstance(item, Finding) or (kept := first.setdefault(item.name, item)) is item
        else twin(item.path, kept.path)
        for item in items
    ]
