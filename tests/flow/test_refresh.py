"""Protects `refresh`: nothing comes down again, only what is stale runs, and a person sees what a publisher changed."""

import io
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from clepdg.config.schema import SyntheticConfig
from clepdg.corpora import cards
from clepdg.corpora.cards import Address, load_card
from clepdg.errors import ClepError
from clepdg_flows.cli import main
from clepdg_flows.graph import pipeline
from clepdg_flows.run import plan, refresh
from clepdg_tasks.admin.alerts import SOURCE_CHANGED
from clepdg_tasks.engine import pinned
from clepdg_tasks.host.settings import load_settings
from clepdg_tasks.stages import data
from clepdg_tasks.tracking import lineage
from tests.unit.conftest import server  # noqa: F401
from tests.unit.servers import Answer, Server

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home for each test: what a refresh repeats is the last run."""
    return tmp_path / "a home"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Return a folder in EmoDB's layout, from the generator."""
    from clepdg.corpora import synthetic

    folder = tmp_path_factory.mktemp("corpora") / "emodb"
    synthetic.write(load_card("synthetic-3"), SyntheticConfig(utterances=20), folder)
    return folder


@pytest.fixture
def published(tree, server: Server, monkeypatch) -> Server:  # noqa: F811
    """Let EmoDB's card name an archive on a local server."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(tree.rglob("*.wav")):
            archive.writestr(zipfile.ZipInfo(path.relative_to(tree).as_posix()), path.read_bytes())
    server.answers = [Answer(body=buffer.getvalue())]
    original = load_card

    def load(name: str):
        card = original(name)
        split = original("synthetic-3").split
        return replace(card, sources=(Address(url=server.url),), split=split) if name == "emodb" else card

    for module in (cards, plan, pipeline, refresh, data, lineage):
        monkeypatch.setattr(module, "load_card", load)
    monkeypatch.setattr(main, "load_card", load, raising=False)
    return server


def run(**options):
    from clepdg_flows.clep_dg import clep_dg

    arguments = {
        "backbone": "micro",
        "corpora": ["emodb"],
        "until": "shard",
        "allow_partial": True,
        "overrides": {"protocols": "supervised"},
    }
    result = clep_dg(preset="open", **{**arguments, **options})
    pinned.pin(load_settings(), result["run"])
    return result


def refreshed(**options):
    from clepdg_flows.clep_dg import clep_dg

    return clep_dg(preset="open", refresh=True, **options)


def client():
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


def events() -> list[dict]:
    """Return the events of changed sources that the server has."""
    with client() as prefect:
        wanted = {"event": {"name": [SOURCE_CHANGED]}, "occurred": {"since": "2020-01-01T00:00:00Z"}}
        return prefect.request("POST", "/events/filter", json={"filter": wanted, "limit": 50}).json()["events"]


def artifact(key: str) -> str:
    with client() as prefect:
        wanted = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": 1}
        return str(prefect.request("POST", "/artifacts/filter", json=wanted).json()[0]["data"])


def test_where_nothing_is_pinned_it_ends_and_says_so():
    state = refreshed(return_state=True)
    assert (state.name, state.type.value) == ("Skipped", "COMPLETED") and "Nothing is pinned" in state.message
    result = state.result()
    assert result["stages"] == {} and result["run"] is None
    assert not (load_settings().open_store().root / "runs").exists()


def test_neither_a_later_nor_an_unfinished_run_is_taken(published):
    first = run()
    pin = pinned.pinned(load_settings())
    from clepdg_flows.clep_dg import clep_dg

    clep_dg(preset="open", backbone="micro", corpora=["emodb"], until="source", allow_partial=True)
    with pytest.raises(ClepError):
        clep_dg(preset="open", backbone="micro", corpora=["emodb"], until="shard")
    assert pinned.pinned(load_settings()) == pin
    assert refreshed()["stages"] == first["stages"]
    assert first["run"] in {each.run for each in pinned.finished_runs(load_settings())}


def test_nothing_changed_asks_once_and_downloads_nothing(published):
    first = run()
    assert first["computed"] == 3
    published.requests.clear()
    result = refreshed()
    assert (result["computed"], result["reused"], result["notes"]) == (0, 3, [])
    assert result["stages"] == first["stages"]
    assert published.requests == [("HEAD", None)]


def test_a_changed_publisher_is_seen_and_the_corpus_stays(published, caplog, capsys, monkeypatch):
    first, before = run(), len(events())
    right = published.answers[0]
    published.answers = [Answer(body=right.body + b"more", etag='"two"')]
    published.requests.clear()
    result = refreshed()
    assert result["stages"] == first["stages"] and result["computed"] == 0
    assert {method for method, _ in published.requests} == {"HEAD"}
    (note,) = result["notes"]
    assert '"one" -> "two"' in note and "stays in use" in note
    assert note in caplog.text
    assert note in artifact("results") and "emodb" in artifact("decisions")
    from prefect.events.worker import EventsWorker

    EventsWorker.drain_all(timeout=30)
    found = wait_for(lambda: events()[before:])
    assert found[0]["payload"]["corpus"] == "emodb"
    assert found[0]["resource"]["prefect.resource.id"] == "clep-dg.source.emodb"
    log = json.loads(newest_log().read_text())
    assert log["notes"] == [note] and log["outcome"] == "completed"
    monkeypatch.setattr(cards, "load_card", cards.load_card)
    main.main(["status"])
    assert note in capsys.readouterr().out
    published.answers = [right]
    assert refreshed()["notes"] == []


def wait_for(call):
    """Return what a call gives once it gives something: events arrive a moment later."""
    import time

    deadline = time.monotonic() + 60
    while not (found := call()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def newest_log() -> Path:
    return max((load_settings().open_store().root / "runs").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)


def test_a_publisher_that_can_not_be_reached_is_a_note(published):
    first = run()
    published.answers = [Answer(status=503)]
    result = refreshed()
    assert result["stages"] == first["stages"] and result["computed"] == 0
    assert "HTTP 503" in result["notes"][0]


def test_what_was_deleted_is_downloaded_again_and_held_to_its_record(published):
    first = run()
    shutil.rmtree(load_settings().open_store().local("source", first["stages"]["source/emodb"]))
    result = refreshed()
    assert result["computed"] == 1 and result["stages"] == first["stages"]


def test_the_users_own_address_is_asked_once_and_is_stale_when_it_changed(published):
    first = run(sources={"emodb": published.url})
    published.requests.clear()
    assert refreshed()["computed"] == 0
    assert published.requests == [("HEAD", None)]
    published.answers[0].etag = '"two"'
    result = refreshed()
    assert result["computed"] == 1  # the same files under another name: what follows is reused
    assert result["stages"]["shard/emodb"] == first["stages"]["shard/emodb"]
    published.answers = [Answer(status=500)]
    again = refreshed()
    assert again["computed"] == 0 and again["stages"] == result["stages"]
    assert "HTTP 500" in again["notes"][0] and "stays in use" in again["notes"][0]
    assert events_of_own() == []


def events_of_own() -> list[dict]:
    return [event for event in events() if "HTTP" in event["payload"]["message"]]


def test_the_users_own_folder_is_stale_when_a_file_came(published, tree, tmp_path):
    folder = Path(shutil.copytree(tree, tmp_path / "mine"))
    run(sources={"emodb": str(folder)})
    assert refreshed()["computed"] == 0
    wav = sorted(folder.rglob("*.wav"))[0]
    shutil.copy(wav, wav.with_name(wav.stem[:-1] + "f.wav"))
    assert refreshed()["computed"] == 3
    shutil.move(folder, tmp_path / "unmounted")
    result = refreshed()
    assert result["computed"] == 0 and "does not exist" in result["notes"][0]


def test_the_command_line_has_it_too(published, capsys):
    run()
    published.requests.clear()
    import os

    from prefect.settings import PREFECT_API_URL

    os.environ["PREFECT_API_URL"] = str(PREFECT_API_URL.value())
    try:
        main.main(["run", "--refresh"])
    finally:
        del os.environ["PREFECT_API_URL"]
    assert "3 stages up to date" in capsys.readouterr().out
    assert {method for method, _ in published.requests} == {"HEAD"}
