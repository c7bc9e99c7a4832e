"""Protects what a record says that a stage took: seconds of CPU, its children's too, and no others'."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clepdg.store.record import MARKER, Record, load_record
from clepdg_tasks.engine.node import Computed, Work
from clepdg_tasks.engine.usage import compute_measured

COMPUTED = Computed(digests={"content": "c"})
RECORD = Record(
    stage="clep", name="n", key="k", version=1, config={}, inputs={}, digests={"content": "c"}, figures={}, files={},
    seconds=1.0,
)  # fmt: skip


def work() -> Work:
    return cast(Work, SimpleNamespace(device="cpu"))


def spin(seconds: float = 0.2) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_cpu_of_this_process_and_of_its_children_counts() -> None:
    def compute(_: Work) -> Computed:
        spin()
        code = "import time\nwhile time.process_time() < 0.3: pass"
        subprocess.run([sys.executable, "-c", code], check=True)
        time.sleep(0.1)
        return COMPUTED

    measured = compute_measured(compute, work())
    assert measured.cpu_seconds is not None and measured.cpu_seconds >= 0.5
    assert replace(measured, cpu_seconds=None) == COMPUTED


def test_stages_beside_each_other_are_not_told_apart() -> None:
    inside, over = threading.Event(), threading.Event()
    found: dict[str, Computed] = {}

    def long(_: Work) -> Computed:
        inside.set()
        over.wait(60)
        return COMPUTED

    thread = threading.Thread(target=lambda: found.update(long=compute_measured(long, work())))
    thread.start()
    inside.wait(60)
    found["short"] = compute_measured(lambda _: COMPUTED, work())
    over.set()
    thread.join(60)
    assert found["long"].cpu_seconds is None and found["short"].cpu_seconds is None
    assert compute_measured(lambda _: COMPUTED, work()).cpu_seconds is not None


def test_a_record_of_before_says_nothing_of_cpu_and_device(tmp_path: Any) -> None:
    new = {"cpu_seconds", "device", "peak_bytes"}
    old = {name: value for name, value in asdict(RECORD).items() if name not in new}
    (tmp_path / MARKER).write_text(json.dumps(old))
    assert load_record(tmp_path, "clep", "k") == RECORD


@pytest.mark.parametrize("facts", [{"cpu_seconds": "1"}, {"device": 3}, {"peak_bytes": [1]}])
def test_a_record_with_other_types_is_refused(tmp_path: Any, facts: dict[str, Any]) -> None:
    (tmp_path / MARKER).write_text(json.dumps({**asdict(RECORD), **facts}))
    assert isinstance(load_record(tmp_path, "clep", "k"), str)
