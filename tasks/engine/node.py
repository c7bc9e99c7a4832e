"""Describe stages as nodes and decide which outputs can be reused.

A node has a name, the configuration that it reads and nothing else, and its inputs by content digest. `decide` finds
without computing whether its stored output can be reused and, if not, why; execute.py computes it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.hashing import plain, stage_key
from clepdg.store.documents import Documents
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine.versions import VERSIONS

STAGES = tuple(VERSIONS)  # in pipeline order
DATA_STAGES = ("source", "index", "shard")  # run in parallel; the others use a device alone
TRAINED = ("clep", "acpt", "classifier")  # report every training step
UNCHANGED = "same settings and inputs"  # why an output is reused


@dataclass(frozen=True, kw_only=True)
class Computed:
    """Return value of a stage's function: digests of its output, and figures."""

    digests: Mapping[str, str]
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Arguments of a stage's function.

    All that results depend on is in the stage's key; the rest says where and how to work.

    Attributes:
        folder: where the output goes; *.resume files in it survive a kill.
        inputs: input name -> folder of that output.
        records: input name -> its record.
        tags: input name -> tags of its node.
        previous: folder of this node's output in the last run, if this machine has it.
        pins: the store's documents; pins/<corpus>.json exists from the first download on, and outlives every output.
            None in a worker process of a run whose store is a bucket.
        device: the first of devices.
        devices: one, or one per rank, as far as there are enough.
    """

    config: Mapping[str, Any]
    folder: Path
    inputs: Mapping[str, Path]
    records: Mapping[str, Record]
    previous: Path | None
    pins: Documents | None
    device: str
    workers: int
    reporting: Reporting
    devices: tuple[str, ...] = ("cpu",)
    checkpointing: Checkpointing = DEFAULT_CHECKPOINTING
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Node:
    """Stage of a corpus, fold or row.

    Attributes:
        config: plain values and dataclasses; in the key.
        inputs: input name -> id of a node, or "id#part" to depend on one part of it; their digests are in the key.
        uses: like inputs, for outputs that an input already identifies; not in the key.
        state: input name -> digest of something outside the store; in the key.
        accept: raises where a record's figures are not acceptable, given the record and the address of its output;
            called on every run, also for reused outputs.
        ranks: number of processes that compute it together.
        tags: corpus, fold, model, variant, contexts, condition, row and seed, as far as it has them; not in the key.
        input_tags: input name -> tags of its node.
    """

    stage: str
    name: str
    compute: Callable[[Work], Computed]
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    accept: Callable[[Record, str], None] = lambda record, place: None
    ranks: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)
    input_tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Return "<stage>/<name>", which is unique in a graph."""
        return f"{self.stage}/{self.name}"

    @property
    def fold(self) -> str | None:
        """Return its fold, or None if folds share it.

        Folds do not depend on each other.
        """
        return self.tags.get("fold")

    @property
    def needs(self) -> list[str]:
        """Return the ids of the nodes that this one reads."""
        return list(dict.fromkeys(ref.partition("#")[0] for ref in [*self.inputs.values(), *self.uses.values()]))


def split_id(node_id: str) -> tuple[str, str]:
    """Return stage and name of a node's id."""
    stage, _, name = node_id.partition("/")
    return stage, name


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Result of `decide`: a stored output, or why it must be computed.

    Attributes:
        key: None where an input is not computed yet.
        record: the stored output; None: it must be computed.
        before: key of the node's output in the last run, where it differs from `key`.
    """

    key: str | None
    record: Record | None
    reason: str
    digests: Mapping[str, str] = field(default_factory=dict)
    before: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a node in a run."""

    record: Record
    reused: bool
    reason: str
    seconds: float


def decide(
    node: Node,
    records: Mapping[str, Record],
    store: Store,
    last: Callable[[], Mapping[str, str]],
    redo: frozenset[str] = frozenset(),
) -> Decision:
    """Decide whether a node's stored output can be reused.

    Args:
        records: node id -> record of the nodes that are done.
        last: returns node id -> key in the last run, to name what changed; called only where a node must be computed.
        redo: stages to compute again in any case.
    """
    missing = [need for need in node.needs if need not in records]
    if missing:
        return Decision(key=None, record=None, reason=f"depends on {missing[0].replace('/', ' ', 1)}")
    digests = dict(node.state)
    for name, ref in node.inputs.items():
        node_id, _, part = ref.partition("#")
        digests[name] = records[node_id].digests[part or "content"]
    key = stage_key(node.stage, VERSIONS[node.stage], node.config, digests)
    found = store.lookup(node.stage, key)
    if isinstance(found, Record) and node.stage not in redo:
        return Decision(key=key, record=found, reason=UNCHANGED, digests=digests)
    before = last().get(node.id)
    if isinstance(found, Record):
        found = "to be computed again (--redo)"
    elif found == "new" and before == key:
        found = "its output was deleted"
    elif found == "new" and before and (record := store.previous(node.stage, before)):
        found = _difference(record, node, digests)
    return Decision(key=key, record=None, reason=found, digests=digests, before=before)


def _difference(before: Record, node: Node, digests: Mapping[str, str]) -> str:
    """Describe which parts of the key changed since the last run."""
    if before.version != VERSIONS[node.stage]:
        return f"version {before.version} -> {VERSIONS[node.stage]}"
    changes = [f"config {line}" for line in config_changes(before.config, plain(node.config))]
    for name in sorted({*before.inputs, *digests}):
        if before.inputs.get(name) != digests.get(name):
            what = "is new" if name not in before.inputs else "was dropped" if name not in digests else "changed"
            changes.append(f"input {name} {what}")
    return "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "") if changes else "new"


def config_changes(before: Any, after: Any, prefix: str = "") -> list[str]:
    """Return the differences of two configurations as lines "a.b 10 -> 15"."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted({*before, *after})
        lines = [config_changes(before.get(n), after.get(n), f"{prefix}.{n}" if prefix else n) for n in names]
        return [line for group in lines for line in group]
    return [] if before == after else [f"{prefix} {_short(before)} -> {_short(after)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
