"""Connect to MLflow, name its pages, and prepare its experiments."""

import logging
import os
import shlex
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from clepdg.download import urls
from clepdg.errors import ClepError
from clepdg.redaction import scrub
from clepdg.store.store import Store
from clepdg_tasks.host import liveness
from clepdg_tasks.host.processes import environment, running_url
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.host.settings_file import without_password
from clepdg_tasks.host.sqlite import check_mlflow_database, file_of, mlflow_database, sqlite_url
from clepdg_tasks.tracking.lineage import version_tags
from clepdg_tasks.tracking.model_cards import experiment_description

if TYPE_CHECKING:
    from mlflow import MlflowClient


UNAVAILABLE = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")  # MLflow's error codes of a server that does not answer
CLASSIC = "workflowType=machine_learning"  # without it MLflow opens its pages for language models, which show no runs


def tracking_url(settings: Settings) -> str:
    """Return MLflow's tracking URI: a server, else a PostgreSQL or SQLite URL."""
    return settings.tracking_url or settings.mlflow_database_url or sqlite_url(mlflow_database(settings))


def where_to_view(settings: Settings) -> str:
    """Return where to view MLflow: an address, or a command."""
    url = tracking_url(settings)
    if url.startswith("http"):
        return urls.redact(url)
    command, database = "mlflow ui --backend-store-uri", mlflow_database(settings)
    if url == sqlite_url(database) and "?" in url:  # messages hide what follows a `?`
        return f"cd {shlex.quote(str(database.parent))} && {command} sqlite:///{database.name}"
    return f"{command} {shlex.quote(without_password(url))}"


def _is_own(settings: Settings) -> bool:
    """Return whether the server of `make up`, or no server, is in use."""
    return not settings.tracking_url or settings.tracking_url == running_url(settings, "mlflow")


def tracking_identity(settings: Settings) -> str:
    """Return a name of the tracking store that does not depend on its port.

    The server of `make up` has the name of its database. A database in the place of one that was removed gets another
    name: outputs that were registered in the removed one are registered again.
    """
    if settings.tracking_url and not _is_own(settings):
        return urls.redact(settings.tracking_url)
    if settings.mlflow_database_url:
        return without_password(settings.mlflow_database_url)
    database = mlflow_database(settings)
    replaced = database.with_name("replaced")
    if not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        replaced.write_text(uuid.uuid4().hex)
    return f"{database.parent} {replaced.read_text()}" if replaced.exists() else str(database.parent)


@contextmanager
def translate_errors(settings: Settings) -> Iterator[None]:
    """Turn errors of MLflow and its database into ClepError."""
    import mlflow
    import sqlalchemy

    try:
        yield
    except (mlflow.exceptions.MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
        view = where_to_view(settings)
        where = without_password(urls.redact(tracking_url(settings)))
        do = "look at its server" if view.startswith("http") else f"look into it: {view}"
        raise ClepError(
            "MLflow refuses or does not answer.", got=first_line(error)[:400], where=where, do=do
        ) from error


def connect(settings: Settings) -> "MlflowClient":
    """Return a client of MLflow's tracking server, or of its database.

    Raises:
        ClepError: MLflow's database can't be used.
    """
    if not settings.tracking_url and not settings.mlflow_database_url:
        check_mlflow_database(mlflow_database(settings))
    for name, value in environment(settings).items():
        if name.startswith("MLFLOW_"):
            os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # callers report errors, without a traceback
    (settings.home / "mlflow").mkdir(parents=True, exist_ok=True)
    url = tracking_url(settings)
    mlflow.set_tracking_uri(url)
    mlflow.set_registry_uri(url)
    with translate_errors(settings):
        return mlflow.MlflowClient(tracking_uri=url, registry_uri=url)


def experiment_name(preset: str) -> str:
    """Return the name of a preset's experiment; the demo has one of its own."""
    return "clep-dg-demo" if preset == "demo" else "clep-dg"


def restore_experiment(client: "MlflowClient", preset: str) -> bool:
    """Restore a preset's experiment if it was deleted; return whether it was.

    MLflow accepts no run in a deleted experiment, and no other of its name.
    """
    found = client.get_experiment_by_name(experiment_name(preset))
    if found is None or found.lifecycle_stage == "active":
        return False
    client.restore_experiment(found.experiment_id)
    return True


def experiment_id(client: "MlflowClient", settings: Settings, preset: str) -> str:
    """Return the id of a preset's experiment, and create it if it is missing.

    Its artifacts never go to the current folder.
    """
    name = experiment_name(preset)
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = _artifacts(settings, "artifacts-demo" if preset == "demo" else "artifacts")
    note = {"mlflow.note.content": experiment_description(preset)}
    return str(client.create_experiment(name, artifact_location=location, tags=note))


def _artifacts(settings: Settings, name: str) -> str | None:
    """Return where artifacts go; None: a server of the user's decides.

    Of a database of the user's they lie beside its file, else with this machine's state.
    """
    url = str(settings.tracking_url)
    if _is_own(settings) or url.startswith(("postgresql", "mysql", "mssql")):
        return (settings.home / "mlflow" / name).as_uri()
    if url.startswith("sqlite"):
        return file_of(url).with_name(name).as_uri()
    return None


def front_page(url: str) -> str:
    """Return the URL of a server's list of experiments."""
    return f"{url.rstrip('/')}/#/experiments?{CLASSIC}"


def run_page(url: str, experiment: str, run_id: str, artifact: str = "") -> str | None:
    """Return the URL of a run's page, or its artifact; None without a server."""
    if not url.startswith("http"):
        return None
    page = f"{urls.redact(url).rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
    return page + (f"/artifacts/{artifact}" if artifact else "") + f"?{CLASSIC}"


def end_killed_runs(client: "MlflowClient", store: Store) -> None:
    """End the MLflow runs of flow runs that ended without a report to MLflow."""
    for name in liveness.unreported(store.root / "runs"):
        experiments = [found.experiment_id for found in client.search_experiments()]
        unfinished = f"tags.run = '{name}' and attributes.status = 'RUNNING'"
        for run in client.search_runs(experiments, unfinished, max_results=10_000):
            client.set_terminated(run.info.run_id, "KILLED")
        liveness.mark_reported(store.root / "runs", name)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (scrub(str(error)).splitlines() or [type(error).__name__])[0]


def aliased_versions(settings: Settings) -> list[tuple[str, dict[str, str]]]:
    """Return (stage, tags) of the registered versions that have an alias.

    The list is empty where MLflow was never used.
    """
    if never_used(settings):
        return []
    client, found, token = connect(settings), list[tuple[str, dict[str, str]]](), None
    with translate_errors(settings):
        while True:
            page = client.search_registered_models(max_results=100, page_token=token)
            for model in page:
                stage = model.name.removeprefix("demo-").removeprefix("clep-dg-").replace("-", "_")
                numbers = sorted({str(number) for number in model.aliases.values()})
                found += [(stage, version_tags(client.get_model_version(model.name, number))) for number in numbers]
            token = page.token
            if not token:
                return found


def never_used(settings: Settings) -> bool:
    """Return whether MLflow would be a SQLite file that does not exist."""
    return not (settings.tracking_url or settings.mlflow_database_url or mlflow_database(settings).exists())
