"""Deploy prefect.yaml to a Prefect server, and change nothing that an operator set.

Only what is missing, or changed in prefect.yaml, is written: a deployment's version holds digests of what was deployed.
Never written are whether a deployment or a schedule is paused, and schedules that prefect.yaml does not name.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.errors import ClepError, ConfigError, counted
from clepdg.hashing import digest
from clepdg_tasks.host.settings import PREFECT_YAML, PROJECT

if TYPE_CHECKING:
    import httpx

NAME: Final = "clep-dg"  # of the project in prefect.yaml, and of its flow
SCHEDULES: Final = ("cron", "interval", "rrule")
TIMES: Final = ("timezone", "day_or", "anchor_date")
SCHEDULE_KEYS: Final = (*SCHEDULES, *TIMES, "slug", "active", "parameters", "max_scheduled_runs")
KEYS: Final = (
    *("name", "description", "entrypoint", "parameters", "tags", "work_pool", "schedules", "concurrency_limit"),
    *("pull", "paused"),
)


@dataclass(frozen=True)
class Entry:
    """Deployment of prefect.yaml, in the words of Prefect's API.

    Attributes:
        fields: all but what an operator decides.
        schedules: slug -> schedule.
        paused: whether it is new in state paused.
    """

    fields: dict[str, Any]
    schedules: dict[str, dict[str, Any]]
    paused: bool = False

    @property
    def version(self) -> str:
        """Return digests of its fields and of its schedules."""
        return f"{digest(self.fields)[:12]}.{digest(self.schedules)[:12]}"


def prefect_yaml() -> Path:
    """Return the working folder's prefect.yaml, if it is of this project.

    Otherwise that of the checkout or of the installed package.
    """
    import yaml

    own = Path.cwd() / "prefect.yaml"
    try:
        mine = own.is_file() and yaml.safe_load(own.read_text()).get("name") == NAME
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
        mine = False
    return own if mine else PREFECT_YAML


def read_entries(path: Path) -> list[Entry]:
    """Return the deployments of a prefect.yaml.

    {{ $NAME }} in it is replaced by the variable of the environment.

    Raises:
        ConfigError: it can't be read, or a deployment can't be deployed as it is written.
    """
    import yaml
    from prefect.utilities.templating import apply_values

    try:
        raw = yaml.safe_load(path.read_text())
        listed: Any = apply_values(raw["deployments"], dict(os.environ), remove_notset=False)
        pull = raw.get("pull", [{"prefect.deployments.steps.set_working_directory": {"directory": str(PROJECT)}}])
        return [_entry(each, pull, path) for each in listed]
    except ConfigError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ConfigError("prefect.yaml can't be read.", got=error, where=path) from error


def _entry(raw: dict[str, Any], pull: Any, path: Path) -> Entry:
    from prefect.flows import Flow, load_flow_from_entrypoint
    from prefect.utilities.callables import parameter_schema

    where = f"{path}, {raw.get('name')}"
    if odd := sorted({*raw} - {*KEYS}):
        do = f"remove it, or deploy this one with Prefect's own command: prefect deploy --name {raw.get('name')}"
        raise ConfigError("clep-dg deploy does not know this key.", got=odd, expected=KEYS, where=where, do=do)
    flow: Flow[..., Any] = load_flow_from_entrypoint(raw["entrypoint"], use_placeholder_flow=False)
    pool, limit = raw["work_pool"], raw.get("concurrency_limit")
    schema = parameter_schema(flow).model_dump_for_openapi() | {"additionalProperties": False}
    fields = {
        "name": raw["name"],
        "description": raw.get("description") or flow.description,
        "entrypoint": raw["entrypoint"],
        "parameters": raw.get("parameters") or {},
        "tags": raw.get("tags") or [],
        "work_pool_name": pool["name"],
        "job_variables": pool.get("job_variables") or {},
        "concurrency_limit": limit["limit"] if isinstance(limit, dict) else limit,
        "pull_steps": raw.get("pull", pull),
        "parameter_openapi_schema": schema,
        "enforce_parameter_schema": True,
    }
    fields |= {"work_queue_name": pool["work_queue_name"]} if pool.get("work_queue_name") else {}
    if isinstance(limit, dict) and "collision_strategy" in limit:
        fields["concurrency_options"] = {name: value for name, value in limit.items() if name != "limit"}
    schedules = [_schedule(each, where) for each in raw.get("schedules") or ()]
    return Entry(fields, {each["slug"]: each for each in schedules}, bool(raw.get("paused")))


def _schedule(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    odd = sorted({*raw} - {*SCHEDULE_KEYS})
    if odd or not raw.get("slug") or sum(name in raw for name in SCHEDULES) != 1:
        expected = "cron, interval or rrule, and a slug, by which it is found again"
        raise ConfigError("A schedule can't be deployed.", got=odd or dict(raw), expected=expected, where=where)
    rule = {name: raw[name] for name in (*SCHEDULES, *TIMES) if name in raw}
    rule |= {"anchor_date": str(rule["anchor_date"])} if "anchor_date" in rule else {}  # YAML reads it as a time
    others = {name: raw[name] for name in ("parameters", "max_scheduled_runs") if name in raw}
    return {"schedule": rule, "slug": raw["slug"], "active": bool(raw.get("active", True)), **others}


def deploy(client: "httpx.Client", entries: list[Entry], *, force: bool = False) -> list[str]:
    """Create deployments that are missing, and update those that changed.

    Args:
        client: of the server's API.
        force: update all.

    Returns:
        A line for each that was written, and how many were not.

    Raises:
        ClepError: the server refuses one; those before it are deployed.
        httpx.HTTPError: it does not answer.
    """
    flow = _sent(client, "POST", "/flows/", {"name": NAME})["id"]
    written = [line for entry in entries if (line := _deploy_one(client, flow, entry, force))]
    same = len(entries) - len(written)
    unchanged = f"{counted(same, 'deployment')} {'is' if same == 1 else 'are'} as prefect.yaml says"
    return [*written, *([unchanged] if same else [])]


def _deploy_one(client: "httpx.Client", flow: str, entry: Entry, force: bool) -> str | None:
    """Create or update one deployment; return what was done, or None."""
    name, body = f"{NAME}/{entry.fields['name']}", {**entry.fields, "version": entry.version}
    answer = ask(client, "GET", f"/deployments/name/{name}")
    if answer.status_code == 404:
        _check_pool(client, entry.fields["work_pool_name"])
        schedules = [*entry.schedules.values()]
        _sent(
            client, "POST", "/deployments/", {**body, "flow_id": flow, "schedules": schedules, "paused": entry.paused}
        )
        return f"{name}: new"
    now = answer.raise_for_status().json()
    known = str(now["version"] or "")
    if known == entry.version and not force:
        return None
    _check_pool(client, entry.fields["work_pool_name"])
    _sent(client, "PATCH", f"/deployments/{now['id']}", {n: v for n, v in body.items() if n != "name"})
    if force or known.partition(".")[2] != entry.version.partition(".")[2]:
        _update_schedules(client, now, entry)
    paused = now["paused"] or any(not each["active"] for each in now["schedules"])
    return f"{name}: updated{', what is paused stays so' if paused else ''}"


def _update_schedules(client: "httpx.Client", now: Mapping[str, Any], entry: Entry) -> None:
    """Write the schedules of prefect.yaml; those that are there stay paused."""
    there = {each["slug"]: each["id"] for each in now["schedules"]}
    for slug, schedule in entry.schedules.items():
        if slug in there:
            kept = {name: value for name, value in schedule.items() if name != "active"}
            _sent(client, "PATCH", f"/deployments/{now['id']}/schedules/{there[slug]}", kept)
        else:
            _sent(client, "POST", f"/deployments/{now['id']}/schedules", [schedule])


def _check_pool(client: "httpx.Client", pool: str) -> None:
    if ask(client, "GET", f"/work_pools/{pool}").status_code == 404:
        do = f"create it: prefect work-pool create {pool} --type process (or kubernetes, or another)"
        raise ClepError("prefect.yaml names a work pool that Prefect's server does not have.", got=pool, do=do)


def _sent(client: "httpx.Client", method: str, path: str, body: Any) -> Any:
    answer = ask(client, method, path, body)
    if answer.is_client_error:
        raise ClepError("Prefect's server refuses what is to be deployed.", got=answer.text[:2000], where=path)
    return answer.raise_for_status().json() if answer.content else None


def ask(client: "httpx.Client", method: str, path: str, body: Any = None, attempts: int = 10) -> "httpx.Response":
    """Return the answer of Prefect's server.

    It is busy (503) while SQLite is locked: while it starts, or ends what a killed one left.
    """
    while True:
        answer = client.request(method, path, json=body)
        attempts -= 1
        if answer.status_code != 503 or not attempts:
            return answer
        time.sleep(2)


def in_words(schedule: Mapping[str, Any]) -> str:
    """Return a schedule of Prefect's API in words."""
    rule = schedule["schedule"]
    when = rule.get("cron") or rule.get("rrule") or f"every {rule.get('interval')} s"
    given = f", with {schedule['parameters']}" if schedule.get("parameters") else ""
    name, state = schedule.get("slug") or "without a name", "" if schedule["active"] else ", paused"
    return f"{name}: {when} {rule.get('timezone') or 'UTC'}{given}{state}"
