"""Trainings that end in seconds: what a test is about, it sets itself. And a graph's nodes without Prefect."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clepdg.callbacks import Reporting
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine import execute
from clepdg_tasks.engine.node import Node, decide
from clepdg_tasks.host.settings import Settings

SMALL = {
    "clep.epochs": 1,
    "clep.steps_per_epoch": 2,
    "clep.batch_size": 8,
    "acpt.contexts": 2,
    "acpt.epochs": 2,
    "acpt.tokens": 1,
    "classifier.steps": 5,
}


VERSIONS = (  # of a registered model: nodes of fold supervised, without variants
    r"clep/supervised\.c\d+",
    r"acpt/supervised\.c\d+\.acpt\.l\d+",
    r"text_embeddings/supervised\.c\d+\.(none|acpt\.l\d+)",
    r"classifier/supervised\.text-(none|acpt)\.c\d+\.l\d+",
)


def is_version(node_id: str) -> bool:
    """Return whether a node's output becomes a version of a registered model."""
    return any(re.fullmatch(pattern, node_id) for pattern in VERSIONS)


@contextmanager
def silent(node: Node, decision: Any) -> Iterator[Reporting]:
    yield Reporting()


def run_nodes(nodes: Iterable[Node], home: Path) -> tuple[Store, dict[str, Record], dict[str, Path]]:
    """Run every node once, in order; return the store, and of each node its record and the folder of its output."""
    settings = Settings(home=home, store=str(home / "store"), tracking_url=None, device="cpu", workers=2)
    store, records = settings.open_store(), {}
    for node in nodes:
        decision = decide(node, records, store, dict)
        records[node.id] = execute.run(node, decision, records, store, settings, reporting=silent).record
    return store, records, {name: store.local(record.stage, record.key) for name, record in records.items()}
