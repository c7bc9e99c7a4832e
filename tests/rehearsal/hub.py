"""Serve a Hugging Face hub on 127.0.0.1, with a CDN on another port."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tests.rehearsal.serving import Handler, Server

LARGE = (".bin", ".safetensors", ".pt", ".pth", ".h5", ".onnx", ".msgpack")  # git LFS, as .gitattributes of the hub
TOKEN = "good-token"  # opens gated repositories
DATE = "2023-04-01T12:00:00.000Z"
NAME = r"(?P<name>[^/]+(?:/[^/]+)?)"
API = re.compile(
    rf"/api/models/{NAME}(?:/(?P<what>revision|tree|discussions)(?:/(?P<revision>[^/]+))?(?:/(?P<path>.+))?)?"
)
RESOLVE = re.compile(rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass(frozen=True)
class Blob:
    """One file of a repository, with the hashes that the hub publishes."""

    path: Path
    large: bool

    @cached_property
    def size(self) -> int:
        """Size in bytes."""
        return self.path.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """Hash of the content, the id of a git LFS object."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def oid(self) -> str:
        """Git's id: of the content or, for a large file, of its LFS pointer."""
        content = self.pointer if self.large else self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def pointer(self) -> bytes:
        """The git LFS pointer."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()


@dataclass
class Repository:
    """A model repository.

    Attributes:
        name: "owner/model".
        files: name in the repository -> file on this disk; files of `LARGE` suffixes are git LFS objects.
        revisions: branch or tag -> commit (40 hexadecimal digits); default: "main" and a commit made from the files.
        gated: whether downloads need `TOKEN`.
    """

    name: str
    files: dict[str, Path]
    revisions: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def __post_init__(self) -> None:
        self.blobs = {name: Blob(path, name.endswith(LARGE)) for name, path in sorted(self.files.items())}
        if not self.revisions:
            listing = "\n".join(f"{name} {blob.oid}" for name, blob in self.blobs.items())
            self.revisions = {"main": hashlib.sha1(listing.encode()).hexdigest()}

    @classmethod
    def of_folder(cls, name: str, folder: Path, **options: Any) -> Self:
        """Return a repository of all files below a folder."""
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        return cls(name, files, **options)

    def commit(self, revision: str) -> str | None:
        """Return the commit of a branch, tag or commit, or None."""
        return self.revisions.get(revision) or (revision if revision in self.revisions.values() else None)

    def information(self, commit: str, blobs: bool) -> dict[str, Any]:
        """Return the answer to model_info."""
        siblings = [{"rfilename": name} | (_facts(blob) if blobs else {}) for name, blob in self.blobs.items()]
        return {
            "_id": "63b2a1f0c3e5d7a9b1c3e5d7",
            "id": self.name,
            "modelId": self.name,
            "author": self.name.partition("/")[0],
            "sha": commit,
            "private": False,
            "gated": "manual" if self.gated else False,
            "disabled": False,
            "lastModified": DATE,
            "createdAt": DATE,
            "downloads": 1,
            "likes": 1,
            "library_name": "transformers",
            "tags": ["transformers", "pytorch", "clap"],
            "siblings": siblings,
        }

    def tree(self, below: str, recursive: bool) -> list[dict[str, Any]]:
        """Return the answer to list_repo_tree: the entries below a folder."""
        prefix = f"{below}/" if below else ""
        entries, folders = [], set[str]()
        for name, blob in self.blobs.items():
            if not name.startswith(prefix):
                continue
            parents = name.removeprefix(prefix).split("/")[:-1]
            folders |= {
                prefix + "/".join(parents[: depth + 1]) for depth in range(len(parents) if recursive else 1) if parents
            }
            if recursive or not parents:
                lfs = {"lfs": {"oid": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}}
                entry = {"type": "file", "oid": blob.oid, "size": blob.size, "path": name}
                entries.append(entry | (lfs if blob.large else {}))
        ids = {name: hashlib.sha1(name.encode()).hexdigest() for name in sorted(folders)}
        return [{"type": "directory", "oid": oid, "size": 0, "path": name} for name, oid in ids.items()] + entries


def _facts(blob: Blob) -> dict[str, Any]:
    facts: dict[str, Any] = {"blobId": blob.oid, "size": blob.size}
    if blob.large:
        facts["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
    return facts


class Hub:
    """A hub and its CDN, as a context manager.

    HF_ENDPOINT=hub.url makes huggingface_hub use it.

    Attributes:
        repositories: name -> repository; may be changed while the hub runs.
        server: the hub.
        cdn: the second server, which sends git LFS objects and refuses tokens.
    """

    def __init__(self, repositories: Iterable[Repository]) -> None:
        self.repositories = {repository.name: repository for repository in repositories}
        self.server, self.cdn = Server(_HubHandler, self), Server(_CdnHandler, self)

    @property
    def url(self) -> str:
        """The hub's address, for HF_ENDPOINT."""
        return self.server.url

    @property
    def requests(self) -> list[tuple[str, str]]:
        """Return (method, path) of the hub's requests; the CDN has its own."""
        return self.server.requests

    def __enter__(self) -> Self:
        self.server.__enter__()
        self.cdn.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()
        self.cdn.__exit__()


class _HubHandler(Handler):
    refusals: ClassVar = {
        "RepoNotFound": "Repository not found",
        "RevisionNotFound": "Invalid rev id",
        "EntryNotFound": "Entry not found",
        "GatedRepo": "Access to this model is restricted. You must be authenticated to access it.",
    }

    def answer(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        if url.path == "/api/whoami-v2":
            known = self.token == TOKEN
            self.reply_json(
                {"type": "user", "name": "tester"} if known else {"error": "Unauthorized"}, 200 if known else 401
            )
        elif found := RESOLVE.fullmatch(url.path):
            self._open(found, self._resolve)
        elif found := API.fullmatch(url.path):
            self._open(found, self._api)
        else:
            self.reply_json({"error": "Not Found"}, 404)

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _open(self, found: re.Match[str], then: Any) -> None:
        """Find repository and revision, then answer."""
        repository = self.server.owner.repositories.get(found["name"])
        if repository is None:
            message = None if self.token else "Invalid username or password."
            return self._refuse("RepoNotFound", 404 if self.token else 401, message)
        commit = repository.commit(unquote(found["revision"] or "main"))
        if commit is None:
            return self._refuse("RevisionNotFound", 404, f"Invalid rev id: {unquote(found['revision'])}")
        then(repository, commit, unquote(found["path"] or ""), found)
        return None

    def _api(self, repository: Repository, commit: str, path: str, found: re.Match[str]) -> None:
        if found["what"] == "discussions":
            self.reply_json({"discussions": [], "count": 0, "start": 0, "numClosedDiscussions": 0})
        elif found["what"] == "tree":
            entries = repository.tree(path, self.query.get("recursive", [""])[0].lower() in ("true", "1"))
            self.reply_json(entries) if entries else self._refuse("EntryNotFound", 404)
        else:
            self.reply_json(repository.information(commit, "blobs" in self.query))

    def _resolve(self, repository: Repository, commit: str, path: str, _: re.Match[str]) -> None:
        if repository.gated and self.token != TOKEN:
            return self._refuse("GatedRepo", 403 if self.token else 401)
        blob = repository.blobs.get(path)
        if blob is None:
            return self._refuse("EntryNotFound", 404, X_Repo_Commit=commit)
        if not blob.large:
            return self.send_file(blob.path, ETag=f'"{blob.oid}"', X_Repo_Commit=commit)
        linked = {"X_Linked_Etag": f'"{blob.sha256}"', "X_Linked_Size": str(blob.size)}
        location = f"{self.server.owner.cdn.url}/{repository.name}/{blob.sha256}?Expires=4102444800&Signature=s"
        return self.redirect(location, 302, ETag=f'"{blob.oid}"', X_Repo_Commit=commit, **linked)

    def _refuse(self, code: str, status: int, message: str | None = None, **headers: str) -> None:
        message = message or self.refusals[code]
        self.reply_json({"error": message}, status, X_Error_Code=code, X_Error_Message=message, **headers)


class _CdnHandler(Handler):
    def answer(self) -> None:
        url = urlsplit(self.path)
        name, _, oid = url.path.strip("/").rpartition("/")
        repository = self.server.owner.repositories.get(name)
        blob = next((blob for blob in (repository.blobs.values() if repository else ()) if blob.sha256 == oid), None)
        if self.headers.get("Authorization"):
            self.reply(400, b"Only one auth mechanism allowed")
        elif "Signature" not in parse_qs(url.query) or blob is None:
            self.reply(403, b"AccessDenied")
        else:
            self.send_file(blob.path, ETag=f'"{oid}"')
