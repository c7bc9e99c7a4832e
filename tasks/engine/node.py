"""Describe stages as nodes and decide which outputs can be reused.

A node has a name, the configuration that it reads and nothing else, and references to its inputs, whose content digests
are in its key. `decide` finds without computing whether its stored output can be reused and, if not, why; execute.py
computes it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.hashing import plain, stage_key
from clepdg.store.documents import Documents
from clepdg.store.record import MARKER, Record
from clepdg.store.store import Store
from clepdg_tasks.engine.changes import difference, files_changed
from clepdg_tasks.engine.versions import VERSIONS

STAGES = tuple(VERSIONS)  # in pipeline order
DATA_STAGES = ("source", "index", "shard")  # run in parallel; the others use a device alone
TRAINED = ("clep", "acpt", "classifier")  # report every training step
UNCHANGED = "same settings and inputs"  # why an output is reused


@dataclass(frozen=True, kw_only=True)
class Computed:
    """Return value of a stage's function: digests of its output, and figures.

    Attributes:
        cpu_seconds: as in its record; the engine measures it, as peak_bytes.
    """

    digests: Mapping[str, str]
    figures: Mapping[str, Any] = field(default_factory=dict)
    cpu_seconds: float | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Ref:
    """Reference to a node's output, or to one part of it.

    Attributes:
        part: name of one of the output's digests; None: its whole content.
        tags: facts by which a stage's function selects this input and names what it makes of it; not in the key.
    """

    stage: str
    name: str
    part: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def id(self) -> str:
        """Return the id of the node."""
        return f"{self.stage}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Work:
    """Arguments of a stage's function.

    All that results depend on is in the stage's key; the rest says where and how to work.

    Attributes:
        folder: where the output goes; *.resume files in it survive a kill.
        inputs: input name -> folder of that output.
        records: input name -> its record.
        refs: input name -> its reference.
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
    refs: Mapping[str, Ref] = field(default_factory=dict)

    def select(self, stage: str, part: str | None = None, **tags: str) -> list[tuple[Ref, Path]]:
        """Return the inputs of a stage that have these tags, sorted by input name."""
        return [
            (ref, self.inputs[name])
            for name, ref in sorted(self.refs.items())
            if (ref.stage, ref.part) == (stage, part) and tags.items() <= ref.tags.items()
        ]


@dataclass(frozen=True, kw_only=True)
class Node:
    """Stage of a corpus, fold or row.

    Attributes:
        config: plain values and dataclasses; in the key.
        inputs: input name -> what the node depends on; names and digests are in the key.
        uses: like inputs, for outputs that an input already identifies; not in the key.
        state: input name -> digest of something outside the store; in the key.
        accept: raises where a record's figures are not acceptable, given the record and the address of its output;
            called on every run, also for reused outputs.
        recorded: name in its record -> kind, as in `Record.lacks`: what others read of it; not in the key.
        ranks: number of processes that compute it together.
        tags: corpus, fold, model, variant, contexts, condition, row and seed, as far as it has them; not in the key.
        trained_on: corpora that its output is trained on; not in the key.
    """

    stage: str
    name: str
    compute: Callable[[Work], Computed]
    config: Mapping[str, Any]
    inputs: Mapping[str, Ref] = field(default_factory=dict)
    uses: Mapping[str, Ref] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    accept: Callable[[Record, str], None] = lambda record, place: None
    recorded: Mapping[str, str] = field(default_factory=dict)
    ranks: int = 1
    tags: Mapping[str, str] = field(default_factory=dict)
    trained_on: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Return "<stage>/<name>", which is unique in a graph."""
        return f"{self.stage}/{self.name}"

    @property
    def ref(self) -> Ref:
        """Return the reference to its whole output."""
        return Ref(self.stage, self.name, tags=self.tags)

    @property
    def fold(self) -> str | None:
        """Return its fold, or None if folds share it.

        Folds do not depend on each other.
        """
        return self.tags.get("fold")

    @property
    def needs(self) -> list[str]:
        """Return the ids of the nodes that this one reads."""
        return list(dict.fromkeys(ref.id for ref in self.refs.values()))

    @property
    def refs(self) -> dict[str, Ref]:
        """Return input name -> reference, of `inputs` and `uses`."""
        return {**self.inputs, **self.uses}

    def find(self, store: Store, key: str) -> Record | str:
        """Return the record of its complete output, or why there is none."""
        found = store.lookup(self.stage, key)
        lacking = found.lacks(self.recorded) if isinstance(found, Record) else None
        return found if lacking is None else f"{MARKER} lacks {lacking}, or it is not what the stage writes"


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
    missing = next((ref for ref in node.refs.values() if ref.id not in records), None)
    if missing:
        return Decision(key=None, record=None, reason=f"depends on {missing.stage} {missing.name}")
    digests = dict(node.state)
    for name, ref in node.inputs.items():
        digests[name] = records[ref.id].digests[ref.part or "content"]
    key = stage_key(node.stage, VERSIONS[node.stage], node.config, digests)
    found = node.find(store, key)
    if isinstance(found, Record) and node.stage not in redo:
        return Decision(key=key, record=found, reason=UNCHANGED, digests=digests)
    before = last().get(node.id)
    if isinstance(found, Record):
        found = "to be computed again (--redo)"
    elif found == "new" and before == key:
        found = "its output was deleted"
    elif found == "new" and before and (record := store.previous(node.stage, before)):

        def detail(name: str, record: Record = record) -> str:
            return _files_changed(node, record, records, store, last()) if name == "source" else ""

        found = difference(record, VERSIONS[node.stage], plain(node.config), digests, detail)
    return Decision(key=key, record=None, reason=found, digests=digests, before=before)


def _files_changed(
    node: Node, before: Record, records: Mapping[str, Record], store: Store, last: Mapping[str, str]
) -> str:
    """Return which files of a node's corpus changed since the last run, or "".

    It is known of a source that is a folder, and of an index where both outputs of stage source are on this machine.
    """
    if node.stage == "source":
        return files_changed(store.at_hand(before.stage, before.key), None, node.config.get("given"))
    ref = node.inputs["source"]
    old = store.previous(ref.stage, last.get(ref.id, "-"))
    if old is None or old.digests["content"] != before.inputs["source"]:
        return ""
    return files_changed(store.at_hand(ref.stage, old.key), store.at_hand(ref.stage, records[ref.id].key), None)
