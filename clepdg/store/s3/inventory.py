"""List and remove outputs, checkpoints and leftovers in the bucket of a remote store."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from clepdg.store.layout import Item
from clepdg.store.record import MARKER, Record, read_record
from clepdg.store.s3.bucket import Bucket
from clepdg.store.s3.checkpoints import FOLDER, LIST

Kind = Literal["output", "partial", "leftover"]


def bucket_items(bucket: Bucket, stages: Iterable[str], now: float, only: str | None = None) -> list[Item]:
    """Return the outputs, checkpoints and unused attempts of stages.

    Args:
        only: a key; None: all of them.
    """
    found = []
    for stage in stages:
        keys: defaultdict[str, defaultdict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
        for name, facts in bucket.listing(stage if only is None else f"{stage}/{only}").items():
            parts = name.split("/")
            if len(parts) > 2:
                keys[parts[1]][FOLDER if parts[2] == LIST else parts[2]].append(facts)
        markers = bucket.read_many([f"{stage}/{key}/{MARKER}" for key, parts in keys.items() if MARKER in parts])
        for key, objects in keys.items():
            data = markers.get(f"{stage}/{key}/{MARKER}")
            record = read_record(data, stage, key) if data else None
            attempt = record.attempt if isinstance(record, Record) else MARKER
            if MARKER in objects and attempt != MARKER:
                objects[attempt] += objects.pop(MARKER)
            for part, written in objects.items():
                kind: Kind = "leftover"
                if part == attempt:
                    kind = "output"
                elif part == FOLDER and data is None:
                    kind = "partial"
                size, age = sum(size for size, _ in written), now - max(when for _, when in written)
                place = f"{stage}/{key}/{part}"
                found.append(Item(kind=kind, stage=stage, key=key, bytes=size, age=age, place=place, here=False))
    return found


def remove_objects(bucket: Bucket, item: Item) -> None:
    """Remove an item; of an output, stage.json first.

    So no stage.json ever names files that are gone.
    """
    name = f"{item.stage}/{item.key}"
    if item.kind == "output":
        bucket.delete([f"{name}/{MARKER}"])
    if item.place == f"{name}/{FOLDER}":
        bucket.delete([f"{name}/{LIST}"])
    if item.place != f"{name}/{MARKER}":
        bucket.delete_below(item.place)
