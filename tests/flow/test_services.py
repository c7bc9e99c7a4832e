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

from clepdg import hashing
from clepdg.errors import ClepError
from clepdg_tasks.admin import prefect_server, services
from clepdg_tasks.admin.prefect_server import prefect_for_one_run
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
        path, _, name = deployment["entrypoint"].partition(":")
        flow = load_flow_from_entrypoint(f"{PROJECT / path}:{name}", use_placeholder_flow=False)
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
        assert listening(started) == {"127.0.0.1"}
        run = ["prefect", "deployment", "run", "clep-dg/data", "--param", "preset=demo", "--watch"]
        small = ["--param", 'overrides={"synthetic.utterances": 16}']
        done = deployment(run + small, project)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(list((settings.home / "store" / "shard").glob("*/stage.json"))) == 5
        again = deployment(run + small, project)
        assert "Reused * shard synthetic-1" in " ".join(again.stdout.split())
        wrong = deployment([*run[:4], "--param", "preset=full"], project)
        assert wrong.returncode != 0
        assert "'full' is not one of" in wrong.stdout + wrong.stderr
        the_refresh(started["prefect"].url)
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
    refresh = httpx.get(f"{url}/deployments/name/clep-dg/refresh", timeout=30, trust_env=False).json()
    (weekly,) = refresh["schedules"]
    assert (weekly["schedule"]["cron"], weekly["schedule"]["timezone"], weekly["active"]) == ("0 3 * * 1", "UTC", True)
    return dict(refresh)


@pytest.mark.slow
def test_a_schedule_fires(project, taken, home):
    """Check that a refresh every 15 seconds really runs and finds nothing to do."""
    often = [{"schedule": {"interval": 15}, "active": True, "parameters": {"preset": "demo"}}]
    try:
        url = services.up()["prefect"].url
        small = ["--param", "preset=demo", "--param", 'overrides={"synthetic.utterances": 16}']
        done = deployment(["prefect", "deployment", "run", "clep-dg/data", *small, "--watch"], project)
        assert done.returncode == 0, done.stdout + done.stderr
        assert_it_runs(url, the_refresh(url), often)
    finally:
        services.down()


def assert_it_runs(url: str, refresh: dict[str, Any], often: list[dict[str, Any]]) -> None:
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as api:
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


def test_the_kubernetes_example_can_be_deployed(project, prefect_server):
    """A pool of that kind needs no cluster to be deployed to."""
    from prefect.settings import PREFECT_API_URL

    text = (PROJECT / "prefect.yaml").read_text()
    example = [line.removeprefix("#") for line in text.splitlines() if line.startswith(("#  - <<", "#    "))]
    kept = text.partition("  - <<: *common\n    name: fold\n")[0]
    (project / "prefect.yaml").unlink()
    (project / "prefect.yaml").write_text(kept + "\n".join(example) + "\n")
    os.environ["PREFECT_API_URL"] = str(PREFECT_API_URL.value())
    try:
        made = deployment(["prefect", "work-pool", "create", "clep-dg-kubernetes", "--type", "kubernetes"], project)
        assert made.returncode == 0, made.stdout + made.stderr
        done = deployment(["prefect", "--no-prompt", "deploy", "--name", "fold"], project)
        assert done.returncode == 0, done.stdout + done.stderr
        with httpx.Client(base_url=os.environ["PREFECT_API_URL"], timeout=30, trust_env=False) as api:
            deployed = api.get("/deployments/name/clep-dg/fold").json()
    finally:
        del os.environ["PREFECT_API_URL"]
    assert deployed["work_pool_name"] == "clep-dg-kubernetes"
    assert deployed["job_variables"]["image"] == "clep-dg:0.2.0"
    assert deployed["job_variables"]["env"]["CLEPDG_DEVICE"] == "cuda:0"
    assert deployed["concurrency_limit"] is None
    assert deployed["pull_steps"] == [
        {"prefect.deployments.steps.set_working_directory": {"directory": "/opt/clep-dg"}}
    ]


def test_a_pid_that_belongs_to_somebody_else_is_left_alone(home):
    settings = load_settings()
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        service = processes.Service(pid=other.pid, token="mine", url="http://127.0.0.1:1", log="")
        hashing.write_json(settings.home / processes.STATE, {"prefect": service.__dict__})
        assert processes.read_services(settings) == {}
        services.down()
        assert other.poll() is None
    finally:
        other.kill()


def test_a_service_is_known_whatever_the_clock_says(home, monkeypatch):
    import psutil

    settings = load_settings()
    environment = {**os.environ, processes.TOKEN: "ours"}
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment)
    try:
        service = processes.Service(pid=process.pid, token="ours", url="http://127.0.0.1:1", log="")
        hashing.write_json(settings.home / processes.STATE, {"prefect": service.__dict__})
        for seconds in (0.0, 9e9):
            monkeypatch.setattr(psutil.Process, "create_time", lambda self, seconds=seconds: seconds)
            assert processes.read_services(settings) == {"prefect": service}
        monkeypatch.undo()
        monkeypatch.setenv("CLEPDG_HOME", str(settings.home))
        assert services.down() == ["prefect"]
        assert process.wait(30) is not None
    finally:
        process.kill()


def test_a_server_that_can_not_start_says_why(home, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    broken = [sys.executable, "-c", "raise SystemExit('no luck')"]
    monkeypatch.setattr(prefect_server, "prefect_command", lambda port: broken)
    with pytest.raises(ClepError, match="no luck"), prefect_for_one_run(load_settings()):
        pass


def test_another_server_at_the_same_port_is_not_taken_for_ours(home):
    """As when two are started at once and both found the port free."""
    port = children.free_port()
    other = subprocess.Popen([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], cwd=home)
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + 60
        while not children.answers(url):
            assert time.monotonic() < deadline
        with pytest.raises(ClepError, match="taken"):
            command = [sys.executable, "-c", "import time; time.sleep(2); raise SystemExit('taken')"]
            processes.start_service(load_settings(), "ours", command, url, url, {})
    finally:
        other.kill()
        other.wait(30)
