"""Protects the scale of tables and stores: work and memory grow as the number of rows does, not faster."""

import gc
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark.simulation import PARTS

SIZES = (250, 500, 1000)
MEGABYTE = 1 << 20


def work(part: Any, folder: Path, size: int) -> int:
    """Count the lines of Python that run, loops on one line among them, and the calls of C functions."""
    count = 0

    def event(frame: Any, kind: str, value: Any) -> Any:
        nonlocal count
        count += 1
        return event

    gc.disable()  # what others left is not counted
    sys.settrace(event)
    sys.setprofile(event)
    try:
        part(folder, size)
    finally:
        sys.settrace(None)
        sys.setprofile(None)
        gc.enable()
    return count


def peak(part: Any, folder: Path, size: int) -> int:
    """Return the peak memory in bytes."""
    tracemalloc.start()
    try:
        part(folder, size)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["index", "offsets", "duplicates", "embeddings", "evaluate", "keys"])
def test_twice_as_many_rows_take_twice_the_work_and_twice_the_memory(name: str, tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(6)]
    for folder in folders:
        folder.mkdir()
    PARTS[name](folders[0], SIZES[0])  # imports count for nothing
    few, some, many = (work(PARTS[name], folder, size) for folder, size in zip(folders[1:], SIZES, strict=False))
    assert many - some <= 2.2 * (some - few) + 0.05 * many
    smaller, larger = (peak(PARTS[name], folder, size) for folder, size in zip(folders[4:], SIZES[1:], strict=True))
    assert larger <= 2.2 * smaller + MEGABYTE
