"""Mark stored outputs as registered in MLflow, with a file mlflow.json."""

from typing import Any

from clepdg.errors import StoreError
from clepdg.store.record import Record
from clepdg.store.store import Store

MARKER = "mlflow.json"


def read_marker(store: Store, record: Record) -> dict[str, Any] | None:
    """Return an output's marker, or None if it has none.

    A marker has tracking, run_id, experiment, and of a registered model, model and version.
    """
    try:
        marker = store.documents.read(store.beside(record, MARKER))
        return marker if isinstance(marker, dict) else None
    except StoreError:
        return None


def write_marker(store: Store, record: Record, facts: dict[str, Any]) -> None:
    """Write an output's marker."""
    store.documents.write(store.beside(record, MARKER), facts)
