"""Look up a registered version without importing MLflow, whose start takes 3 CPU seconds.

That is most of what `clep-dg predict` may take on one file. Seen with `time python -c "import mlflow;
mlflow.MlflowClient('sqlite:////tmp/new.db').search_registered_models()"` on 2 cores: 3.7 to 4.5 CPU seconds, 0.3 to 0.4
without MLflow. So its SQLite tables are read here, and its REST interface asked directly.
Where it is not found, or anything is unusual, MLflow itself is asked, and explains what is wrong.
"""

import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

from clepdg_tasks.host.settings import Settings
from clepdg_tasks.host.sqlite import mlflow_database

DELETED: Final = "Deleted_Internal"  # the stage that MLflow gives a deleted version
SECONDS: Final = 10.0  # that a server may take


def look_up_version(settings: Settings, name: str, chosen: str) -> Any | None:
    """Return an object with a version's `version` and `tags`, or None.

    Args:
        name: of the registered model.
        chosen: the version's number, or an alias.
    """
    if not settings.tracking_url and not settings.mlflow_database_url:
        return _from_sqlite(mlflow_database(settings), name, chosen)
    url = settings.tracking_url or ""
    return _from_server(url, name, chosen) if url.startswith("http") else None


def _from_sqlite(database: Path, name: str, chosen: str) -> Any | None:
    """Read MLflow's own SQLite file."""
    number = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
    stage = "SELECT current_stage FROM model_versions WHERE name = ? AND version = ?"
    tags = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?"
    try:
        connection = sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)
        try:
            found = [(int(chosen),)] if chosen.isdigit() else connection.execute(number, (name, chosen)).fetchall()
            if len(found) != 1 or [row[0] == DELETED for row in connection.execute(stage, (name, *found[0]))] != [
                False
            ]:
                return None
            rows = connection.execute(tags, (name, *found[0])).fetchall()
        finally:
            connection.close()
    except (sqlite3.Error, OverflowError):
        return None
    return SimpleNamespace(version=str(found[0][0]), tags=dict(rows))


def _from_server(url: str, name: str, chosen: str) -> Any | None:
    """Ask MLflow's server by its REST interface."""
    import httpx

    place, key = ("model-versions/get", "version") if chosen.isdigit() else ("registered-models/alias", "alias")
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{part}") for part in ("USERNAME", "PASSWORD"))
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    try:
        answer = httpx.get(
            f"{url.rstrip('/')}/api/2.0/mlflow/{place}",
            params={"name": name, key: chosen},
            auth=(user, password or "") if user else None,
            headers={"Authorization": f"Bearer {token}"} if token and not user else None,
            timeout=SECONDS,
        )
        found = answer.raise_for_status().json()["model_version"]
        tags = {tag["key"]: tag.get("value", "") for tag in found.get("tags", [])}
        return SimpleNamespace(version=str(found["version"]), tags=tags)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return None
