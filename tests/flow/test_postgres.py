"""Protects Prefect and MLflow on PostgreSQL: `make up` starts on it, a run is in it, no password is written down."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clepdg_tasks.admin import services
from clepdg_tasks.host import children
from clepdg_tasks.host.settings import load_settings
from tests.flow.test_services import deployment

pytestmark = [pytest.mark.slow, pytest.mark.system]

SECRET = "a-planted-password"


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs: Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


@pytest.fixture
def postgres() -> Iterator[int]:
    """Start PostgreSQL on a free port of 127.0.0.1, with a password and databases prefect and mlflow; give the port."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    root = os.geteuid() == 0
    if root and not shutil.which("runuser"):
        pytest.skip("PostgreSQL does not run as root, and there is no runuser to leave it")
    folder = Path(tempfile.mkdtemp(prefix="clep-dg-postgres-"))  # pytest's own folders are closed to other users
    (folder / "password").write_text(SECRET)
    if root:
        shutil.chown(folder, "postgres")
        shutil.chown(folder / "password", "postgres")

    def call(*words: str) -> None:
        leave = ["runuser", "-u", "postgres", "--"] if root else []
        done = subprocess.run([*leave, *words], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    port = children.free_port()
    data, log = str(folder / "data"), str(folder / "log")
    words = ("-U", "clepdg", "--auth", "scram-sha-256", "--pwfile", str(folder / "password"), "--no-sync")
    call(str(programs / "initdb"), "-D", data, *words)
    options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -p {port} -c fsync=off"
    call(str(programs / "pg_ctl"), "-D", data, "-l", log, "-o", options, "-w", "start")
    try:
        import psycopg2

        server = psycopg2.connect(host="127.0.0.1", port=port, user="clepdg", password=SECRET, dbname="postgres")
        server.autocommit = True
        for name in ("prefect", "mlflow"):
            server.cursor().execute(f"create database {name}")
        server.close()
        yield port
    finally:
        call(str(programs / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


def rows(port: int, database: str, query: str) -> list[tuple[object, ...]]:
    import psycopg2

    with psycopg2.connect(host="127.0.0.1", port=port, user="clepdg", password=SECRET, dbname=database) as server:
        with server.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())


def test_the_servers_run_on_postgresql_and_write_no_password(project, home, postgres, monkeypatch):  # noqa: F811
    pytest.importorskip("psycopg2", reason="the extra postgres is not installed")
    monkeypatch.setenv("PGPASSWORD", SECRET)
    monkeypatch.setenv("CLEPDG_MLFLOW_DATABASE_URL", f"postgresql://clepdg:{SECRET}@127.0.0.1:{postgres}/mlflow")
    (home / "settings.toml").write_text(f'prefect_database_url = "postgresql://clepdg@127.0.0.1:{postgres}/prefect"\n')
    small = ["--param", "preset=demo", "--param", 'overrides={"synthetic.utterances": 20}', "--param", "until=source"]
    try:
        services.up()
        done = deployment(["prefect", "deployment", "run", "clep-dg/data", *small, "--watch"], project)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        services.down()
    assert ("COMPLETED",) in rows(postgres, "prefect", "select state_type from flow_run")
    assert ("source synthetic-1",) in rows(postgres, "mlflow", "select name from runs")
    assert not (home / "mlflow" / "mlflow.db").exists()
    assert not list((home / "prefect").glob("prefect.db"))
    files = [path for folder in (home, project) for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    without_a_server(home, postgres)


def without_a_server(home: Path, port: int) -> None:
    """Check that a run without servers uses the same database, and finds there what is registered."""
    from clepdg_tasks.tracking import client as tracking

    settings = load_settings()
    assert SECRET not in tracking.where_to_view(settings) + tracking.tracking_identity(settings)
    client = tracking.connect(settings)
    experiment = client.get_experiment_by_name("clep-dg-demo")
    assert experiment.artifact_location == (home / "mlflow" / "artifacts-demo").as_uri()
    names = {run.info.run_name for run in client.search_runs([experiment.experiment_id])}
    assert {"clep-dg demo", "source synthetic-5"} <= names
