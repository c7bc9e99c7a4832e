"""Download model files from the Hugging Face hub and verify them.

huggingface_hub requests, downloads and caches: its own settings (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE) apply.
"""

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.config import model_pins
from clepdg.corpora.cards import Address
from clepdg.download import lockfile
from clepdg.errors import BackboneError
from clepdg.models.files import PICKLED, SAFE, Choose, check_pickles, is_pickled, sha256, weight_files
from clepdg.store.documents import Documents

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

ASK_SECONDS: Final = 10.0  # timeout of one request to the hub
NAME: Final = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
RECORDS: Final = "models"  # pins/models.json: bytes and sha256 of first downloads without a pin

Progress = Callable[[int, int], None]


def check(name: str, revision: str | None, choose: Choose, *, allow_unknown: bool = False) -> None:
    """Check that a model is available on the hub or in its cache.

    Downloads nothing.

    Raises:
        BackboneError: as `repository_info` does, the revision is no commit, or weights are an unknown pickle.
    """
    if not NAME.fullmatch(name):
        do = "give a folder, or a name like laion/clap-htsat-unfused"
        raise BackboneError("There is no such folder.", got=name, do=do)
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
    if is_pickled(files):
        published = _published_sums(info)
        sums = [published.get(file, (None, None))[1] for file in files if is_pickled([file])]
        check_pickles(f"{name}@{revision}", sums, allow=allow_unknown)


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
    folder, published = cached(name, revision, choose), dict[str, tuple[int | None, str | None]]()
    if folder is None:
        info, files = repository_info(name, revision, choose)
        published = _published_sums(info)
        for file in files:  # the weights are last: where they are complete, all is
            folder = _download(name, revision, file, progress)
    assert folder is not None
    for file in _weights(folder, choose):
        _verify(name, revision, folder / file, published.get(file, (None, None)), pins)
    return folder


def _weights(folder: Path, choose: Choose) -> list[str]:
    """Return the weight files among the chosen files of a folder."""
    files = choose({path.name for path in folder.iterdir()})
    return weight_files(folder) if {*files} & {*SAFE, *PICKLED} else [file for file in files if is_pickled([file])]


def _published_sums(info: "ModelInfo") -> dict[str, tuple[int | None, str | None]]:
    """Return {file: (bytes, sha256)} that the hub publishes."""
    return {s.rfilename: (s.size, s.lfs.sha256 if s.lfs else None) for s in info.siblings or ()}


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
    except (errors.HTTPError, errors.LocalEntryNotFoundError, ValueError) as error:  # type: ignore[attr-defined]
        got, do = f"{type(error).__name__}: {_first_line(error)}", "run the same command again"
        raise BackboneError(
            "The download was interrupted.", got=got, where=f"{name}@{revision}, {file}", do=do
        ) from error
    return Path(path).parent


def _verify(
    name: str, revision: str, path: Path, published: tuple[int | None, str | None], pins: Documents | None
) -> None:
    """Verify a file by its pin, its record or the hub's sha256.

    A file without a pin is recorded.
    """
    found, pin = (path.stat().st_size, sha256(path)), model_pins.pins().get(name)
    expected, origin = (
        (None, None) if pin is None or pin.revision != revision else pin.files.get(path.name, (None, None)),
        "",
    )
    address = Address(url=f"hf://{name}@{revision}/{path.name}")
    recorded = lockfile.read(pins, RECORDS).get(lockfile.name(address)) if pins and expected[1] is None else None
    if recorded and pins:
        expected = recorded.get("bytes"), recorded.get("sha256")
        origin = f", recorded {recorded.get('date')} in {lockfile.where(pins, RECORDS)}"
    new = expected[1] is None
    if new:
        expected, origin = published, ", published by the hub"
    if any(want not in (None, got) for want, got in zip(expected, found, strict=True)):
        raise BackboneError(
            "A model's file is not the published one.",
            got=f"{found[0]} bytes, sha256 {found[1]}",
            expected=f"{expected[0] or '?'} bytes, sha256 {expected[1]}{origin}",
            where=path,
            do="remove it from the hub's cache and run again; if the error stays, do not use the file",
        )
    if new and pins:
        lockfile.update(pins, RECORDS, address, bytes=found[0], sha256=found[1])


def cached(name: str, revision: str | None, choose: Choose) -> Path | None:
    """Return the cache folder that holds all chosen files, or None."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "snapshots", revision or "-")
    with contextlib.suppress(BackboneError, OSError):
        files = choose({path.name for path in folder.iterdir() if path.is_file()})
        if any(file in (*SAFE, *PICKLED) for file in files):
            weight_files(folder)
        return folder
    return None


def repository_info(name: str, revision: str | None, choose: Choose) -> "tuple[ModelInfo, list[str]]":
    """Return a repository's metadata and chosen files; download nothing.

    Raises:
        BackboneError: no such repository or revision, gated, no usable files, offline, or not reachable.
    """
    from huggingface_hub import HfApi, errors, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import ENDPOINT, is_offline_mode

    where = f"{name}{f'@{revision}' if revision else ''} at {ENDPOINT}"
    elsewhere = "or give a folder: where there is a network, download the model and copy its folder here"
    if is_offline_mode():
        got = "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set, and the hub's cache does not hold this revision"
        do = f"unset it; {elsewhere}"
        raise BackboneError("The model's files are not here.", got=got, where=where, do=do)
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=ASK_SECONDS)
        files = choose([sibling.rfilename for sibling in info.siblings or ()])
        get_hf_file_metadata(hf_hub_url(name, files[-1], revision=revision), timeout=ASK_SECONDS)  # fails if gated
    except BackboneError as error:
        raise BackboneError("The model on the hub can't be used.", got=error, where=where) from None
    except errors.GatedRepoError as error:
        do = f"accept its terms on {ENDPOINT}/{name}, then hf auth login (or set HF_TOKEN)"
        raise BackboneError("The model is gated.", got=_first_line(error), where=where, do=do) from error
    except errors.RevisionNotFoundError as error:
        do = "find the commit on the model's page, under History"
        raise BackboneError("The model has no such revision.", got=revision, where=where, do=do) from error
    except errors.RepositoryNotFoundError as error:
        do = f"check its name; if it is private, hf auth login (or set HF_TOKEN); {elsewhere}"
        raise BackboneError("There is no such model on the hub.", got=name, where=where, do=do) from error
    except (errors.HTTPError, OSError, ValueError) as error:  # type: ignore[attr-defined]
        got = f"{type(error).__name__}: {_first_line(error)}"
        do = f"connect to the network, or set HF_ENDPOINT to a mirror; {elsewhere}"
        raise BackboneError("The hub does not answer.", got=got, where=where, do=do) from error
    return info, files


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:300]
