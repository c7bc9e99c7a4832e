"""Two Prefect automations that send messages: a source changed; a run failed or shows no sign of life."""

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from clepdg.errors import ConfigError
from clepdg_tasks.admin.deploy import NAME, ask

if TYPE_CHECKING:
    import httpx
    from prefect.events.schemas.automations import AutomationCore

SOURCE_CHANGED: Final = "clep-dg.source.changed"  # event that a refresh emits
SILENT: Final = timedelta(minutes=10)  # running flows send an event every three minutes
SOURCE: Final = ("Source of {{ event.payload.corpus }} changed", "{{ event.payload.message }}")
RUN: Final = (
    "Run {{ flow_run.name }}: {{ flow_run.state.name }}",
    "{% if flow_run.state.name in ('Failed', 'Crashed', 'TimedOut') %}{{ flow_run.state.message }}"
    "{% else %}No sign of life for 10 minutes: look at its worker, and at the machine that it ran on.{% endif %}\n"
    "Started {{ flow_run.start_time.strftime('%Y-%m-%d %H:%M UTC') }}: {{ flow_run | ui_url or flow_run.id }}",
)


def deploy_alerts(client: "httpx.Client", block: str) -> list[str]:
    """Create or update the automations; one that is switched off stays so.

    Args:
        client: of the API of Prefect's server.
        block: the notification block that sends the messages, as TYPE/NAME ("slack-webhook/team").

    Returns:
        A line for each.

    Raises:
        ConfigError: there is no such block, or it sends no messages.
        httpx.HTTPError: the server does not answer.
    """
    return [_deploy_one(client, automation) for automation in automations(find_block(client, block))]


def check_block(block: str) -> None:
    """Raise where a text is no name of a block, which needs no server.

    Raises:
        ConfigError: it is not TYPE/NAME.
    """
    if not re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", block):
        expected = "TYPE/NAME, for example slack-webhook/team"
        raise ConfigError("This is no name of a notification block.", got=block, expected=expected, where="--alerts")


def automations(block_id: UUID) -> "list[AutomationCore]":
    """Return both automations, which send through a notification block."""
    from prefect.automations import AutomationCore, CompoundTrigger, EventTrigger, Posture, SendNotification

    def send(texts: tuple[str, str]) -> Any:
        return SendNotification(block_document_id=block_id, subject=texts[0], body=texts[1])

    ours: dict[str, Any] = {
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {"prefect.resource.role": "flow", "prefect.resource.name": NAME},
        "for_each": {"prefect.resource.id"},
    }
    ends = {f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")}
    failed = EventTrigger(posture=Posture.Reactive, expect=ends, threshold=1, within=timedelta(0), **ours)
    silent = EventTrigger(
        posture=Posture.Proactive,
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},
        threshold=1,
        within=SILENT,
        **ours,
    )
    changed = EventTrigger(
        posture=Posture.Reactive,
        match={"prefect.resource.id": "clep-dg.source.*"},
        expect={SOURCE_CHANGED},
        for_each={"prefect.resource.id"},
        threshold=1,
        within=timedelta(0),
    )
    either = CompoundTrigger(require="any", within=timedelta(0), triggers=[failed, silent])
    return [
        AutomationCore(
            name=f"{NAME}: source changed",
            description="A publisher changed a corpus; its download stays in use.",
            trigger=changed,
            actions=[send(SOURCE)],
        ),
        AutomationCore(
            name=f"{NAME}: run failed",
            description=f"A run of {NAME} failed, crashed, or sent no heartbeat for 10 minutes.",
            trigger=either,
            actions=[send(RUN)],
        ),
    ]


def _deploy_one(client: "httpx.Client", automation: "AutomationCore") -> str:
    wanted = {"automations": {"name": {"any_": [automation.name]}}}
    found = ask(client, "POST", "/automations/filter", wanted).raise_for_status().json()
    body = automation.model_dump(mode="json")
    if not found:
        ask(client, "POST", "/automations/", body).raise_for_status()
        return f"automation {automation.name}: new"
    off = not found[0]["enabled"]
    path = f"/automations/{found[0]['id']}"
    update = {key: value for key, value in body.items() if key != "owner_resource"} | {"enabled": not off}
    ask(client, "PUT", path, update).raise_for_status()
    return f"automation {automation.name}: updated{', stays switched off' if off else ''}"


def find_block(client: "httpx.Client", block: str) -> UUID:
    """Return the id of a notification block.

    Raises:
        ConfigError: there is none of this name, or it sends no messages.
    """
    check_block(block)
    kind, _, name = block.partition("/")
    answer = ask(client, "GET", f"/block_types/slug/{kind}/block_documents/name/{name}")
    if answer.is_success:
        found = answer.json()
        if "notify" in found["block_schema"]["capabilities"]:
            return UUID(found["id"])
    wanted = {"block_schemas": {"block_capabilities": {"all_": ["notify"]}}}
    listed = ask(client, "POST", "/block_documents/filter", wanted).raise_for_status().json()
    raise ConfigError(
        "There is no such notification block." if answer.is_error else "This block sends no messages.",
        got=block,
        expected=[f"{each['block_type']['slug']}/{each['name']}" for each in listed] or "TYPE/NAME",
        where="--alerts",
        do="create one in Prefect's page under Blocks, or in Python: SlackWebhook(url=...).save('team')",
    )
