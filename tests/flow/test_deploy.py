"""Protects `clep-dg deploy`: what an operator set stays, what prefect.yaml changed is deployed, typos are explained."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from clepdg.errors import ClepError, ConfigError
from clepdg_tasks.admin import deploy as deployments
from clepdg_tasks.admin.prefect_access import api_client
from clepdg_tasks.admin.prefect_deployments import deploy_to
from clepdg_tasks.host.settings import PREFECT_YAML

pytestmark = pytest.mark.usefixtures("prefect_server")

WRITTEN = yaml.safe_load(PREFECT_YAML.read_text())
NAMES = [each["name"] for each in WRITTEN["deployments"]]


@pytest.fixture
def url() -> str:
    from prefect.settings import PREFECT_API_URL

    return str(PREFECT_API_URL.value())


@pytest.fixture
def api(url: str) -> Iterator[httpx.Client]:
    """Return a client of a server without deployments."""
    with api_client(url, None) as client:
        for each in client.post("/deployments/filter", json={}).json():
            client.delete(f"/deployments/{each['id']}")
        yield client


@pytest.fixture
def project_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes prefect.yaml of the working folder, changed."""
    monkeypatch.chdir(tmp_path)

    def write(change: Any = lambda deployments: None) -> None:
        whole = copy.deepcopy(WRITTEN)
        change({each["name"]: each for each in whole["deployments"]})
        (tmp_path / "prefect.yaml").write_text(yaml.safe_dump(whole))

    return write


def read(api: httpx.Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/deployments/name/clep-dg/{name}").raise_for_status().json()
    return found


def slugs(api: httpx.Client) -> dict[str | None, tuple[Any, bool]]:
    """Return slug -> (cron or interval, active), of the deployment refresh."""
    schedules = read(api, "refresh")["schedules"]
    return {s["slug"]: (s["schedule"].get("cron") or s["schedule"].get("interval"), s["active"]) for s in schedules}


def test_what_an_operator_set_stays(url: str, api: httpx.Client, project_yaml: Any) -> None:
    project_yaml()
    assert deploy_to(url, None, ours=False) == [f"clep-dg/{name}: new" for name in NAMES]
    assert slugs(api) == {"weekly": ("0 3 * * 1", True)}
    refresh, demo, clep = (read(api, name)["id"] for name in ("refresh", "demo", "clep"))
    by_hand = {"schedule": {"interval": 3600}, "active": True}
    api.post(f"/deployments/{refresh}/schedules", json=[by_hand]).raise_for_status()
    (weekly,) = (s["id"] for s in read(api, "refresh")["schedules"] if s["slug"])
    api.patch(f"/deployments/{refresh}/schedules/{weekly}", json={"active": False}).raise_for_status()
    api.post(f"/deployments/{demo}/pause_deployment").raise_for_status()
    api.patch(f"/deployments/{clep}", json={"parameters": {"preset": "demo", "until": "clep"}}).raise_for_status()

    kept = {"weekly": ("0 3 * * 1", False), None: (3600.0, True)}
    assert deploy_to(url, None, ours=False) == [f"{len(NAMES)} deployments are as prefect.yaml says"]
    assert (slugs(api), read(api, "demo")["paused"]) == (kept, True)
    assert read(api, "clep")["parameters"]["preset"] == "demo"

    def change(found: dict[str, Any]) -> None:
        found["demo"]["description"] = "Another."
        found["refresh"]["schedules"][0]["cron"] = "0 4 * * 1"

    project_yaml(change)
    said = deploy_to(url, None, ours=False)
    assert said[:2] == [f"clep-dg/{name}: updated, what is paused stays so" for name in ("demo", "refresh")]
    assert len(said) == 3
    assert slugs(api) == kept | {"weekly": ("0 4 * * 1", False)}
    assert (read(api, "demo")["description"], read(api, "demo")["paused"]) == ("Another.", True)

    api.delete(f"/deployments/{refresh}/schedules/{weekly}").raise_for_status()
    deploy_to(url, None, ours=False)
    assert slugs(api) == {None: (3600.0, True)}, "a schedule that an operator removed came back"
    assert len(deploy_to(url, None, ours=False, force=True)) == len(NAMES)
    assert slugs(api) == {None: (3600.0, True), "weekly": ("0 4 * * 1", True)}
    assert read(api, "clep")["parameters"] == {"until": "clep"} and read(api, "demo")["paused"]


def test_a_corpus_that_was_added_is_known_after_the_next_deploy(
    url: str, api: httpx.Client, project_yaml: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.utilities import callables

    project_yaml()
    deploy_to(url, None, ours=False)
    before = callables.parameter_schema

    def with_corpus(flow: Any) -> Any:
        schema = before(flow)
        schema.properties["sources"]["anyOf"][0]["propertyNames"]["enum"] += ["mine"]
        return schema

    run = {"parameters": {"sources": {"mine": "/data"}}}
    create = f"/deployments/{read(api, 'full')['id']}/create_flow_run"
    refused = api.post(create, json=run)
    assert refused.status_code == 409 and "'mine'" in refused.text
    monkeypatch.setattr(callables, "parameter_schema", with_corpus)
    assert len(deploy_to(url, None, ours=False)) == len(NAMES)
    assert api.post(create, json=run).status_code == 201


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"work_pol": {}}, "does not know this key"),
        ({"schedules": [{"cron": "0 3 * * 1"}]}, "and a slug"),
        ({"schedules": [{"corn": "0 3 * * 1", "slug": "weekly"}]}, "corn"),
        ({"work_pool": "clep-dg"}, "can't be read"),
    ],
)
def test_what_can_not_be_deployed_is_one_error(wrong: dict[str, Any], match: str, project_yaml: Any) -> None:
    project_yaml(lambda found: found["demo"].update(wrong))
    with pytest.raises(ConfigError, match=match):
        deployments.read_entries(deployments.prefect_yaml())


def test_a_pool_that_is_not_there_is_named(url: str, api: httpx.Client, project_yaml: Any) -> None:
    project_yaml(lambda found: found["demo"].update(work_pool={"name": "cluster"}))
    with pytest.raises(ClepError, match="prefect work-pool create cluster"):
        deploy_to(url, None, ours=False)


def test_another_projects_prefect_yaml_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefect.yaml").write_text("name: another\ndeployments: []\n")
    assert deployments.prefect_yaml() == PREFECT_YAML
