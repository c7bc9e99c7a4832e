"""Benchmarks of a store: keys and hit checks of 1,000 and 10,000 outputs; commits, durable and not."""

import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from clepdg.hashing import stage_key, write_json
from clepdg.store.opening import open_store
from clepdg.store.record import MARKER, Record
from clepdg.store.store import Store

CONFIG = {"clep": {f"setting_{n}": n * 0.1 for n in range(40)}, "seed": 0}
FILES = 3


def fill(store: Store, count: int) -> None:
    """Put outputs of a usual size in place, without the time that their commits would take."""
    for number in range(count):
        key = stage_key("clep", 1, {**CONFIG, "number": number}, {"shard": "a" * 64})
        folder = store.root / "clep" / key
        folder.mkdir(parents=True)
        files = {f"file-{n}.bin": (n, "0" * 64) for n in range(FILES)}
        for name, (size, _) in files.items():
            (folder / name).write_bytes(b"x" * size)
        facts: dict[str, Any] = {"stage": "clep", "name": f"fold-{number}", "key": key, "version": 1, "config": CONFIG}
        facts |= {"inputs": {"shard": "a" * 64}, "digests": {"content": key}, "figures": {"loss": 0.5}, "seconds": 1.0}
        facts |= {"files": files, "versions": {f"library {n}": "1.0" for n in range(7)}}
        write_json_unsynced(folder / MARKER, Record(**facts))


def write_json_unsynced(path: Path, value: Any) -> None:
    from unittest.mock import patch

    with patch("os.fsync"):
        write_json(path, value)


def seconds_an_output(store: Store, count: int) -> float:
    """Return the best of three passes over all outputs: key, then hit check."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for number in range(count):
            key = stage_key("clep", 1, {**CONFIG, "number": number}, {"shard": "a" * 64})
            assert isinstance(store.lookup("clep", key), Record)
        best = min(best, (time.perf_counter() - start) / count)
    return best


def test_key_and_hit_check_cost_under_a_millisecond_an_output_and_grow_linearly(tmp_path: Path) -> None:
    small, large = open_store(str(tmp_path / "small")), open_store(str(tmp_path / "large"))
    fill(small, 1_000)
    fill(large, 10_000)
    few, many = seconds_an_output(small, 1_000), seconds_an_output(large, 10_000)
    print(f"\nms an output: {1000 * few:.3f} of 1,000, {1000 * many:.3f} of 10,000: {many / few:.2f}")
    assert many < 0.001
    assert many <= 1.5 * few


def commit_seconds(folder: Path, files: int, size: int, *, durable: bool) -> float:
    """Return the time of one commit, without that of writing its files."""
    store, data = open_store(str(folder), durable=durable), os.urandom(size)
    with store.lock("clep", "k"):
        partial = store.partial("clep", "k")
        for number in range(files):
            (partial / f"{number}.bin").write_bytes(data)
        facts: dict[str, Any] = {"stage": "clep", "name": "n", "key": "k", "version": 1, "config": {}, "inputs": {}}
        facts |= {"digests": {"content": "d"}, "figures": {}, "files": {}, "seconds": 1.0}
        start = time.perf_counter()
        store.commit(Record(**facts))
        spent = time.perf_counter() - start
    shutil.rmtree(folder)
    return spent


def test_what_it_costs_that_outputs_outlive_a_power_cut(tmp_path: Path) -> None:
    """Commits with and without `durable` in turn, since the disk's speed drifts."""
    for files, size in ((3, 1_000_000), (2_000, 60_000), (2, 200_000_000)):
        spent: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(5):
            for durable, each in spent.items():
                each.append(commit_seconds(tmp_path / "store", files, size, durable=durable))
        with_, without = (1000 * statistics.median(spent[durable]) for durable in (True, False))
        print(f"\nms a commit of {files} files of {size / 1e6} MB: {with_:.0f} durable, {without:.0f} not", end="")
        assert with_ < 20 * without + 1000
