"""List a corpus's files from a table, a Dataverse dataset or a folder."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from clepdg import hashing
from clepdg.audio.formats import AUDIO_SUFFIXES
from clepdg.config.manifests import find
from clepdg.corpora.cards import Address, Card, is_sum
from clepdg.download import http_client, object_store
from clepdg.download.folders import ignored
from clepdg.download.urls import HASHES, mirror_of, redact_with_mirror
from clepdg.errors import SourceError, some
from clepdg.text_files import Row, read_rows

TABLE_COLUMNS: Final = {"path", "url", "bytes", "md5", "sha256"}


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One remote file: path below the root, address and listed version."""

    path: str
    address: Address
    version: str = ""

    @property
    def identity(self) -> str:
        """A digest of path, address and version."""
        address = asdict(self.address)
        del address["lfs"]  # only checks use it
        return hashing.digest([self.path, address, self.version])


def list_address(card: Card, address: Address, sleep: Callable[[float], None] = time.sleep) -> list[Remote]:
    """Return the files of a card's address, from its table or dataset."""
    if address.dataverse:
        return list_dataverse(card, address, sleep)
    return list_table(card, find(str(address.files)), address.url)


def list_table(card: Card, table: Path, base: str = "") -> list[Remote]:
    """Return the files of a CSV table.

    Its columns are path or url, and bytes, md5 and sha256 where they are known.

    Args:
        base: the address of the folder that holds paths without a url.

    Raises:
        SourceError: the table can't be read, or rows of it are invalid; all of them in one error.
    """
    try:
        columns, rows = read_rows(table, SourceError, f"The table of {card.name}'s files is malformed.")
    except OSError as error:
        raise SourceError(f"The table of {card.name}'s files can't be read.", got=error, where=table) from error
    if not rows or not {*columns} <= TABLE_COLUMNS or not {"path", "url"} & {*columns}:
        raise SourceError(
            f"The table of {card.name}'s files is invalid.",
            got=columns if rows else "no rows",
            expected="columns path, url (one of them at least), bytes, md5, sha256",
            where=table,
        )
    files, faults = list[Remote](), list[str]()
    for row in rows:
        try:
            files.append(_of_row(row, base))
        except ValueError as error:
            faults.append(f"line {row.line}: {error}")
    return _checked(card, files, faults, str(table))


def _of_row(row: Row, base: str) -> Remote:
    path, url = row.get("path", ""), row.get("url", "")
    if not url and not (path and base):
        raise ValueError("no url")
    url = url or base + quote(path.replace("\\", "/"))
    if not urlsplit(url).scheme:
        raise ValueError(f"{url} is not an address")
    size = row.get("bytes")
    if size and not size.isdigit():
        raise ValueError(f"{size} is not a number of bytes")
    sums = {name: row[name].lower() for name in HASHES if row.get(name)}
    for name, value in sums.items():
        if not is_sum(name, value):
            raise ValueError(f"{value} is not a {name}")
    path = path or PurePosixPath(unquote(urlsplit(url).path)).name
    return Remote(path=path, address=Address(url=url, bytes=int(size) if size else None, **sums))


def list_dataverse(
    card: Card, address: Address, sleep: Callable[[float], None] = time.sleep, **patience: float
) -> list[Remote]:
    """Return the audio files of a Dataverse dataset with sizes and md5.

    Args:
        sleep: waits between attempts, in seconds.
        patience: as in `http_client.read_json`.

    Raises:
        SourceError: the repository does not answer, or its answer is not a dataset.
    """
    base = address.url.rstrip("/")
    where = f"{base}/api/datasets/:persistentId/?persistentId={address.dataverse}"
    listed = http_client.read_json(card, where, sleep, **patience)
    files, faults = list[Remote](), list[str]()
    try:
        for item in listed["data"]["latestVersion"]["files"]:
            facts = item["dataFile"]
            path = "/".join(part for part in (item.get("directoryLabel"), facts["filename"]) if part)
            if PurePosixPath(path).suffix.lower() not in AUDIO_SUFFIXES:
                continue
            sums = {str(facts.get("checksum", {}).get("type", "")).lower(): facts.get("checksum", {}).get("value")}
            sums |= {"md5": facts["md5"]} if facts.get("md5") else {}
            known = {name: str(sums[name]) for name in HASHES if sums.get(name)}
            url = f"{base}/api/access/datafile/{facts['id']}"
            files.append(Remote(path=path, address=Address(url=url, bytes=facts.get("filesize"), **known)))
    except (KeyError, TypeError) as error:
        raise SourceError(
            f"The answer of {card.name}'s repository is not the listing of a dataset.",
            got=repr(error),
            where=redact_with_mirror(where),
        ) from error
    return _checked(card, files, faults, where)


def list_folder(card: Card, url: str) -> list[Remote]:
    """Return the files below an fsspec address such as s3://bucket/folder.

    Objects of no bytes whose names end in "/", or are those of folders, are left out: consoles and tools make them.

    Raises:
        SourceError: it can't be listed.
    """
    with object_store.translate_errors(card, url):
        fs, root = object_store.file_system(url)
        found = fs.find(root, detail=True)
    files = []
    folders = _folders(found)
    for name, facts in sorted(found.items()):
        if not facts.get("size") and (name.endswith("/") or name in folders):
            continue
        path = name[len(root) :].strip("/") if name.startswith(root) else name
        if not ignored(path.split("/")):
            # A mirror's files keep the original's address
            own = f"{url.rstrip('/')}/{path}" if mirror_of(url) else fs.unstrip_protocol(name)
            address = Address(url=own, bytes=facts.get("size"))
            files.append(Remote(path=path, address=address, version=object_store.version(facts)))
    return _checked(card, files, [], url)


def _folders(paths: Iterable[str]) -> set[str]:
    """Return the folders that paths lie in, and the ones above them."""
    return {str(folder) for path in paths for folder in PurePosixPath(path).parents}


def _checked(card: Card, files: list[Remote], faults: list[str], where: str) -> list[Remote]:
    files = [replace(file, path=file.path.replace("\\", "/")) for file in files]  # of lists made on Windows
    seen, folders = set[str](), _folders(file.path for file in files)
    for file in files:
        parts = PurePosixPath(file.path).parts
        if not parts or PureWindowsPath(file.path).root or ".." in parts or "\0" in file.path:
            faults.append(f"{file.path}: leads out of the corpus's folder")
        if file.path in seen:
            faults.append(f"{file.path}: is there twice")
        if file.path in folders:
            faults.append(f"{file.path}: is a file, and a folder of another one")
        seen.add(file.path)
    if faults or not files:
        raise SourceError(
            f"The list of {card.name}'s files can't be used.",
            got=some(faults) or "no files",
            where=redact_with_mirror(where),
        )
    return sorted(files, key=lambda file: file.path)


def identities(files: Iterable[Remote]) -> list[Any]:
    """Return the sorted identities of files."""
    return sorted(file.identity for file in files)
