"""Protects the reasons of stale stages: which files of a corpus changed, and where a killed training resumes."""

import contextlib
from pathlib import Path

import pytest
import torch

from clepdg.callbacks import Checkpointing, Reporting
from clepdg.errors import ClepError
from clepdg.training.loop import CHECKPOINT, Training
from clepdg_flows.run.plan import make_plan
from clepdg_tasks.engine import changes, execute
from clepdg_tasks.engine.node import decide
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host.settings import load_settings
from tests.unit import trees


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": 1}, {"a": 2}, "1 changed (a)"),
        ({"a": 1, "b": 1}, {"b": 2, "c": 1, "d": 1}, "2 added (c, d), 1 removed (a), 1 changed (b)"),
        ({}, dict.fromkeys("edcba"), "5 added (a, b, c, ...)"),
    ],
)
def test_files_are_counted_and_three_are_named(before, after, expected):
    assert changes.compare_files(before, after) == expected


def compute(arguments, settings, last):
    """Compute the stages of a corpus; return node id -> (key, reason)."""
    store, records, found = settings.open_store(), {}, {}
    for node in make_plan(arguments).nodes:
        decision = decide(node, records, store, lambda: {name: key for name, (key, _) in last.items()})
        found[node.id] = (decision.key, decision.reason)
        records[node.id] = execute.run(
            node,
            decision,
            records,
            store,
            settings,
            reporting=lambda *_: contextlib.nullcontext(Reporting()),
        ).record
    return found


def test_source_and_index_say_which_files_changed(tmp_path, monkeypatch):
    folder = trees.savee(tmp_path / "savee")
    arguments = Arguments(corpora=("savee",), sources={"savee": str(folder)}, until="index", allow_partial=True)
    monkeypatch.setenv("CLEPDG_HOME", str(tmp_path / "var"))
    settings = load_settings()
    first = compute(arguments, settings, {})
    wavs = sorted(folder.rglob("*.wav"))
    gone, moved, altered = wavs[0], wavs[1], wavs[2]
    gone.unlink()
    moved.rename(moved.with_name("zz.wav"))
    altered.write_bytes(wavs[3].read_bytes())
    names = [path.relative_to(folder).as_posix() for path in (gone, moved, altered, moved.with_name("zz.wav"))]
    expected = f"1 added ({names[3]}), 2 removed ({names[0]}, {names[1]}), 1 changed ({names[2]})"
    second = compute(arguments, settings, first)
    assert second["source/savee"][1] == f"input source changed: {expected}"
    assert second["index/savee"][1] == f"input source changed: {expected}"


def test_a_source_whose_last_output_is_gone_changes_without_names(tmp_path):
    assert changes.files_changed(None, None, str(tmp_path)) == ""
    assert changes.files_changed(tmp_path, None, str(tmp_path)) == ""  # holds no files.parquet


def test_the_step_of_a_stopped_training_is_read_from_its_checkpoint(tmp_path):
    weight = torch.nn.Parameter(torch.zeros(2))
    clock = iter(float(n) for n in range(100))
    training = Training(
        tensors={"weight": weight},
        optimiser=torch.optim.SGD([weight], lr=0.1),
        loss=lambda step: ((weight - 1).square().sum(), {}),
        steps=8,
        seed=0,
        folder=tmp_path,
        checkpointing=Checkpointing(checkpoint_seconds=1e9, limit_seconds=2.5, clock=lambda: next(clock)),
    )
    with pytest.raises(ClepError, match=r"at step (\d) of 8") as caught:
        training.run()
    assert f"at step {changes.reached(tmp_path)['step']} of 8" in str(caught.value)
    assert changes.reached(tmp_path)["steps"] == 8
    assert changes.CHECKPOINT == CHECKPOINT


@pytest.mark.parametrize("data", [None, b"", b"x" * 20, b"\x02" + b"\0" * 7 + b"{}", b"\xff" * 64])
def test_other_files_say_no_step(tmp_path: Path, data):
    if data is not None:
        (tmp_path / CHECKPOINT).write_bytes(data)
    assert changes.reached(tmp_path) is None
