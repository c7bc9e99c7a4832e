"""Protects `make up` and `make down`: three servers that answer, deployments that run, and nothing left behind."""

import os
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from clepdg.errors import ClepError
from clepdg_tasks.admin import services
from clepdg_tasks.admin.prefect_access import api_client, read_secret, secret_file
from clepdg_tasks.admin.prefect_server import prefect_for_one_run
from clepdg_tasks.engine import pinned
from clepdg_tasks.host import children, processes
from clepdg_tasks.host.settings import PROJECT, load_settings

BIN = Path(sys.executable).parent
ENDED = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]


def test_every_entrypoint_loads_for_real():
    from prefect.flows import load_flow_from_entrypoint

    deployments = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    assert {d["name"] for d in deployments} == {
        *("full", "demo", "refresh", "data", "clep", "acpt", "text-embeddings", "classifier", "evaluate", "fold"),
    }
    parameters = set()
    for deployment in deployments:
        flow = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
        assert flow.name == "clep-dg"
        flow.validate_parameters(deployment.get("parameters", {}))
        parameters |= set(deployment.get("parameters", {}))
    assert parameters == {"preset", "until", "refresh"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "dmo"},
        {"corpora": ["radvess"]},
        {"sources": {"radvess": "x"}},
        {"sources": {"ravdess": 5}},
        {"until": "training"},
        {"redo": ["training"]},
        {"allow_partial": "maybe"},
        {"folds": ["leave-out-radvess"]},
        {"overrides": {"clep.epoch": 3}},
    ],
)
def test_a_wrong_parameter_is_refused_by_the_schema_that_the_server_has(wrong):
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools import validate

    from clepdg_flows.clep_dg import clep_dg

    schema = parameter_schema(clep_dg).model_dump_for_openapi()
    right = {"preset": "open", "corpora": ["tess"], "sources": {"tess": "x"}, "until": "shard", "redo": ["index"]}
    right |= {"folds": ["supervised", "leave-out-tess"], "overrides": {"clep.epochs": "3", "classifier.steps": 5}}
    validate(right, schema, raise_on_error=True)
    with pytest.raises(Exception, match="radvess|dmo|training|maybe|5|clep.epoch"):
        validate(right | wrong, schema, raise_on_error=True)


@pytest.fixture
def taken():
    """Hold the ports that `up` would like best."""
    held = []
    for port in (4200, 5000, 8080):
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", port))
            holder.listen()
        except OSError:  # somebody else holds it: as good
            pass
        held.append(holder)
    yield
    for holder in held:
        holder.close()


def test_up_run_a_deployment_up_again_and_down(project, taken, home):
    settings = load_settings()
    (settings.home / "settings.toml").write_text("workers = 1\n")
    try:
        started = services.up()
        assert set(started) == {"prefect", "mlflow", "worker"}
        assert not {4200, 5000, 8080} & {int(s.url.split(":")[2].split("/")[0]) for s in started.values()}
        assert tomllib.loads((project / "prefect.toml").read_text())["api"]["url"] == started["prefect"].url
        written = tomllib.loads((settings.home / "settings.toml").read_text())
        assert written == {"workers": 1, "tracking_url": started["mlflow"].url}
        assert services.up() == started
        assert (project / "prefect.toml").stat().st_mode & 0o777 == 0o600
        assert secret_file(settings).stat().st_mode & 0o777 == 0o600
        assert listening(started) == {"127.0.0.1"}
        with prefect_for_one_run(settings) as url:
            assert (url, os.environ["PREFECT_API_AUTH_STRING"]) == (started["prefect"].url, read_secret(settings))
        run = ["prefect", "deployment", "run", "clep-dg/data", "--param", "preset=demo", "--watch"]
        small = ["--param", 'overrides={"synthetic.utterances": 20}']
        done = deployment(run + small, project)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(list((settings.home / "store" / "shard").glob("*/stage.json"))) == 5
        again = deployment(run + small, project)
        assert "Reused * shard synthetic-1" in " ".join(again.stdout.split())
        wrong = deployment([*run[:4], "--param", "preset=full"], project)
        assert wrong.returncode != 0
        assert "'full' is not one of" in wrong.stdout + wrong.stderr
        the_refresh(started["prefect"].url)
        refuses_strangers(started["prefect"].url, read_secret(settings))
        assert services.up() == started
    finally:
        stopped = services.down()
    assert set(stopped) == {"prefect", "mlflow", "worker"}
    assert processes.read_services(settings) == {}
    assert not (project / "prefect.toml").exists()
    assert tomllib.loads((settings.home / "settings.toml").read_text()) == {"workers": 1}
    assert not any(children.answers(service.url) for service in started.values())
    assert services.down() == []


def the_refresh(url: str) -> dict[str, Any]:
    """Return the deployment refresh; check that it is scheduled weekly."""
    with api_client(url, read_secret(load_settings())) as api:
        refresh = api.get("/deployments/name/clep-dg/refresh").json()
    (weekly,) = refresh["schedules"]
    assert (weekly["schedule"]["cron"], weekly["schedule"]["timezone"], weekly["active"]) == ("0 3 * * 1", "UTC", True)
    return dict(refresh)


def refuses_strangers(url: str, secret: str | None) -> None:
    """Check that others read and start nothing, and that no flow run chooses its command."""
    page = url.removesuffix("/api")
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with httpx.Client(timeout=30, trust_env=False) as other:
        assert other.get(f"{url}/deployments/name/clep-dg/full").status_code == 401
        assert other.get(f"{url}/csrf-token?client=me").status_code == 401
        simple = {"Content-Type": "text/plain", "Origin": "http://other.example"}  # sent without a preflight
        assert other.post(f"{url}/flow_runs/filter", content="{}", headers=simple).status_code == 403
        for origin, status in (("http://other.example", 400), (page, 200)):
            assert other.options(f"{url}/flow_runs/filter", headers=ask | {"Origin": origin}).status_code == status
        assert other.get(page, headers={"Host": "other.example"}).status_code == 400
        assert "html" in other.get(page, follow_redirects=True).text  # the page itself, which then asks for the secret
        assert other.get(f"{page}/ui-settings").json()["auth"] == "BASIC"
        user, _, password = str(secret).partition(":")
        assert other.post(f"{url}/flow_runs/filter", json={}, auth=(user, password)).status_code == 403  # no CSRF token
    with api_client(url, secret) as api:
        data = api.get("/deployments/name/clep-dg/data").json()
        for variables in (
            {"command": "id"},
            {"env": {"PYTHONPATH": "/tmp"}},
            {"env.PATH": "/tmp"},
            {"working_dir": "/"},
        ):
            answer = api.post(f"/deployments/{data['id']}/create_flow_run", json={"job_variables": variables})
            assert answer.status_code == 422 and "not allowed" in answer.text
    with pytest.raises(ClepError, match="asks for a secret"), api_client(url, "clep-dg:guess"):
        pass


@pytest.mark.slow
def test_a_schedule_fires(project, taken, home):
    """Check that a refresh every 15 seconds really runs and finds nothing to do."""
    often = [{"schedule": {"interval": 15}, "active": True, "parameters": {"preset": "demo"}}]
    try:
        url = services.up()["prefect"].url
        small = ["--param", "preset=demo", "--param", 'overrides={"synthetic.utterances": 20}']
        done = deployment(["prefect", "deployment", "run", "clep-dg/data", *small, "--watch"], project)
        assert done.returncode == 0, done.stdout + done.stderr
        pinned.pin(load_settings(), pinned.finished_runs(load_settings())[0].run)
        assert_it_runs(url, the_refresh(url), often)
    finally:
        services.down()


def assert_it_runs(url: str, refresh: dict[str, Any], often: list[dict[str, Any]]) -> None:
    with api_client(url, read_secret(load_settings())) as api:
        answer = api.post(f"/deployments/{refresh['id']}/schedules", json=often)
        assert answer.is_success, answer.text
        wanted = {"deployments": {"id": {"any_": [refresh["id"]]}}, "flow_runs": {"state": {"type": {"any_": ENDED}}}}
        deadline = time.monotonic() + 240
        while not (runs := api.post("/flow_runs/filter", json=wanted).json()) and time.monotonic() < deadline:
            time.sleep(1)
        assert runs[0]["auto_scheduled"] and runs[0]["state"]["type"] == "COMPLETED", runs
        assert runs[0]["parameters"]["refresh"] is True
        wanted = {"flow_runs": {"id": {"any_": [runs[0]["id"]]}}}
        names = {run["state"]["name"] for run in api.post("/task_runs/filter", json=wanted).json()}
        assert names == {"Reused"}


def listening(started: dict[str, processes.Service]) -> set[str]:
    """Return the addresses that what `up` started listens on."""
    import psutil

    roots = [psutil.Process(service.pid) for service in started.values()]
    family = [process for root in roots for process in (root, *root.children(recursive=True))]
    sockets = [c for process in family for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert len(sockets) >= len(started)
    return {c.laddr.ip for c in sockets}


def deployment(words: list[str], project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / words[0]), *words[1:]],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ),
    )
