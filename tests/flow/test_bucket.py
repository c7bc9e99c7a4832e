"""Protects the flow over a store in a bucket: a second machine reuses all; no secret is kept."""

import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clepdg.errors import SourceError
from clepdg_flows.cli.main import main
from clepdg_tasks.host.settings import load_settings
from clepdg_tasks.tracking import client as tracking
from tests.flow.test_flow import TINY, real_cards, trees  # noqa: F401  (fixtures)
from tests.s3 import S3, environment
from tests.unit.conftest import server  # noqa: F401  (a fixture)
from tests.unit.servers import Answer

pytestmark = pytest.mark.usefixtures("prefect_server")

HUSH = "hush-Zk3vP9qW7x"
SMALL = {**TINY, "rows": "majority,clep-zero-shot,text-acpt", "protocols": "supervised"}


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    started = S3()
    for name, value in {**environment(started.url), "AWS_SECRET_ACCESS_KEY": HUSH}.items():
        monkeypatch.setenv(name, value)
    started.client().create_bucket(Bucket="lab")
    yield started
    started.stop()


def test_two_machines_on_one_bucket_and_no_secret_anywhere(request, s3, tmp_path, monkeypatch, caplog, capsys):
    web, folders, _ = (request.getfixturevalue(name) for name in ("server", "trees", "real_cards"))
    from clepdg_flows.clep_dg import clep_dg

    caplog.set_level(logging.INFO)
    for name in ("MLFLOW_TRACKING_PASSWORD", "PREFECT_API_KEY_OF_NOBODY", "MY_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, HUSH)
    archive = tmp_path / "ravdess.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(Path(folders["ravdess"]).rglob("*.wav")):
            file.write(path, path.relative_to(folders["ravdess"]))
    web.answers = [Answer(body=archive.read_bytes())]
    url = web.url.replace("127", "me:${MY_TOKEN}@127") + "?token=${MY_TOKEN}"
    monkeypatch.setenv("CLEPDG_SECRETS", f"{web.base}=MY_TOKEN")
    monkeypatch.setenv("CLEPDG_STORE", "s3://lab/store")
    monkeypatch.setenv("CLEPDG_TRACKING_URL", f"sqlite:///{tmp_path}/mlflow.db")

    def run(machine: str, **changes: object) -> dict:
        monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / machine))
        sources = {"ravdess": url, "emodb": folders["emodb"]}
        return clep_dg(
            preset="open",
            backbone="micro",
            corpora=["ravdess", "emodb"],
            sources={**sources, **changes.pop("sources", {})},
            allow_partial=True,
            overrides={**SMALL, **changes},
        )

    first = run("a")
    assert first["computed"] == len(first["stages"])
    versions = len(tracking.connect(load_settings()).search_model_versions("name = 'clep-dg-classifier'"))
    s3.requests.clear()
    second = run("b")
    assert (second["computed"], second["mlflow_run"], second["stages"]) == (0, None, first["stages"])
    files = [path for method, path in s3.requests if method == "GET" and path.count("/") == 6]
    assert {path.split("/")[3] for path in files if not path.endswith("/mlflow.json")} == {"report"}  # to be shown
    third = run("b", **{"classifier.steps": 7})
    names = {stage.partition("/")[0] for stage, key in third["stages"].items() if key not in first["stages"].values()}
    assert names == {"classifier", "evaluate", "report"}
    client = tracking.connect(load_settings())
    assert (
        len(client.search_model_versions("name = 'clep-dg-classifier'")) == versions + 1
    )  # one row is learnt in steps

    main(["status"])
    main(["verify"])
    main(["gc", "--dry-run"])
    said = capsys.readouterr().out
    assert "stages are up to date" in said and "0 damaged" in said and "0 items" in said

    before = s3.objects("lab")
    with pytest.raises(SourceError, match="may be a secret"):
        run("b", sources={"ravdess": web.url + f"?token={HUSH}"})
    assert s3.objects("lab") == before
    assert any(HUSH in path for path in web.paths)  # it was used ...
    found = [path for path in tmp_path.rglob("*") if path.is_file() and HUSH.encode() in path.read_bytes()]
    bodies = {name: s3.client().get_object(Bucket="lab", Key=name)["Body"].read() for name in before}
    assert found == []  # ... and kept nowhere: store, cache, logs, MLflow's database and artifacts
    assert [name for name, body in bodies.items() if HUSH.encode() in body or HUSH in name] == []
    assert HUSH not in caplog.text + said
    assert "${MY_TOKEN}" in b"".join(body for name, body in bodies.items() if "/runs/" in name).decode()
