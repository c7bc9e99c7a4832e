"""Serve the five open corpora on 127.0.0.1, below their hosts' names."""

import gzip
import os
import re
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tests.rehearsal.corpora import BUILDERS, ROOT
from tests.rehearsal.publisher_handler import RAVDESS_ZIP, PublisherHandler
from tests.rehearsal.serving import Server, digest, files_below
from tests.unit import trees

HOSTS = (  # as the cards write them, and git LFS's
    "https://zenodo.org",
    "https://media.githubusercontent.com",
    "https://github.com",
    "https://borealisdata.ca",
    "https://bj.bcebos.com",
    "http://www.emodb.bilderbar.info",
    "http://web.eecs.umich.edu",
    "https://huggingface.co",
)
CORPORA = tuple(BUILDERS)
PUBLISHED = 1_500_000_000  # seconds since 1970, Last-Modified of everything


class Publishers:
    """All publishers as a context manager.

    Args:
        folder: where trees and archives are written.
        corpora: which corpora are published.
        per_class: utterances of every speaker in each of the four emotions.

    Attributes:
        trees: corpus -> the tree that its archive holds.
        archives: corpus -> its published archive; CREMA-D has none.
    """

    def __init__(self, folder: Path, corpora: Iterable[str] = CORPORA, per_class: int = 2) -> None:
        self.trees: dict[str, Path] = {}
        self.archives: dict[str, Path] = {}
        for corpus in corpora:
            self.trees[corpus] = folder / corpus / "tree"
            BUILDERS[corpus](self.trees[corpus], per_class)
            _date(self.trees[corpus])
            if corpus != "crema-d":
                self.archives[corpus] = _pack(corpus, self.trees[corpus], folder / corpus)
        _date(*self.archives.values())
        self.server = Server(PublisherHandler, self)

    @property
    def url(self) -> str:
        """The server's address."""
        return self.server.url

    @property
    def requests(self) -> list[tuple[str, str]]:
        """(method, path) of all requests."""
        return self.server.requests

    @property
    def mirrors(self) -> dict[str, str]:
        """Return {scheme and host of an address in the cards: its mirror}."""
        return {host: f"{self.url}/{urlsplit(host).netloc}" for host in HOSTS}

    def write_cards(self, folder: Path) -> None:
        """Copy the cards, with checksums and tables of the files served here."""
        folder.mkdir(parents=True, exist_ok=True)
        for corpus in CORPORA:
            card = (ROOT / "data_manifests" / f"{corpus}.toml").read_bytes()
            if corpus == "ravdess" and corpus in self.archives:
                archive = self.archives[corpus]
                card = re.sub(rb"(?m)^bytes = \d+$", b"bytes = %d" % archive.stat().st_size, card)
                card = re.sub(rb'(?m)^md5 = "\w+"$', f'md5 = "{digest(archive, "md5")}"'.encode(), card)
            (folder / f"{corpus}.toml").write_bytes(card)
        table = folder / "crema-d.files.csv"
        if "crema-d" not in self.trees:
            shutil.copyfile(ROOT / "data_manifests" / table.name, table)
            return
        lines = ["path,bytes,sha256"]
        lines += [f"{path.name},{path.stat().st_size},{digest(path)}" for path in files_below(self.trees["crema-d"])]
        table.write_text("\n".join(lines) + "\n")

    def change(self, corpus: str) -> None:
        """Change an archive's bytes, ETag and date; keep its recordings."""
        archive = self.archives[corpus]
        changed = archive.with_suffix(".new")
        shutil.copyfile(archive, changed)
        if archive.suffix == ".zip":
            with zipfile.ZipFile(changed, "a") as file:
                number = sum(name.startswith("changes") for name in file.namelist())
                file.writestr(f"changes{number}.txt", "A note.\n")
        else:
            with changed.open("ab") as stream:
                stream.write(gzip.compress(b"", mtime=0))  # an empty member at the end of the stream
        later = archive.stat().st_mtime + 86400
        os.utime(changed, (later, later))
        changed.replace(archive)

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()


def _pack(corpus: str, tree: Path, folder: Path) -> Path:
    """Pack a tree as its publisher does."""
    if corpus == "meld":
        return trees.meld_archive(tree, folder / "MELD.Raw.tar.gz")
    archive = folder / {"ravdess": RAVDESS_ZIP, "emodb": "download.zip", "tess": "tess.zip"}[corpus]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for path in files_below(tree):
            file.write(path, path.relative_to(tree))
    return archive


def _date(*places: Path) -> None:
    """Give files, and the files below folders, the time of publication."""
    for path in (path for place in places for path in ([place] if place.is_file() else files_below(place))):
        os.utime(path, (PUBLISHED, PUBLISHED))
