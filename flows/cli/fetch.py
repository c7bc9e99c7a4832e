"""clep-dg fetch: download corpora into a folder, whose parts another machine takes as its sources.

With --check it compares their addresses with the cards, and downloads nothing.
"""

import argparse
import contextlib
import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from clepdg.config.presets import PRESETS
from clepdg.corpora import parse
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
from clepdg_flows.cli.options import add_corpora_options, given_sources
from clepdg_flows.cli.parser import Commands, add_command, add_json_option, print_json
from clepdg_flows.cli.terminal import bar
from clepdg_tasks.host.settings import Settings, load_settings

SOURCE: Final = ".source.json"
# Checked beside the corpora by `clep-dg fetch --check`, where none are named
CHECKS: list[Callable[[], list[Job]]] = [models.jobs]

log = logging.getLogger("clepdg")


def add_fetch_command(commands: Commands) -> None:
    """Add the command."""
    fetch = add_command(
        commands,
        "fetch",
        fetch_command,
        "download corpora into a folder, for a machine without a network",
        "clep-dg fetch /media/disk --corpora ravdess,tess",
    )
    fetch.add_argument("folder", type=Path, metavar="FOLDER", nargs="?")
    fetch.add_argument("--check", action="store_true", help="compare the addresses with the cards; downloads nothing")
    add_corpora_options(fetch)
    add_json_option(fetch)


def fetch_command(options: argparse.Namespace) -> None:
    """Download corpora and print how to use them, or check their addresses."""
    if options.check == bool(options.folder) or (options.check and options.source):
        do = "clep-dg fetch FOLDER, or clep-dg fetch --check without FOLDER and --source"
        raise ConfigError("clep-dg fetch takes a folder or --check.", do=do)
    if options.json and not options.check:
        raise ConfigError("clep-dg fetch prints JSON with --check only.", do="leave out --json")
    if options.json:
        found = [*check(options.corpora, load_settings())]
        print_json({"good": all(each.good for each in found), "addresses": [asdict(each) for each in found]})
        sys.exit(0 if all(each.good for each in found) else 1)
    if options.check:
        good = True
        for each in check(options.corpora, load_settings()):
            print(each.line, flush=True)
            good &= each.good
        sys.exit(0 if good else 1)
    folder = Path(os.path.expanduser(options.folder)).absolute()
    corpora = options.corpora or PRESETS["open"]().corpora
    there = fetch(corpora, given_sources(options), folder, load_settings())
    if there:
        print(f"Already there: {', '.join(there)}.")
    print(f"All are in {folder}, with their checksums (<corpus>.sha256). On the other machine:")
    print("clep-dg run " + " ".join(f"--source {corpus}={shlex.quote(str(folder / corpus))}" for corpus in corpora))


def fetch(corpora: Sequence[str], sources: Mapping[str, str], folder: Path, settings: Settings) -> list[str]:
    """Download corpora into a folder, each with its checksums and its source.

    They go to folder/<corpus>, <corpus>.sha256 and <corpus>.source.json. A corpus gets its name when it is complete; an
    interrupted download continues at the next call. If one fails, the others are still downloaded. The number of
    utterances, counted by the files' names, is checked: none is an error, another number than the card's a warning.

    Args:
        sources: corpus -> the user's own source.

    Returns:
        The corpora that were in the folder before.

    Raises:
        ConfigError: a corpus that has no card or is generated, or a source of a corpus that is not wanted.
        SourceError: corpora that can't be downloaded, hold no utterance, or exist from another source; all of them in
            one error.
    """
    unknown = sorted(set(sources) - set(corpora))
    if unknown:
        raise ConfigError("A source is given for a corpus that is not wanted.", got=unknown, expected=corpora)
    synthetic = [corpus for corpus in corpora if load_card(corpus).acoustics]
    if synthetic:
        raise ConfigError(
            "Synthetic corpora are generated, not fetched.", got=synthetic, do="name others with --corpora"
        )
    faults, existing = list[ClepError](), list[str]()
    for corpus in corpora:
        try:
            with source.translate_os_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(folder / f".{corpus}.lock", timeout=0):
                    if (folder / corpus).exists():
                        _require_same(corpus, folder, sources.get(corpus))
                        _check_names(corpus, folder / corpus, folder / corpus)
                        existing.append(corpus)
                    else:
                        _download(corpus, folder, sources.get(corpus), settings)
        except Timeout:
            faults.append(ClepError(f"{corpus}: another clep-dg fetch is downloading it"))
        except ClepError as error:
            faults.append(error.labelled(corpus))
    if faults:
        rest = "; the others are there" if len(faults) < len(corpora) else ""
        what = f"{len(faults)} of {len(corpora)} corpora could not be fetched{rest}."
        raise SourceError(what, children=faults)
    return existing


def check(corpora: Sequence[str] | None, settings: Settings) -> Iterator[Checked]:
    """Check every address of corpora; yield one line for each.

    Args:
        corpora: None: those of preset open, and what CHECKS names.

    Raises:
        ConfigError: a corpus that has no card, or no address to ask.
    """
    chosen = PRESETS["open"]().corpora if corpora is None else corpora
    cards = [load_card(corpus) for corpus in chosen]
    without_address = [card.name for card in cards if not card.sources]
    if without_address:
        what = "Corpora without an address can't be checked: they are generated, or have to be asked for."
        raise ConfigError(what, got=without_address, do="name others with --corpora")
    jobs = card_check.jobs(cards, settings.open_store().documents)
    return run_jobs([*jobs, *(job for check in CHECKS if corpora is None for job in check())])


def _require_same(corpus: str, folder: Path, given: str | None) -> None:
    """Raise where an existing corpus came from another than the given source."""
    found_source: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        found_source = json.loads((folder / f"{corpus}{SOURCE}").read_text())
    if given is None and found_source.get("kind") != "card":
        return  # no source is named: any will do
    if found_source != source.identify(load_card(corpus), given):
        raise SourceError(
            f"{corpus} is there already, from another source.",
            got=given or "the card's addresses",
            expected=found_source or "unknown",
            where=folder / corpus,
            do="name another folder; or remove it, to download it again",
        )


def _check_names(corpus: str, tree: Path, where: object) -> None:
    """Warn where a corpus has another number of utterances than its card.

    Raises:
        CorpusError: there are none.
    """
    card = load_card(corpus)
    items = parse(card.grammar, tree)
    found, expected = sum(isinstance(item, Utterance) for item in items), card.expected.utterances
    if not found:
        raise CorpusError(
            f"{corpus} holds no utterance.",
            got=[f"{item.path}: {item.reason}" for item in items if isinstance(item, Finding)][:3] or "no audio file",
            expected=f"{expected or 'the'} utterances of {card.title}",
            where=where,
            do=f"check whether this is the corpus; {manual_download(card)}",
        )
    if expected not in (None, found):
        log.warning("%s is not whole: %d utterances by its files' names, its card has %d", corpus, found, expected)


def _download(corpus: str, folder: Path, given: str | None, settings: Settings) -> None:
    place, aside = folder / corpus, folder / f".{corpus}.partial"
    found_source = source.identify(load_card(corpus), given)
    with bar("source", corpus) as progress:
        pins = settings.open_store().documents
        fetching.fetch(load_card(corpus), given, aside, pins=pins, progress=progress)
    tree = source.root(aside)
    _check_names(corpus, tree, given or "the card's addresses")
    if tree.parent != aside:  # a user's folder is referenced, not copied
        tree = shutil.copytree(tree, aside / source.TREE)
    lines = [f"{file.sha256}  {file.path}\n" for file in source.file_rows(aside)]
    (folder / f"{corpus}.sha256").write_text("".join(lines), encoding="utf-8")
    write_json(folder / f"{corpus}{SOURCE}", found_source)
    os.rename(tree, place)
    shutil.rmtree(aside)
