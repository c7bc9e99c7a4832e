"""What a stage is, and whether its output stands.

A stage is a Node: what it is called, the configuration it reads and nothing else, and its inputs by content digest.
`decide` says without running whether its output stands and, if not, why; computing.py computes what does not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clepdg.callbacks import USUAL, Pace, Reporting
from clepdg.hashing import plain, stage_key
from clepdg.store.documents import Documents
from clepdg.store.record import Record
from clepdg.store.store import Store
from tasks.engine.versions import VERSIONS

STAGES = tuple(VERSIONS)  # in the order of the pipeline
DATA_STAGES = ("source", "index", "shard")  # run in parallel; the others have their device to themselves
TRAINED = ("clep", "acpt", "classifier")  # report every step
STANDS = "same settings and inputs"  # why an output is reused


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What a stage's function returns: digests of what came out, and figures for checks and tables."""

    digests: Mapping[str, str]
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage's function gets: nothing that is not in its key, but for where and how to work.

    Attributes:
        folder: where the output goes; *.resume files in it survive a kill.
        inputs: input name -> folder of that output.
        records: input name -> its record.
        previous: folder of the last run's output of this node, if this machine has it.
        pins: the store's documents; pins/<corpus>.json holds from the first download on, and outlives every output.
            None in a child of a run whose store is a bucket.
        device: the first of devices.
        devices: one, or one for each rank that there is one for.
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
    pace: Pace = USUAL


@dataclass(frozen=True, kw_only=True)
class Node:
    """One stage of one corpus, fold or row.

    Attributes:
        config: plain values and dataclasses; in the key.
        inputs: input name -> id of a node, or "id#part" to depend on a part of it alone; their digests are in the key.
        uses: like inputs, for what is read but already identified by an input; not in the key.
        state: input name -> digest of something outside the store; in the key.
        accept: refuses a record by its figures, given with where its output lies, for a person; called on every run,
            so that a reuse never skips it.
        fold: the fold that it belongs to; None: several share it. Folds need nothing of each other.
        ranks: processes that compute it together.
    """

    stage: str
    name: str
    compute: Callable[[Work], Computed]
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    accept: Callable[[Record, str], None] = lambda record, place: None
    fold: str | None = None
    ranks: int = 1

    @property
    def id(self) -> str:
        """Stage and name: unique in a graph."""
        return f"{self.stage}/{self.name}"

    @property
    def needs(self) -> list[str]:
        """Ids of the nodes this one reads."""
        return list(dict.fromkeys(ref.partition("#")[0] for ref in [*self.inputs.values(), *self.uses.values()]))


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a node's output stands, and why not. key is None where an input is not known yet.

    Attributes:
        before: key of the node's output in the last run, where it does not stand and there was one.
    """

    key: str | None
    record: Record | None
    reason: str
    digests: Mapping[str, str] = field(default_factory=dict)
    before: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a node in a run."""

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
    """Decide about a node from the records of its inputs; computes nothing.

    Args:
        records: node id -> record of what stands.
        last: returns node id -> key in the last run, to say what changed; called only where something does not stand.
        redo: stages to compute again even if they stand.
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
        return Decision(key=key, record=found, reason=STANDS, digests=digests)
    before = last().get(node.id)
    if isinstance(found, Record):
        found = "asked to be computed again"
    elif found == "new" and before == key:
        found = "its output was deleted"
    elif found == "new" and before and (record := store.previous(node.stage, before)):
        found = _difference(record, node, digests)
    return Decision(key=key, record=None, reason=found, digests=digests, before=before)


def _difference(before: Record, node: Node, digests: Mapping[str, str]) -> str:
    """Say which part of the key changed since the last run."""
    if before.version != VERSIONS[node.stage]:
        return f"version {before.version} -> {VERSIONS[node.stage]}"
    changes = [f"config {line}" for line in config_changes(before.config, plain(node.config))]
    for name in sorted({*before.inputs, *digests}):
        if before.inputs.get(name) != digests.get(name):
            what = "is new" if name not in before.inputs else "was dropped" if name not in digests else "changed"
            changes.append(f"input {name} {what}")
    return "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "") if changes else "new"


def config_changes(before: Any, after: Any, prefix: str = "") -> list[str]:
    """Return lines "a.b 10 -> 15" for what differs between two plain configurations."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted({*before, *after})
        lines = [config_changes(before.get(n), after.get(n), f"{prefix}.{n}" if prefix else n) for n in names]
        return [line for group in lines for line in group]
    return [] if before == after else [f"{prefix} {_short(before)} -> {_short(after)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
