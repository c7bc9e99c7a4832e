"""Download model files from the Hugging Face hub and verify them.

huggingface_hub requests, downloads and caches: its own settings (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE) apply.
"""

import contextlib
import errno
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.config import model_pins
from clepdg.corpora.cards import Address
from clepdg.download import lockfile
from clepdg.download.check.hub_info import first_line, repository_info
from clepdg.errors import BackboneError
from clepdg.models.files import PICKLED, SAFE, Choose, check_pickles, is_pickled, sha256, weight_files
from clepdg.store.documents import Documents

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

NAME: Final = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
RECORDS: Final = "models"  # pins/models.json: bytes and sha256 of first downloads without a pin

LONGEST_NAME: Final = 96  # characters; the hub takes no more
PINNED: Final = "check HF_ENDPOINT: a mirror must serve the original; if the model changed, update models.csv"

Progress = Callable[[int, int], None]
Sums = tuple[int | None, str | None]  # bytes and sha256, as far as known
UNKNOWN: Final[Sums] = (None, None)


def check(name: str, revision: str | None, choose: Choose, *, allow_unknown: bool = False) -> None:
    """Check that a model is available on the hub or in its cache.

    Downloads nothing.

    Raises:
        BackboneError: as `repository_info` does, the revision is no commit, weights are an unknown pickle or not
            the pinned ones, or the hub's cache has no room for them.
    """
    if not NAME.fullmatch(name) or "--" in name or ".." in name or len(name) > LONGEST_NAME:
        do = "give a folder, or a name like laion/clap-htsat-unfused"
        raise BackboneError("There is no such folder.", got=name, do=do)
    _load_client()
    if folder := cached(name, revision, choose):
        files = _weights(folder, choose)
        if is_pickled(files) and not allow_unknown:
            check_pickles(folder, [sha256(folder / file) for file in files], allow=allow_unknown)
        return
    info, files = repository_info(name, revision, choose)
    if revision is None or not COMMIT.fullmatch(revision):
        raise BackboneError(
            "A name on the hub needs a commit: a branch or a tag may move and change results.",
            got=f"{name}@{revision}" if revision else name,
            do=f"pin today's: --backbone {name}@{info.sha}; for a speech encoder encoder.revision={info.sha}",
        )
    published, where = _published_sums(info), f"{name}@{revision}"
    for file in files:
        _compare(pinned(name, revision, file), published.get(file, UNKNOWN), f"{where}, {file}", "", PINNED)
    if is_pickled(files):
        sums = [published.get(file, UNKNOWN)[1] for file in files if is_pickled([file])]
        check_pickles(where, sums, allow=allow_unknown)
    _check_cache(sum(published.get(file, UNKNOWN)[0] or 0 for file in files))


def fetch(
    name: str,
    revision: str,
    choose: Choose,
    *,
    pins: Documents | None = None,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Download the chosen files; return their folder in the hub's cache.

    Args:
        pins: where bytes and sha256 of files without a pin are recorded at the first download; later ones must match.
        progress: called with (bytes done, bytes in all) of the current file.

    Raises:
        BackboneError: as `repository_info` does, or a file differs from its pin, record or published sha256.
    """
    _load_client()
    folder, published = cached(name, revision, choose), dict[str, Sums]()
    if folder is None:
        info, files = repository_info(name, revision, choose)
        published = _published_sums(info)
        for file in files:  # the weights are last: where they are complete, all is
            folder = _download(name, revision, file, progress)
    assert folder is not None
    for file in _weights(folder, choose):
        _verify(name, revision, folder / file, published.get(file) or _sums_of_blob(folder / file), pins)
    return folder


def _load_client() -> None:
    """Import huggingface_hub, which reads its settings when imported.

    Raises:
        BackboneError: HF_ENDPOINT is not an address.
    """
    try:
        import huggingface_hub.constants  # noqa: F401
    except ValueError as error:
        got = os.environ.get("HF_ENDPOINT")
        raise BackboneError("The hub's address is not one.", got=got, where="HF_ENDPOINT", do=str(error)) from error


def _check_cache(size: int) -> None:
    """Raise BackboneError if the hub's cache can't take `size` bytes."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder, do = Path(HF_HUB_CACHE), "make room, or set HF_HOME to another folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        raise BackboneError("The hub's cache can't be written.", got=error, where=folder, do=do) from error
    if free < size:
        got, expected = f"{free / 1e9:.1f} GB free", f"{size / 1e9:.1f} GB"
        raise BackboneError("The disk of the hub's cache is too full.", got=got, expected=expected, where=folder, do=do)


def _weights(folder: Path, choose: Choose) -> list[str]:
    """Return the weight files among the chosen files of a folder."""
    files = choose({path.name for path in folder.iterdir()})
    return weight_files(folder) if {*files} & {*SAFE, *PICKLED} else [file for file in files if is_pickled([file])]


def _published_sums(info: "ModelInfo") -> dict[str, Sums]:
    """Return {file: (bytes, sha256)} that the hub publishes."""
    return {s.rfilename: (s.size, s.lfs.sha256 if s.lfs else None) for s in info.siblings or ()}


def _sums_of_blob(path: Path) -> Sums:
    """Return the published sha256 of a cached file: the name of its blob."""
    blob = path.resolve().name
    return None, blob if path.is_symlink() and re.fullmatch("[0-9a-f]{64}", blob) else None


def _download(name: str, revision: str, file: str, progress: Progress) -> Path:
    from huggingface_hub import errors, hf_hub_download
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            progress(int(self.n), int(self.total or 0))
            return shown

    try:
        path = hf_hub_download(name, file, revision=revision, tqdm_class=Bar)
    except (errors.HTTPError, OSError, ValueError) as error:  # type: ignore[attr-defined]
        got, do = f"{type(error).__name__}: {first_line(error)}", "run the same command again"
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT)
        if full:
            do = "make room in the hub's cache, or set HF_HOME to another folder; then run the same command again"
        raise BackboneError(
            "The download was interrupted.", got=got, where=f"{name}@{revision}, {file}", do=do, away=not full
        ) from error
    return Path(path).parent


def pinned(name: str, revision: str, file: str) -> Sums:
    """Return the (bytes, sha256) that a file is pinned to, as far as known."""
    pin = model_pins.pins().get(name)
    return pin.files.get(file, UNKNOWN) if pin and pin.revision == revision else UNKNOWN


def _compare(expected: Sums, found: Sums, where: object, origin: str, do: str) -> None:
    """Raise BackboneError if known bytes or sha256 differ."""
    if any(None not in (want, got) and want != got for want, got in zip(expected, found, strict=True)):
        raise BackboneError(
            "A model's file is not the published one.",
            got=f"{found[0]} bytes, sha256 {found[1]}",
            expected=f"{expected[0] or '?'} bytes, sha256 {expected[1]}{origin}",
            where=where,
            do=do,
        )


def _verify(name: str, revision: str, path: Path, published: Sums, pins: Documents | None) -> None:
    """Verify a file by its pin, its record or the hub's sha256.

    A file without a pin is recorded once the hub's own sha256 fits. One that differs is removed from the cache, so that
    the next run downloads it again.
    """
    found: Sums = (path.stat().st_size, sha256(path))
    expected, origin = pinned(name, revision, path.name), ""
    address = Address(url=f"hf://{name}@{revision}/{path.name}")
    record = lockfile.read(pins, RECORDS).get(lockfile.name(address)) if pins and expected[1] is None else None
    if record and pins:
        expected = record.get("bytes"), record.get("sha256")
        origin = f", recorded {record.get('date')} in {lockfile.where(pins, RECORDS)}"
    elif expected[1] is None:
        expected, origin = published, ", published by the hub"
    try:
        _compare(expected, found, path, origin, "run again: it is downloaded anew; if the error stays, do not use it")
    except BackboneError:
        for each in {path.resolve(), path}:
            each.unlink(missing_ok=True)
        raise
    if pins and not record and expected == published and published[1]:
        lockfile.update(pins, RECORDS, address, bytes=found[0], sha256=found[1])


def cached(name: str, revision: str | None, choose: Choose) -> Path | None:
    """Return the cache folder that holds all chosen files, or None."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    if revision is None or not COMMIT.fullmatch(revision):
        return None
    folder = Path(HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "snapshots", revision)
    with contextlib.suppress(BackboneError, OSError):
        files = choose({path.name for path in folder.iterdir() if path.is_file()})
        if any(file in (*SAFE, *PICKLED) for file in files):
            weight_files(folder)
        return folder
    return None
