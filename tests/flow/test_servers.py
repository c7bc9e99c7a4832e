"""Protects servers of `make up` and of one run: found again, ended, closed to strangers, and clear when they fail."""

import http.server
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from clepdg import hashing
from clepdg.errors import ClepError
from clepdg_tasks.admin import prefect_access, prefect_database, prefect_deployments, prefect_server, services
from clepdg_tasks.admin.prefect_server import prefect_for_one_run
from clepdg_tasks.host import children, processes
from clepdg_tasks.host.settings import load_settings

SLEEPING = [sys.executable, "-c", "import time; time.sleep(600)"]
ANSWERING = """
import http.server, json, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(os.environ)).encode())
    def log_message(self, *words):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "a home").mkdir()
    return tmp_path / "a home"


@pytest.fixture
def alone(monkeypatch) -> None:
    """No Prefect server of the user's."""
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def answering(alone, monkeypatch) -> None:
    """A server that answers every request with its environment, in the place of Prefect's."""
    monkeypatch.setattr(prefect_server, "prefect_command", lambda port: [sys.executable, "-c", ANSWERING, str(port)])


def test_the_server_of_one_run_is_closed_to_others(answering, home):
    with prefect_for_one_run(load_settings()) as url:
        server = httpx.get(url, trust_env=False).json()
        assert os.environ["PREFECT_API_AUTH_STRING"] == server["PREFECT_SERVER_API_AUTH_STRING"]
        assert (
            server.items()
            >= prefect_access.server_environment(urlsplit(url).port, os.environ["PREFECT_API_AUTH_STRING"]).items()
        )
        first = os.environ["PREFECT_API_AUTH_STRING"]
    assert "PREFECT_API_AUTH_STRING" not in os.environ
    with prefect_for_one_run(load_settings()):
        assert os.environ["PREFECT_API_AUTH_STRING"] != first
    assert not [path for path in home.rglob("*") if path.is_file() and first.encode() in path.read_bytes()]


def test_the_settings_have_prefects_names(monkeypatch):
    from prefect.settings import Settings

    for name, value in prefect_access.server_environment(4321, "me:secret").items():
        monkeypatch.setenv(name, value)
    for name, value in prefect_access.client_environment("http://127.0.0.1:4321/api", "me:secret").items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.server.api.auth_string.get_secret_value() == "me:secret"
    assert settings.server.api.csrf_protection_enabled
    assert settings.server.api.cors_allowed_origins == "http://127.0.0.1:4321,http://localhost:4321"
    assert settings.server.ui.api_url == settings.api.url == "http://127.0.0.1:4321/api"
    assert settings.api.auth_string.get_secret_value() == "me:secret"
    assert settings.client.csrf_support_enabled


@pytest.mark.parametrize(
    ("host", "auth", "status"),
    [
        ("other.example", ("me", "secret"), 400),
        ("127.0.0.1", ("me", "secret"), 200),
        ("localhost", ("me", "secret"), 200),
        ("127.0.0.1", ("me", "guess"), 401),
        ("127.0.0.1", None, 401),
    ],
)
def test_requests_need_the_host_and_the_secret(host, auth, status):
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING, PREFECT_UI_ENABLED, temporary_settings
    from starlette.testclient import TestClient

    from clepdg_flows.run.prefect_app import create_app

    with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: "me:secret", PREFECT_UI_ENABLED: False}):
        client = TestClient(create_app(), base_url=f"http://{host}:4200")
        assert client.get("/api/version", auth=auth).status_code == status


def test_a_secret_is_private_and_stays(home):
    settings = load_settings()
    first = prefect_access.keep_secret(settings)
    path = prefect_access.secret_file(settings)
    assert path.stat().st_mode & 0o777 == 0o600
    assert prefect_access.keep_secret(settings) == first == prefect_access.read_secret(settings)
    path.chmod(0o644)  # others may have read it
    assert prefect_access.keep_secret(settings) != first
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_can_not_be_written_is_no_reason_to_fail(project, home, monkeypatch):
    settings, said = load_settings(), list[str]()
    (project / "prefect.toml").mkdir()  # what a read-only checkout answers, for root too
    prefect_deployments.write_prefect_toml(settings, "http://127.0.0.1:1/api", "me:secret", said.append)
    written = home / "prefect.toml"
    assert "me:secret" in written.read_text() and written.stat().st_mode & 0o777 == 0o600
    assert len(said) == 1 and str(home) in said[0]
    assert services.down() == [] and not written.exists()


UP = """
import sys
from clepdg_tasks.admin import services
services.prefect_command = lambda port: [sys.executable, "-c", "import time; time.sleep(600)"]
sys.argv[1:] = ["up"]
services.main()
"""


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_up_leaves_nothing_that_down_does_not_find(by, home):
    settings = load_settings()
    process = subprocess.Popen([sys.executable, "-c", UP], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait(lambda: (found := processes.written_services(settings)) and found["prefect"].pid)
        server = processes.written_services(settings)["prefect"]
        process.send_signal(by)
        said = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert b"Traceback" not in said
    assert len(processes.processes_of(server)) == (by == signal.SIGKILL)
    assert services.down() == ["prefect"] * (by == signal.SIGKILL)
    assert not processes.processes_of(server)


@pytest.mark.parametrize("known", [True, False])
def test_the_next_up_ends_what_an_interrupted_one_left(known, home, monkeypatch):
    """It may have been killed before it knew the process's number."""
    settings = load_settings()
    left = subprocess.Popen(SLEEPING, env={**os.environ, processes.TOKEN: "left"})
    try:
        half = processes.Service(pid=left.pid * known, token="left", url="http://127.0.0.1:1", log="")
        processes.write_service(settings, "prefect", half)
        for name in ("prefect", "mlflow", "worker"):
            service = processes.Service(pid=0, token=name, url="http://127.0.0.1:1", log="")
            monkeypatch.setattr(services, f"_start_{name}", lambda *_, service=service: service)
        assert {name: service.token for name, service in services.up().items()} == {n: n for n in services.up()}
        assert left.wait(30) is not None
        assert all(service.ready for service in processes.written_services(settings).values())
    finally:
        left.kill()


def test_a_server_without_its_deployments_is_ended(answering, home, monkeypatch):
    def interrupted(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(services, "prefect_command", prefect_server.prefect_command)
    monkeypatch.setattr(services, "deploy_to", interrupted)
    with pytest.raises(KeyboardInterrupt):
        services.up()
    (server,) = processes.written_services(load_settings()).values()
    assert server.pid and not server.ready and not processes.processes_of(server)


@pytest.mark.parametrize("written", ["[]", "{", '{"prefect": 3}', '{"prefect": {"pid": 1}}'])
def test_a_damaged_list_of_services_is_an_empty_one(written, home):
    (home / processes.STATE).write_text(written)
    assert processes.written_services(load_settings()) == {}


def test_a_server_that_can_not_start_says_why(alone, home, monkeypatch):
    settings = load_settings()
    log = settings.home / "logs" / "prefect-one-run.log"
    log.parent.mkdir()
    log.write_text("OldError: of another run\n")
    failing = "import sys; sys.exit('Traceback:\\n  File x\\nsqlalchemy.exc.DatabaseError: no luck\\nExiting.')"
    monkeypatch.setattr(prefect_server, "prefect_command", lambda port: [sys.executable, "-c", failing])
    with pytest.raises(ClepError) as caught, prefect_for_one_run(settings):
        pass
    assert caught.value.got == "it ended with code 1: sqlalchemy.exc.DatabaseError: no luck"
    monkeypatch.setattr(prefect_server, "prefect_command", lambda port: [sys.executable, "-c", "raise SystemExit(3)"])
    monkeypatch.setattr(children.resource, "getrlimit", lambda which: (204800, -1))
    with pytest.raises(ClepError) as caught, prefect_for_one_run(settings):
        pass
    assert caught.value.got == "it ended with code 3: it wrote no reason"
    assert "ulimit -f" in str(caught.value.do)


def test_the_log_of_a_server_has_its_errors_whatever_the_terminal_shows(answering, home, monkeypatch):
    for name in ("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "PREFECT_LOGGING_LEVEL", "PREFECT_INTERNAL_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "CRITICAL")
    with prefect_for_one_run(load_settings()) as url:
        server = httpx.get(url, trust_env=False).json()
    assert {server[name] for name in server if name.startswith("PREFECT_") and "LEVEL" in name} == {"WARNING", "ERROR"}


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda whole: b"not a database" * 100,
    lambda whole: whole[:4096] + b"?" * 4096 + whole[8192:],
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_database_is_put_aside(damage, answering, home):
    said, folder = list[str](), home / "prefect"
    folder.mkdir()
    database = folder / "prefect.db"
    with sqlite3.connect(database) as opened:
        opened.execute("create table runs (name text)")
        opened.executemany("insert into runs values (?)", [("a run" * 100,) for _ in range(50)])
    opened.close()
    for content, notes in ((database.read_bytes(), 0), (damage(database.read_bytes()), 1)):
        database.write_bytes(content)
        with prefect_for_one_run(load_settings(), said.append):
            pass
        assert len(said) == notes
    (aside,) = folder.glob("prefect.db.damaged-*")
    assert aside.read_bytes() == content and not database.exists()
    assert str(aside) in said[0]


def test_first_starts_wait_for_each_other(home):
    settings, order = load_settings(), list[str]()
    entered = threading.Event()

    def start(name: str) -> None:
        with prefect_database.prepared_database(settings):
            order.append(f"{name} starts")
            entered.set()
            if name == "first":
                time.sleep(0.5)
                (home / "prefect" / "prefect.db").touch()
            order.append(f"{name} answers")

    first, second = (threading.Thread(target=start, args=(name,)) for name in ("first", "second"))
    first.start()
    entered.wait(30)
    second.start()
    for thread in (first, second):
        thread.join(30)
    assert order == ["first starts", "first answers", "second starts", "second answers"]
    with prefect_database.prepared_database(settings):  # the tables are there: no one waits
        start("third")


@pytest.mark.parametrize("there", [True, False])
def test_no_request_is_retried_once_the_server_is_gone(there):
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from clepdg_flows.run.server_away import expect_server

    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    if there:
        threading.Thread(target=server.handle_request, daemon=True).start()
    else:
        server.server_close()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
        before = PREFECT_CLIENT_MAX_RETRIES.value()
        expect_server(0)
        assert PREFECT_CLIENT_MAX_RETRIES.value() == (before if there else 0)
    server.server_close()


def wait(until: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


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


def test_another_server_at_the_same_port_is_not_taken_for_ours(home, monkeypatch):
    """As when two are started at once and both found the port free."""
    port = children.free_port()
    other = subprocess.Popen([sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"], cwd=home)
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + 60
        with monkeypatch.context() as patched:
            patched.setattr(ssl, "create_default_context", None)  # reads all certificates, at each of many questions
            while not children.answers(url):
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert not children.answers(f"{url}nothing")
        with pytest.raises(ClepError, match="taken"):
            command = [sys.executable, "-c", "import time; time.sleep(2); raise SystemExit('taken')"]
            processes.start_service(load_settings(), "ours", command, url, url, {})
    finally:
        other.kill()
        other.wait(30)
