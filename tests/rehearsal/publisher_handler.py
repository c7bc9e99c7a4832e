"""Answer as Zenodo, GitHub, git LFS, Dataverse and web servers do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.rehearsal.serving import Handler, digest, files_below

if TYPE_CHECKING:
    from tests.rehearsal.publishers import Publishers

RAVDESS_ZIP = "Audio_Speech_Actors_01-24.zip"
TESS_ZIP = "paddleaudio/datasets/TESS_Toronto_emotional_speech_set.zip"
TESS_DOI = "doi:10.5683/SP2/E8H2MF"
LFS_JSON = "application/vnd.git-lfs+json"
FIRST_ID = 233_000  # of TESS's files in their repository


class PublisherHandler(Handler):
    """Routes a path "/host/path" to the method of its publisher."""

    def answer(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.publishers: Publishers = self.server.owner
        _, host, *parts = unquote(url.path).split("/")
        answers: dict[str, Callable[[str], None]] = {
            "zenodo.org": self._zenodo,
            "media.githubusercontent.com": self._media,
            "github.com": self._lfs_batch,
            "github-cloud.githubusercontent.com": self._lfs_object,
            "borealisdata.ca": self._dataverse,
            "storage.borealisdata.ca": self._storage,
            "bj.bcebos.com": lambda path: self._archive(path, "tess", TESS_ZIP),
            "www.emodb.bilderbar.info": lambda path: self._archive(path, "emodb", "download/download.zip"),
            "web.eecs.umich.edu": lambda path: self._archive(path, "meld", "~mihalcea/downloads/MELD.Raw.tar.gz"),
            "huggingface.co": self._hub,
            "cdn-lfs.huggingface.co": lambda path: self._archive(path, "meld", "declare-lab/MELD/MELD.Raw.tar.gz"),
        }
        answers.get(host, self._missing)("/".join(parts))

    def _missing(self, path: str) -> None:
        self.reply(404, f"{path} not found".encode())

    def _archive(self, path: str, corpus: str, published: str, **headers: str) -> None:
        if path != published or corpus not in self.publishers.archives:
            return self._missing(path)
        return self.send_file(self.publishers.archives[corpus], **headers)

    def _zenodo(self, path: str) -> None:
        archive = self.publishers.archives.get("ravdess")
        here = f"{self.publishers.url}/zenodo.org/api/records/1188976"
        if archive is None:
            return self._missing(path)
        if path in (f"records/1188976/files/{RAVDESS_ZIP}", f"api/records/1188976/files/{RAVDESS_ZIP}/content"):
            return self.send_file(archive, ETag=f'"md5:{digest(archive, "md5")}"')
        if path != "api/records/1188976":
            return self._missing(path)
        entry = {
            "id": "7b6f0a52-5b7b-4c40-9d2e-6c1a7a3b0d11",
            "key": RAVDESS_ZIP,
            "size": archive.stat().st_size,
            "checksum": f"md5:{digest(archive, 'md5')}",
            "links": {"self": f"{here}/files/{RAVDESS_ZIP}/content"},
        }
        record = {"id": 1188976, "recid": "1188976", "conceptrecid": "1188975", "doi": "10.5281/zenodo.1188976"}
        return self.reply_json(record | {"links": {"self": here}, "files": [entry]})

    def _media(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        file = self._crema_d().get(name)
        if folder != "media/CheyneyComputerScience/CREMA-D/master/AudioWAV" or file is None:
            return self._missing(path)
        return self.send_file(file, ETag=f'"{digest(file)}"')

    def _crema_d(self) -> dict[str, Path]:
        tree = self.publishers.trees.get("crema-d")
        return {file.name: file for file in files_below(tree)} if tree else {}

    def _lfs_batch(self, path: str) -> None:
        if path != "CheyneyComputerScience/CREMA-D.git/info/lfs/objects/batch" or self.command != "POST":
            return self._missing(path)
        if LFS_JSON not in self.headers.get("Accept", "") or LFS_JSON not in self.headers.get("Content-Type", ""):
            return self.reply_json(
                {"message": f"Accept and Content-Type must be {LFS_JSON}"}, 406, Content_Type=LFS_JSON
            )
        asked = json.loads(self.body)
        if asked.get("operation") != "download":
            return self.reply_json({"message": "only downloads"}, 403, Content_Type=LFS_JSON)
        known = {digest(file): file.stat().st_size for file in self._crema_d().values()}
        objects = [self._lfs_answer(item, known) for item in asked["objects"]]
        answer = {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}
        return self.reply_json(answer, Content_Type=LFS_JSON)

    def _lfs_answer(self, item: dict[str, Any], known: dict[str, int]) -> dict[str, Any]:
        oid = {"oid": item["oid"], "size": item["size"]}
        if known.get(item["oid"]) != item["size"]:
            return oid | {"error": {"code": 404, "message": "Object does not exist on the server"}}
        href = f"{self.publishers.url}/github-cloud.githubusercontent.com/alambic/media/{item['oid']}?X-Amz-Signature=s"
        return oid | {"actions": {"download": {"href": href, "expires_at": "2100-01-01T00:00:00Z", "expires_in": 3600}}}

    def _lfs_object(self, path: str) -> None:
        oid = path.removeprefix("alambic/media/")
        file = next((file for file in self._crema_d().values() if digest(file) == oid), None)
        if file is None or "X-Amz-Signature" not in self.query:
            return self._missing(path)
        return self.send_file(file)

    def _tess(self) -> dict[str, Path]:
        tree = self.publishers.trees.get("tess")
        return {str(FIRST_ID + number): file for number, file in enumerate(files_below(tree))} if tree else {}

    def _dataverse(self, path: str) -> None:
        files = self._tess()
        name = path.rpartition("/")[2]
        if path == "api/datasets/:persistentId/" and self.query.get("persistentId") == [TESS_DOI] and files:
            entries = [_dataverse_entry(int(number), file) for number, file in files.items()]
            version = {"datasetPersistentId": TESS_DOI, "versionState": "RELEASED", "files": entries}
            data = {"id": 229_999, "identifier": "SP2/E8H2MF", "protocol": "doi", "latestVersion": version}
            self.reply_json({"status": "OK", "data": data})
        elif path.startswith("api/access/datafile/") and name in files:
            storage = f"{self.publishers.url}/storage.borealisdata.ca/10.5683/SP2/E8H2MF/{name}"
            self.redirect(f"{storage}?X-Amz-Signature=s", 303)
        else:
            self.reply_json({"status": "ERROR", "message": "Not found"}, 404)

    def _storage(self, path: str) -> None:
        file = self._tess().get(path.rpartition("/")[2])
        if file is None or self.command != "GET":  # the address is signed for GET
            return self.reply(403, b"SignatureDoesNotMatch")
        return self.send_file(file, ETag=f'"{digest(file, "md5")}"')

    def _hub(self, path: str) -> None:
        if path != "datasets/declare-lab/MELD/resolve/main/MELD.Raw.tar.gz" or "meld" not in self.publishers.archives:
            return self._missing(path)
        return self.redirect(
            f"{self.publishers.url}/cdn-lfs.huggingface.co/declare-lab/MELD/MELD.Raw.tar.gz?Signature=s"
        )


def _dataverse_entry(number: int, file: Path) -> dict[str, Any]:
    md5 = digest(file, "md5")
    facts = {
        "id": number,
        "persistentId": "",
        "filename": file.name,
        "contentType": "audio/x-wav",
        "filesize": file.stat().st_size,
        "storageIdentifier": f"s3://dataverse:{number}",
        "md5": md5,
        "checksum": {"type": "MD5", "value": md5},
    }
    return {"label": file.name, "restricted": False, "version": 1, "dataFile": facts}
