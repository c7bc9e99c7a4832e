"""Protects alerts to an operator and when Prefect retries a run: alerts by a webhook, retries where they help."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from clepdg.errors import ConfigError
from clepdg_tasks.admin.alerts import deploy_alerts
from clepdg_tasks.admin.prefect_access import api_client
from clepdg_tasks.admin.prefect_deployments import deploy_to
from clepdg_tasks.admin.prefect_server import prefect_for_one_run
from clepdg_tasks.host.settings import load_settings
from tests.unit.conftest import server  # noqa: F401
from tests.unit.servers import Answer, Server

BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock as Webhook
Webhook(name="team", url=sys.argv[1], json_data={"subject": "{{subject}}", "body": "{{body}}"}).save("team")
"""
RUNS = """
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
from prefect.states import Running
from clepdg_flows.clep_dg import clep_dg
from clepdg_flows.run.refresh import SourceStates, report_changes

def flow_of_prefect(run):
    return [{"prefect.resource.id": f"prefect.flow.{run.flow_id}", "prefect.resource.role": "flow",
             "prefect.resource.name": "clep-dg"}]

clep_dg(refresh=True)  # nothing is pinned: no alert
try:
    clep_dg(preset="demo", overrides={"clep.epochs": 0})
except Exception as error:
    print(error)
with get_client(sync_client=True) as client:
    run = client.create_flow_run(clep_dg, name="killed", parameters={"preset": "demo"}, state=Running())
emit_event("prefect.flow-run.heartbeat", {"prefect.resource.id": f"prefect.flow-run.{run.id}"},
           related=flow_of_prefect(run))
report_changes(SourceStates(changes={"emodb": ("emodb: another ETag.",)}))
EventsWorker.drain_all(timeout=30)
"""
DEPLOYED = """
import sys
from uuid import UUID
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from clepdg_flows.clep_dg import clep_dg
from clepdg_flows.run import retries

retries.DELAYS = (1, 1)
with get_client(sync_client=True) as client:
    run = client.read_flow_run(UUID(sys.argv[1]))
run_flow(clep_dg, flow_run=run, parameters=run.parameters)
"""


class Webhook(BaseHTTPRequestHandler):
    """Receiver of messages, which its server keeps."""

    def do_POST(self) -> None:
        self.server.messages.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))  # type: ignore
        self.server.arrived.release()  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[ThreadingHTTPServer]:
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    receiver.messages, receiver.arrived = [], threading.Semaphore(0)  # type: ignore[attr-defined]
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    yield receiver
    receiver.shutdown()


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """Yield address and secret of a server of this test."""
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "home"))
    for name in [n for n in os.environ if n.startswith("PREFECT_") and n != "PREFECT_SERVER_ANALYTICS_ENABLED"]:
        monkeypatch.delenv(name)
    with prefect_for_one_run(load_settings()) as url:
        yield url, os.environ["PREFECT_API_AUTH_STRING"]


def python(program: str, *words: str) -> str:
    environment = {**os.environ, "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True, timeout=240
    )
    return done.stdout + done.stderr


def test_a_failed_a_silent_run_and_a_changed_source_send_a_message(
    own_server: tuple[str, str], webhook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from clepdg_tasks.admin import alerts

    url, secret = own_server
    monkeypatch.setattr(alerts, "SILENT", timedelta(seconds=30))  # a busy machine is silent for 10 s, Prefect's least
    with api_client(url, secret) as api:
        with pytest.raises(ConfigError, match="no such notification block"):
            deploy_alerts(api, "custom-webhook/team")
        said = python(BLOCK, f"http://127.0.0.1:{webhook.server_port}/")
        with pytest.raises(ConfigError, match="custom-webhook/team"):
            deploy_alerts(api, "custom-webhook/taem")
        assert [line.rpartition(": ")[2] for line in deploy_alerts(api, "custom-webhook/team")] == ["new", "new"], said
        (found,) = api.post(
            "/automations/filter", json={"automations": {"name": {"any_": ["clep-dg: run failed"]}}}
        ).json()
        api.patch(f"/automations/{found['id']}", json={"enabled": False}).raise_for_status()
        assert "stays switched off" in deploy_alerts(api, "custom-webhook/team")[1]
        api.patch(f"/automations/{found['id']}", json={"enabled": True}).raise_for_status()
        said = python(RUNS)
        expected = {"Source of emodb changed", "Run demo: Failed", "Run killed: Running"}
        while not expected <= {each["subject"] for each in webhook.messages}:  # one may come twice: see operations.md
            assert webhook.arrived.acquire(timeout=120), (webhook.messages, said)
        time.sleep(12)
    messages = {each["subject"]: each["body"] for each in webhook.messages}
    assert {*messages} == expected, messages
    assert messages["Source of emodb changed"] == "emodb: another ETag."
    assert "clep.epochs" in messages["Run demo: Failed"] and "/runs/flow-run/" in messages["Run demo: Failed"]
    assert "No sign of life for 10 minutes" in messages["Run killed: Running"]


@pytest.mark.parametrize(
    ("answers", "changed", "states"),
    [
        ([Answer(status=404)], {}, ["Failed"]),
        ([Answer()], {"overrides": {"clep.epochs": "x"}}, ["Failed"]),
        ([Answer()], {"sources": {"emodb": "http://127.0.0.1:1/a.zip"}}, ["AwaitingRetry", "AwaitingRetry", "Failed"]),
    ],
    ids=["a wrong address", "a wrong setting", "a source that is away"],
)
def test_a_deployment_is_retried_where_that_can_help(
    answers: list[Answer],
    changed: dict[str, Any],
    states: list[str],
    own_server: tuple[str, str],
    server: Server,  # noqa: F811
) -> None:
    url, secret = own_server
    server.answers = answers
    deploy_to(url, secret, ours=True)
    given = {"backbone": "micro", "corpora": ["emodb"], "sources": {"emodb": server.url}, "until": "source"}
    with api_client(url, secret) as api:
        data = api.get("/deployments/name/clep-dg/data").json()["id"]
        run = api.post(f"/deployments/{data}/create_flow_run", json={"parameters": {**given, **changed}}).json()
        said = python(DEPLOYED, run["id"])
        found = api.get("/flow_run_states/", params={"flow_run_id": run["id"]}).json()
    names = [each["name"] for each in sorted(found, key=lambda each: str(each["timestamp"]))]
    assert [name for name in names if name not in ("Scheduled", "Pending", "Running")] == states, said
