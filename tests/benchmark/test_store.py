"""What a store costs that holds many outputs: key and hit check of each, at 1,000 and at 10,000 outputs."""

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
