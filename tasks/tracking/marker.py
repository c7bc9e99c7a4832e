"""Mark stored outputs as registered in MLflow, with a file mlflow.json."""

from typing import Any

from clepdg.errors import StoreError
from clepdg.store.record import Record
from clepdg.store.store import Store

MARKER = "mlflow.json"


def read_marker(store: Store, record: Record) -> dict[str, Any] | None:
    """Return an output's marker, or None if it has none.

    A marker has tracking, run_id, experiment, and of a registered model, model and version. Anything else is none.
    """
    try:
        marker = store.documents.read(store.beside(record, MARKER))
        return marker if _is_marker(marker) else None
    except StoreError:
        return None


def _is_marker(marker: Any) -> bool:
    if not isinstance(marker, dict) or ("model" in marker) != ("version" in marker):
        return False
    texts = [marker.get("tracking"), marker.get("run_id"), marker.get("experiment", ""), marker.get("model", "")]
    number = str(marker.get("version", 0))
    return all(isinstance(text, str) for text in texts) and number.isascii() and number.isdigit()


def write_marker(store: Store, record: Record, facts: dict[str, Any]) -> None:
    """Write an output's marker."""
    store.documents.write(store.beside(record, MARKER), facts)
