"""Protects secrets: planted in every place that may hold one, they are used, and are in no file and on no terminal."""

import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clepdg.config.schema import SyntheticConfig
from clepdg.corpora.cards import load_card
from clepdg_tasks.admin import services
from clepdg_tasks.host import children
from tests.unit.conftest import server  # noqa: F401  (a fixture)
from tests.unit.servers import Answer, Server

HUSH = {
    name: f"hush{number}Zk3vP9qW7x"
    for number, name in enumerate(
        (
            "MY_TOKEN",
            "MIRROR_WORD",
            "TRACKER",
            "ENDPOINT",
            "AWS_SECRET_ACCESS_KEY",
            "PGPASSWORD",
            "HF_TOKEN",
            "NEXT_API_KEY",
        )
    )
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> bytes:
    """A zip in EmoDB's layout, from the generator."""
    from clepdg.corpora import synthetic

    folder = tmp_path_factory.mktemp("corpora")
    synthetic.write(load_card("synthetic-3"), SyntheticConfig(utterances=20), folder / "emodb")
    with zipfile.ZipFile(folder / "emodb.zip", "w") as file:
        for path in sorted((folder / "emodb").rglob("*.wav")):
            file.write(path, path.relative_to(folder / "emodb"))
    return (folder / "emodb.zip").read_bytes()


@pytest.fixture
def proxy() -> Iterator[Server]:
    """A proxy of the environment, which stands before no server of this machine."""
    started = Server()
    threading.Thread(target=started.serve_forever, daemon=True).start()
    yield started
    started.shutdown()
    started.server_close()


@pytest.fixture
def mlflow(tmp_path) -> Iterator[int]:
    """Start an MLflow server that keeps all in the folder mlflow; return its port."""
    port, folder = children.free_port(), tmp_path / "mlflow"
    folder.mkdir()
    kept = f"--backend-store-uri sqlite:///{folder}/mlflow.db --artifacts-destination {folder}/kept"
    words = f"-m mlflow server --host 127.0.0.1 --port {port} --workers 1 {kept}"
    with (folder / "server.log").open("wb") as out:
        process = subprocess.Popen([sys.executable, *words.split()], stdout=out, stderr=out, start_new_session=True)
    try:
        children.wait_for("MLflow", f"http://127.0.0.1:{port}/health", process, folder / "server.log")
        yield port
    finally:
        children.end(children.family(process.pid))


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a command, without what the tests' own holds for Prefect and this project."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "CLEPDG_", "MLFLOW_", "NO_PROXY", "no_proxy"))
    }
    telling = {name: value for name, value in HUSH.items() if name not in ("TRACKER", "ENDPOINT")}
    return {
        **kept,
        **telling,
        "CLEPDG_HOME": str(home),
        "CLEPDG_DEVICE": "cpu",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        **more,
    }


def test_a_planted_secret_is_used_and_kept_nowhere(tmp_path, server: Server, archive, mlflow, proxy):  # noqa: F811
    """One corpus comes by an address, one by a mirror, and one breaks off in a library; then other commands."""
    broken = Answer(body=archive, send=1000)
    server.routes = {"/own?token=" + HUSH["MY_TOKEN"]: [Answer(body=archive)], "/kept/a.zip": [Answer(body=archive)]}
    server.answers = [broken]
    site = server.base.rstrip("/")
    own = site.replace("//", "//me:${MY_TOKEN}@")
    home, said = tmp_path / "var", ""
    there = environment(
        home,
        CLEPDG_SECRETS=f"{site}=MY_TOKEN",
        CLEPDG_MIRRORS=f"https://site.example={site.replace('//', '//me:${MIRROR_WORD}@')}/kept",
        CLEPDG_TRACKING_URL=f"http://me:{HUSH['TRACKER']}@127.0.0.1:{mlflow}",
        TMPDIR=str(tmp_path),
        **{name: proxy.base for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY")},
    )

    def command(*words: str, **more: str) -> str:
        ended = subprocess.run(
            [str(services.BIN / "clep-dg"), *words],
            env={**there, **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return ended.stdout + ended.stderr

    sources = [
        f"emodb={own}/own?token=${{MY_TOKEN}}",
        "tess=https://site.example/a.zip",
        f"ravdess=simplecache::{own}/broken.zip",
    ]
    run = [
        "--until",
        "index",
        "--corpora",
        "emodb,tess,ravdess",
        "--allow-partial",
        *(w for s in sources for w in ("--source", s)),
    ]
    said += command("run", *run)
    assert "The source of ravdess can't be reached" in said and "index             emodb" in said, said
    assert any(HUSH["MY_TOKEN"] in path for path in server.paths) and "/kept/a.zip" in server.paths
    assert list((tmp_path / "mlflow" / "kept").rglob("quarantine.parquet"))
    endpoint = {
        "CLEPDG_STORE": "s3://lab/store",
        "AWS_ENDPOINT_URL": f"http://me:{HUSH['ENDPOINT']}@127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "a",
    }
    last = [
        command("status"),
        command("run", "--refresh"),
        command("verify"),
        command("gc", "--dry-run"),
        command("run", *run, CLEPDG_TRACKING_URL=f"http://me:{HUSH['TRACKER']}@127.0.0.1:1"),
        command("status", "--preset", "demo", **endpoint),
        command(
            "run",
            "--preset",
            "demo",
            "--source",
            f"synthetic-1=http://me:{HUSH['MY_TOKEN']}/@host/a?jwt={HUSH['MY_TOKEN']}",
        ),
        command("status", "--preset", "demo", CLEPDG_STORE=f"http://me:{HUSH['ENDPOINT']}@host/"),
    ]
    assert "can't be reached" in last[5] and "may be a secret" in last[6] and "not supported" in last[7], last
    said += "".join(last)
    assert not [line for line in said.splitlines() if any(value in line for value in HUSH.values())]
    for value in (value.encode() for value in HUSH.values()):
        found = [
            path
            for path in tmp_path.rglob("*")
            if path.is_file() and (value in path.read_bytes() or value in bytes(path))
        ]
        assert found == []
    assert proxy.requests == []
