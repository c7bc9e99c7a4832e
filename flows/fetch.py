"""clep-dg fetch: bring corpora into a folder that a machine without a network takes as its sources."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from clepdg import fetching, sources
from clepdg.cards import load_card
from clepdg.errors import ClepError, ConfigError, SourceError
from clepdg.store import write_json
from flows.terminal import bar
from tasks.settings import Settings

SOURCE: Final = ".source.json"


def fetch(corpora: Sequence[str], given: Mapping[str, str], folder: Path, settings: Settings) -> list[str]:
    """Bring corpora into folder/<corpus>, its checksums into <corpus>.sha256 and its source into <corpus>.source.json.

    A corpus gets its name when it is whole; what broke off goes on at the next call. One that can't be had does not
    keep the others from coming.

    Args:
        given: corpus -> the user's own source.

    Returns:
        The corpora that were there already.

    Raises:
        ConfigError: a corpus that has no card, is generated, or is not among those wanted.
        SourceError: corpora that can't be had, or are there from another source; all of them in one error.
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
            with sources.os_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(folder / f".{corpus}.lock", timeout=0):
                    if (folder / corpus).exists():
                        _require_same(corpus, folder, given.get(corpus))
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


def _require_same(corpus: str, folder: Path, given: str | None) -> None:
    """Raise where a corpus that is there came from another source than the one that is named now."""
    came: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        came = json.loads((folder / f"{corpus}{SOURCE}").read_text())
    if given is None and came.get("kind") != "card":
        return  # no source is named: what is there will do
    if came != sources.state(load_card(corpus), given):
        raise SourceError(
            f"{corpus} is there already, from another source.",
            got=given or "the card's addresses",
            expected=came or "unknown",
            where=folder / corpus,
            do="name another folder; or remove it, to bring it anew",
        )


def _bring(corpus: str, folder: Path, given: str | None, settings: Settings) -> None:
    place, aside = folder / corpus, folder / f".{corpus}.partial"
    came = sources.state(load_card(corpus), given)
    with bar("source", corpus) as progress:
        pins = settings.open_store().documents
        fetching.fetch(load_card(corpus), given, aside, pins=pins, progress=progress)
    tree = sources.root(aside)
    if tree.parent != aside:  # a folder is only referenced
        tree = shutil.copytree(tree, aside / sources.TREE)
    lines = [f"{file.sha256}  {file.path}\n" for file in sources.file_rows(aside)]
    (folder / f"{corpus}.sha256").write_text("".join(lines), encoding="utf-8")
    write_json(folder / f"{corpus}{SOURCE}", came)
    os.rename(tree, place)
    shutil.rmtree(aside)
