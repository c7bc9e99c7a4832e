"""Protect the stand-ins: real clients work, answers keep their shapes."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from clepdg import prompts
from clepdg.corpora import CORPORA
from clepdg.corpora.parsing import Utterance
from tests.rehearsal.clap import FILES, make_clap
from tests.rehearsal.corpora import ROOT
from tests.rehearsal.hub import TOKEN, Hub, Repository
from tests.rehearsal.publishers import Publishers

NAME = "laion/clap-htsat-unfused"
CLIENT = """
import json, sys
import huggingface_hub as hub
from huggingface_hub import errors
from transformers import AutoTokenizer

name, commit, token = sys.argv[1:]
info = hub.HfApi().model_info(name, files_metadata=True)
said = {s.rfilename: [s.size, s.lfs and s.lfs.sha256] for s in info.siblings}
folder = hub.snapshot_download(name, revision=commit)
file = hub.hf_hub_download(name, "config.json")
words = AutoTokenizer.from_pretrained(name, revision=commit).tokenize("speech recorded in x")
refusals = []
for ask in (
    lambda: hub.snapshot_download("tests/gated"),
    lambda: hub.hf_hub_download("tests/gated", "config.json", token="bad"),
    lambda: hub.snapshot_download("tests/absent"),
    lambda: hub.HfApi().model_info("tests/absent"),
    lambda: hub.hf_hub_download(name, "config.json", revision="absent"),
    lambda: hub.HfApi().model_info(name, revision="absent"),
    lambda: hub.hf_hub_download(name, "absent.json"),
):
    try:
        refusals.append(repr(ask()))
    except Exception as error:
        refusals.append(type(error).__name__)
gated = hub.HfApi().model_info("tests/gated").gated
opened = hub.snapshot_download("tests/gated", token=token)
print(json.dumps([info.sha, said, folder, file, words, refusals, gated, opened]))
"""


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clap(tmp_path_factory.mktemp("clap"), tiny=True)


@pytest.fixture(scope="module")
def publishers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publishers]:
    with Publishers(tmp_path_factory.mktemp("publishers"), per_class=1) as publishers:
        yield publishers


@pytest.fixture(scope="module")
def web() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as web:
        yield web


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_hubs_clients_download_and_meet_its_refusals(web: httpx.Client, clap: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    model, gated = Repository.of_folder(NAME, clap), Repository.of_folder("tests/gated", clap, gated=True)
    commit = model.revisions["main"]
    with Hub([model, gated]) as hub:
        environment |= {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-c", CLIENT, NAME, commit, TOKEN]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        sha, said, folder, file, words, refusals, flag, opened = json.loads(ended.stdout.splitlines()[-1])
        weights = (clap / "pytorch_model.bin").read_bytes()
        assert sha == commit and sorted(said) == sorted(FILES) and Path(file).parent == Path(folder)
        assert said["pytorch_model.bin"] == [len(weights), sha256(weights)] and said["config.json"][1] is None
        for name in FILES:
            assert (
                (Path(folder) / name).read_bytes() == (Path(opened) / name).read_bytes() == (clap / name).read_bytes()
            )
        assert words[-1] == f"Ġ{prompts.PLACEHOLDER}" and flag == "manual"
        gates, absences = ["GatedRepoError"] * 2, ["RepositoryNotFoundError"] * 2
        assert refusals == [*gates, *absences, *["RevisionNotFoundError"] * 2, "RemoteEntryNotFoundError"]
        assert {method for method, _ in hub.cdn.requests} == {"GET"}
        part = web.get(f"{hub.cdn.url}/{NAME}/{sha256(weights)}?Signature=s", headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, weights[10:20])


def test_the_tiny_clap_is_a_whole_model_with_one_token_placeholders(clap: Path) -> None:
    import torch
    from transformers import AutoTokenizer, ClapModel

    model, info = ClapModel.from_pretrained(clap, use_safetensors=False, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert sum(path.stat().st_size for path in clap.iterdir()) < 20e6
    log_mels = torch.full((1, 1, 1001, 64), -60.0).uniform_(-80, 0)
    assert torch.isfinite(model.eval().audio_model(input_features=log_mels).pooler_output).all()
    tokenizer = AutoTokenizer.from_pretrained(clap)
    assert [tokenizer.convert_tokens_to_ids(word) for word in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    texts = [template.format(emotion="sad") for template in prompts.CAPTION_TEMPLATES] + ["a x", "x"]
    assert [len(tokenizer.tokenize(text)) for text in texts] == [len(text.split()) for text in texts]


@pytest.mark.parametrize(
    ("corpus", "url"),
    [
        ("ravdess", "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip?download=1"),
        ("emodb", "http://www.emodb.bilderbar.info/download/download.zip"),
        ("meld", "http://web.eecs.umich.edu/~mihalcea/downloads/MELD.Raw.tar.gz"),
        ("meld", "https://huggingface.co/datasets/declare-lab/MELD/resolve/main/MELD.Raw.tar.gz"),
    ],
)
def test_published_archives_hold_what_their_grammars_read(
    web: httpx.Client, publishers: Publishers, tmp_path: Path, corpus: str, url: str
) -> None:
    address = at(publishers, url)
    whole = web.get(address, follow_redirects=True)
    again = {"Range": f"bytes={len(whole.content) - 9}-", "If-Range": whole.headers["ETag"]}
    rest = web.get(address, headers=again, follow_redirects=True)
    assert rest.status_code == 206 and rest.content == whole.content[-9:] and whole.headers["Last-Modified"]
    unpack(whole.content, tmp_path)
    require_utterances(corpus, tmp_path, publishers.trees[corpus])


def at(publishers: Publishers, url: str) -> str:
    for host, mirror in publishers.mirrors.items():
        if url.startswith(f"{host}/"):
            return mirror + url.removeprefix(host)
    raise AssertionError(url)


def unpack(archive: bytes, folder: Path) -> None:
    if zipfile.is_zipfile(io.BytesIO(archive)):
        zipfile.ZipFile(io.BytesIO(archive)).extractall(folder)
        return
    tarfile.open(fileobj=io.BytesIO(archive)).extractall(folder, filter="data")
    for inner in sorted(folder.rglob("*.tar.gz")):
        tarfile.open(inner).extractall(inner.parent, filter="data")


def require_utterances(corpus: str, root: Path, tree: Path) -> None:
    items = list(CORPORA[corpus](root))
    spoken = [item for item in items if isinstance(item, Utterance)]
    files = [path for path in tree.rglob("*") if path.suffix in (".wav", ".mp4")]
    assert len(spoken) == len(items) == len(files) >= 20
    assert all((root / item.path).is_file() for item in spoken)
    assert len([count for count in Counter(item.raw_label for item in spoken).values() if count >= 3]) == 4


def test_single_files_come_from_git_lfs_and_the_table_names_them(
    web: httpx.Client, publishers: Publishers, tmp_path: Path
) -> None:
    publishers.write_cards(tmp_path)
    with (tmp_path / "crema-d.files.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    folder = at(publishers, "https://media.githubusercontent.com/media/CheyneyComputerScience/CREMA-D/master/AudioWAV/")
    assert {sha256(web.get(folder + row["path"]).content) for row in rows} == {row["sha256"] for row in rows}
    require_utterances("crema-d", publishers.trees["crema-d"], publishers.trees["crema-d"])
    batch = at(publishers, "https://github.com/CheyneyComputerScience/CREMA-D.git/info/lfs/objects/batch")
    objects = [{"oid": rows[0]["sha256"], "size": int(rows[0]["bytes"])}, {"oid": 64 * "0", "size": 5}]
    kind = "application/vnd.git-lfs+json"
    question = json.dumps({"operation": "download", "transfers": ["basic"], "objects": objects})
    answer = web.post(batch, content=question, headers={"Accept": kind, "Content-Type": kind})
    assert answer.status_code == 200 and answer.headers["Content-Type"] == kind
    known, unknown = answer.json()["objects"]
    assert sha256(web.get(known["actions"]["download"]["href"]).content) == known["oid"] == rows[0]["sha256"]
    assert unknown["error"]["code"] == 404 and "actions" not in unknown
    assert web.post(batch, json={"operation": "download", "objects": objects}).status_code == 406


def test_dataverse_lists_files_and_redirects_to_its_storage(
    web: httpx.Client, publishers: Publishers, tmp_path: Path
) -> None:
    base = publishers.mirrors["https://borealisdata.ca"]
    listing = web.get(f"{base}/api/datasets/:persistentId/?persistentId=doi:10.5683/SP2/E8H2MF").json()
    for item in listing["data"]["latestVersion"]["files"]:
        facts = item["dataFile"]
        answer = web.get(f"{base}/api/access/datafile/{facts['id']}")
        assert answer.status_code == 303
        content = web.get(answer.headers["Location"]).content
        assert (len(content), hashlib.md5(content).hexdigest()) == (facts["filesize"], facts["md5"])
        (tmp_path / facts["filename"]).write_bytes(content)
    require_utterances("tess", tmp_path, publishers.trees["tess"])


def test_cards_name_the_stand_ins_and_a_change_shows(web: httpx.Client, publishers: Publishers, tmp_path: Path) -> None:
    publishers.write_cards(tmp_path)
    for path in sorted(tmp_path.glob("*.toml")):
        original = (ROOT / "data_manifests" / path.name).read_text().splitlines()
        pairs = zip(path.read_text().splitlines(), original, strict=True)
        changed = [line.split()[0] for line, before in pairs if line != before]
        assert changed == (["bytes", "md5"] if path.stem == "ravdess" else [])
    source = tomllib.loads((tmp_path / "ravdess.toml").read_text())["sources"][0]
    record = web.get(at(publishers, "https://zenodo.org/api/records/1188976")).json()
    [entry] = record["files"]
    assert (entry["size"], entry["checksum"]) == (source["bytes"], f"md5:{source['md5']}")
    assert web.head(at(publishers, source["url"])).headers["Content-Length"] == str(source["bytes"])
    for corpus, url in (
        ("emodb", "http://www.emodb.bilderbar.info/download/download.zip"),
        ("meld", "http://web.eecs.umich.edu/~mihalcea/downloads/MELD.Raw.tar.gz"),
    ):
        before = web.head(at(publishers, url)).headers
        publishers.change(corpus)
        after = web.get(at(publishers, url))
        assert all(before[name] != after.headers[name] for name in ("ETag", "Last-Modified", "Content-Length"))
        unpack(after.content, tmp_path / corpus)
        require_utterances(corpus, tmp_path / corpus, publishers.trees[corpus])
    assert ("HEAD", "/www.emodb.bilderbar.info/download/download.zip") in publishers.requests
