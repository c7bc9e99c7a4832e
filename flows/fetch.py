"""clep-dg fetch: bring corpora into a folder that a machine without a network takes as its sources."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from clepdg import fetching, sources
from clepdg.cards import load_card
from clepdg.errors import ClepError, ConfigError, SourceError
from flows.terminal import bar
from tasks.settings import Settings


def fetch(corpora: Sequence[str], given: Mapping[str, str], folder: Path, settings: Settings) -> dict[str, Path]:
    """Bring corpora into folder/<corpus>, and its checksums into folder/<corpus>.sha256.

    A corpus gets its name when it is whole; what broke off goes on at the next call. One that can't be had does not
    keep the others from coming.

    Args:
        given: corpus -> the user's own source.

    Returns:
        corpus -> its folder.

    Raises:
        ConfigError: a corpus that has no card, is generated, or is not among those wanted.
        SourceError: corpora that can't be had, all of them in one error.
    """
    unknown = sorted(set(given) - set(corpora))
    if unknown:
        raise ConfigError("A source is given for a corpus that is not wanted.", got=unknown, expected=corpora)
    made = [corpus for corpus in corpora if load_card(corpus).acoustics]
    if made:
        raise ConfigError("Synthetic corpora are generated, not fetched.", got=made, do="name others with --corpora")
    faults: list[str] = []
    for corpus in corpora:
        try:
            with sources.os_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                with FileLock(folder / f".{corpus}.lock", timeout=0):
                    _bring(corpus, folder, given.get(corpus), settings)
        except Timeout:
            faults.append(f"{corpus}: another clep-dg fetch is at work on it")
        except ClepError as error:
            faults.append(f"{corpus}: {error}")
    if faults:
        rest = "; the others are there" if len(faults) < len(corpora) else ""
        what = f"{len(faults)} of {len(corpora)} corpora could not be fetched{rest}."
        raise SourceError("\n- ".join([what, *faults]))
    return {corpus: folder / corpus for corpus in corpora}


def _bring(corpus: str, folder: Path, given: str | None, settings: Settings) -> None:
    place, aside = folder / corpus, folder / f".{corpus}.partial"
    if place.exists():
        return
    with bar("source", corpus) as progress:
        pins = settings.open_store().documents
        fetching.fetch(load_card(corpus), given, aside, pins=pins, progress=progress)
    tree = sources.root(aside)
    if tree.parent != aside:  # a folder is only referenced
        tree = shutil.copytree(tree, aside / sources.TREE)
    lines = [f"{file.sha256}  {file.path}\n" for file in sources.file_rows(aside)]
    (folder / f"{corpus}.sha256").write_text("".join(lines), encoding="utf-8")
    os.rename(tree, place)
    shutil.rmtree(aside)
