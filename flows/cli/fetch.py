"""clep-dg fetch: bring corpora into a folder that a machine without a network takes as its sources.

With --check it asks their addresses whether they still have what the cards say, and downloads nothing.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from clepdg.config.presets import PRESETS
from clepdg.corpora import CORPORA
from clepdg.corpora.cards import load_card
from clepdg.corpora.parsing import Finding, Utterance
from clepdg.download import fetch as fetching
from clepdg.download import source
from clepdg.download.check import cards as card_check
from clepdg.download.check import models
from clepdg.download.check.jobs import Checked, Job, run_jobs
from clepdg.download.urls import manual_download
from clepdg.errors import ClepError, ConfigError, CorpusError, SourceError
from clepdg.hashing import write_json
from flows.cli.terminal import bar
from tasks.host.settings import Settings

SOURCE: Final = ".source.json"
# What `clep-dg fetch --check` asks beside corpora, where none are named
CHECKS: list[Callable[[], list[Job]]] = [models.jobs]

log = logging.getLogger("clepdg")


def fetch(corpora: Sequence[str], given: Mapping[str, str], folder: Path, settings: Settings) -> list[str]:
    """Bring corpora into folder/<corpus>, its checksums into <corpus>.sha256 and its source into <corpus>.source.json.

    A corpus gets its name when it is whole; what broke off goes on at the next call. One that can't be had does not
    keep the others from coming. What came is looked at by its files' names: none of the corpus is an error, another
    number than its card's a warning.

    Args:
        given: corpus -> the user's own source.

    Returns:
        The corpora that were there already.

    Raises:
        ConfigError: a corpus that has no card, is generated, or is not among those wanted.
        SourceError: corpora that can't be had, hold no utterance, or are there from another source; all of them in one
            error.
    """
    unknown = sorted(set(given) - set(corpora))
    if unknown:
        raise ConfigError("A source is given for a corpus that is not wanted.", got=unknown, expected=corpora)
    made = [corpus for corpus in corpora if load_card(corpus).acoustics]
    if made:
        raise ConfigError("Synthetic corpora are generated, not fetched.", got=made, do="name others with --corpora")
    faults, there = list[str](), list[str]()
    for corpus in corpora:
        try:
            with source.translate_os_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(folder / f".{corpus}.lock", timeout=0):
                    if (folder / corpus).exists():
                        _require_same(corpus, folder, given.get(corpus))
                        _look(corpus, folder / corpus, folder / corpus)
                        there.append(corpus)
                    else:
                        _bring(corpus, folder, given.get(corpus), settings)
        except Timeout:
            faults.append(f"{corpus}: another clep-dg fetch is at work on it")
        except ClepError as error:
            faults.append(f"{corpus}: {error}")
    if faults:
        rest = "; the others are there" if len(faults) < len(corpora) else ""
        what = f"{len(faults)} of {len(corpora)} corpora could not be fetched{rest}."
        raise SourceError("\n- ".join([what, *faults]))
    return there


def check(corpora: Sequence[str] | None, settings: Settings) -> Iterator[Checked]:
    """Check every address of corpora; yield one line for each.

    Args:
        corpora: None: those of preset open, and what CHECKS names.

    Raises:
        ConfigError: a corpus that has no card, or no address to ask.
    """
    named = PRESETS["open"]().corpora if corpora is None else corpora
    cards = [load_card(corpus) for corpus in named]
    silent = [card.name for card in cards if not card.sources]
    if silent:
        what = "Corpora without an address can't be checked: they are generated, or have to be asked for."
        raise ConfigError(what, got=silent, do="name others with --corpora")
    jobs = card_check.jobs(cards, settings.open_store().documents)
    return run_jobs([*jobs, *(job for check in CHECKS if corpora is None for job in check())])


def _require_same(corpus: str, folder: Path, given: str | None) -> None:
    """Raise where a corpus that is there came from another source than the one that is named now."""
    came: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        came = json.loads((folder / f"{corpus}{SOURCE}").read_text())
    if given is None and came.get("kind") != "card":
        return  # no source is named: what is there will do
    if came != source.identify(load_card(corpus), given):
        raise SourceError(
            f"{corpus} is there already, from another source.",
            got=given or "the card's addresses",
            expected=came or "unknown",
            where=folder / corpus,
            do="name another folder; or remove it, to bring it anew",
        )


def _look(corpus: str, tree: Path, where: object) -> None:
    """Warn where the names of a tree's files tell of another number of utterances than the card.

    Raises:
        CorpusError: they tell of none.
    """
    card = load_card(corpus)
    items = list(CORPORA[card.grammar](tree))
    found, expected = sum(isinstance(item, Utterance) for item in items), card.expected.utterances
    if not found:
        raise CorpusError(
            f"{corpus} holds no utterance.",
            got=[f"{item.path}: {item.reason}" for item in items if isinstance(item, Finding)][:3] or "no audio file",
            expected=f"{expected or 'the'} utterances of {card.title}",
            where=where,
            do=f"look whether this is the corpus; {manual_download(card)}",
        )
    if expected not in (None, found):
        log.warning("%s is not whole: %d utterances by its files' names, its card has %d", corpus, found, expected)


def _bring(corpus: str, folder: Path, given: str | None, settings: Settings) -> None:
    place, aside = folder / corpus, folder / f".{corpus}.partial"
    came = source.identify(load_card(corpus), given)
    with bar("source", corpus) as progress:
        pins = settings.open_store().documents
        fetching.fetch(load_card(corpus), given, aside, pins=pins, progress=progress)
    tree = source.root(aside)
    _look(corpus, tree, given or "the card's addresses")
    if tree.parent != aside:  # a folder is only referenced
        tree = shutil.copytree(tree, aside / source.TREE)
    lines = [f"{file.sha256}  {file.path}\n" for file in source.file_rows(aside)]
    (folder / f"{corpus}.sha256").write_text("".join(lines), encoding="utf-8")
    write_json(folder / f"{corpus}{SOURCE}", came)
    os.rename(tree, place)
    shutil.rmtree(aside)
