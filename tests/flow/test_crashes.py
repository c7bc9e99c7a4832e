"""Protects Prefect's states of killed runs: they and their tasks end as Crashed; running ones are left alone."""

from uuid import UUID, uuid4

import pytest

from clepdg_tasks.admin import prefect_crashes
from clepdg_tasks.host.settings import load_settings

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def client(prefect_server):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def api() -> str:
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value()


def running(client) -> tuple[UUID, UUID]:
    """Return a flow run and a task run of it that the server takes for running."""
    from prefect import flow, task
    from prefect.states import Running

    flow_run = client.create_flow_run(flow(lambda: None, name="a flow"), state=Running())
    made = client.create_task_run(task(lambda: None, name="a task"), flow_run.id, dynamic_key="0", state=Running())
    return flow_run.id, made.id


def states(client, flow_run: UUID, task_run: UUID) -> tuple[str, str]:
    return client.read_flow_run(flow_run).state.type.value, client.read_task_run(task_run).state.type.value


def killed(flow_run: UUID) -> None:
    """Write a lock file that no process holds, as a killed run leaves it."""
    folder = prefect_crashes._folder(load_settings())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{flow_run}.lock").touch()


def test_a_killed_run_ends_as_crashed_and_a_running_one_continues(client):
    settings, dead, other = load_settings(), running(client), running(client)
    with prefect_crashes.run_lock(settings, str(other[0])):
        killed(dead[0])
        assert prefect_crashes.report_crashed(settings, api()) == [str(dead[0])]
        assert states(client, *dead) == ("CRASHED", "CRASHED")
        assert states(client, *other) == ("RUNNING", "RUNNING")
    assert prefect_crashes.report_crashed(settings, api()) == []


def test_how_a_run_ended_is_never_changed_and_an_unknown_one_is_forgotten(client):
    from prefect.states import Completed

    settings, (flow_run, task_run) = load_settings(), running(client)
    client.set_flow_run_state(flow_run, Completed(), force=True)
    for name in (flow_run, uuid4()):
        killed(name)
    assert len(prefect_crashes.report_crashed(settings, api())) == 2
    assert states(client, flow_run, task_run) == ("COMPLETED", "CRASHED")
    assert prefect_crashes.report_crashed(settings, api()) == []


def test_a_server_that_is_away_gets_the_state_later(client, caplog):
    settings, dead = load_settings(), running(client)
    killed(dead[0])
    prefect_crashes.report_crashed(settings, "http://127.0.0.1:1/api")
    assert "Could not mark killed runs as crashed" in caplog.text
    assert prefect_crashes.report_crashed(settings, api()) == [str(dead[0])]
    assert states(client, *dead) == ("CRASHED", "CRASHED")
