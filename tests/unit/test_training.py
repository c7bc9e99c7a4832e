"""Protects the training loop's checkpointing: saved by the clock, stopped in time, resumed to equal bytes."""

import contextlib
import json
import time

import pytest
import torch

from clepdg.callbacks import Checkpointing, Reporting
from clepdg.errors import ClepError
from clepdg.models.tensors import load_tensors
from clepdg.training import loop
from clepdg.training.curve import CURVE, Curve
from clepdg.training.loop import CHECKPOINT, Training, read_checkpoint_facts


def make(folder, checkpointing, steps=10, checkpoint_multiple=1):
    """Return a tiny training whose steps differ, and its weight."""
    folder.mkdir(exist_ok=True)
    weight = torch.nn.Parameter(torch.zeros(3))

    def loss(step):
        return (weight - torch.randn(3)).square().sum(), {}

    return weight, Training(
        tensors={"weight": weight},
        optimiser=torch.optim.Adam([weight], lr=0.1),
        loss=loss,
        steps=steps,
        seed=0,
        folder=folder,
        checkpointing=checkpointing,
        checkpoint_multiple=checkpoint_multiple,
    )


@pytest.fixture
def saves(monkeypatch):
    """Collect the steps at which a training is saved."""
    steps = []
    save = Training._save
    monkeypatch.setattr(Training, "_save", lambda self, done: steps.append(done) or save(self, done))
    return steps


def test_it_is_saved_as_often_as_the_clock_says(tmp_path, ticking, saves):
    make(tmp_path, ticking(3))[1].run()
    assert saves == [3, 6, 9]
    saves.clear()
    make(tmp_path / "every", ticking(0))[1].run()
    assert saves == list(range(1, 10))  # after the last step there is nothing to resume
    saves.clear()
    make(tmp_path / "never", ticking(1000))[1].run()
    assert saves == []


def test_it_is_saved_only_where_it_may_stop(tmp_path, ticking, saves):
    make(tmp_path, ticking(0), checkpoint_multiple=4)[1].run()
    assert saves == [4, 8]


def test_when_the_time_is_up_it_is_saved_and_fails_and_the_same_command_goes_on(tmp_path, ticking):
    whole, run = make(tmp_path / "whole", ticking(1000))
    run.run()
    reached = []
    for _ in range(10):
        weight, run = make(tmp_path / "broken", ticking(1000, limit=4))
        try:
            run.run()
            break
        except ClepError as error:
            reached.append(read_checkpoint_facts(tmp_path / "broken" / CHECKPOINT)["done"])
            assert str(error).startswith("The training's time limit is reached.")
            assert f"step {reached[-1]} of 10" in str(error)
            assert "run the same command again" in str(error)
    assert reached == [4, 8]
    assert torch.equal(weight, whole)


@pytest.mark.parametrize(
    ("harm", "facts"),
    [
        (lambda tensors: tensors.pop("tensor.weight"), {}),
        (lambda tensors: tensors.update({"tensor.other": torch.zeros(1)}), {}),
        (lambda tensors: tensors.update({"tensor.weight": torch.zeros(1)}), {}),  # would be broadcast
        (lambda tensors: tensors.update({"optimiser.1.exp_avg": torch.zeros(3)}), {}),
        (lambda tensors: tensors.update({"optimiser.0.exp_avg": torch.zeros(4)}), {}),
        (lambda tensors: tensors.update({"optimiser.x": torch.zeros(3)}), {}),
        (lambda tensors: None, {"done": 10}),
        (lambda tensors: None, {"done": "4"}),
        (lambda tensors: None, {"done": -1}),
        (lambda tensors: None, {"memory": []}),
    ],
)
def test_another_trainings_checkpoint_is_told_of_and_it_begins_anew(harm, facts, tmp_path, ticking, caplog):
    whole, run = make(tmp_path / "whole", ticking(1000))
    run.run()
    with pytest.raises(ClepError):
        make(tmp_path / "broken", ticking(1000, limit=4))[1].run()
    path = tmp_path / "broken" / CHECKPOINT
    tensors, said = load_tensors(path), read_checkpoint_facts(path)
    harm(tensors)
    loop.save_atomically(path, tensors, {**said, **facts})
    weight, run = make(tmp_path / "broken", ticking(1000))
    run.run()
    assert "belongs to another training" in caplog.text
    assert torch.equal(weight, whole)


def test_a_limit_shorter_than_a_step_still_gets_on(tmp_path):
    for reached in range(1, 10):
        _, run = make(tmp_path, Checkpointing(limit_seconds=0.0))
        with pytest.raises(ClepError, match=f"step {reached} of 10"):
            run.run()
    make(tmp_path, Checkpointing(limit_seconds=0.0))[1].run()


def test_a_wall_clock_that_jumps_changes_nothing(tmp_path, monkeypatch, saves):
    """An hour back, a year on: intervals are not measured by it."""
    jumps = iter([1e9 + (-1) ** n * 1e8 * n for n in range(10_000)])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    make(tmp_path, Checkpointing(checkpoint_seconds=3600, limit_seconds=3600))[1].run()
    assert saves == []


def test_the_seeds_of_steps_and_ranks_differ():
    seeds = [loop.step_seed(0, step, rank) for step in range(50) for rank in range(4)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def test_the_course_of_a_training_is_the_same_after_a_resumption(tmp_path, ticking):
    def curve(folder, checkpointing):
        while True:
            _, run = make(folder, checkpointing, steps=120)
            with contextlib.suppress(ClepError):
                run.run()
                run.curve.write(folder)
                return json.loads((folder / CURVE).read_text())

    whole = curve(tmp_path / "whole", ticking(1000))
    assert curve(tmp_path / "broken", ticking(1000, limit=7)) == whole
    steps, losses = zip(*whole["loss"], strict=True)
    assert steps == tuple(range(3, 121, 3))  # 40 parts of 3 steps: at most 50
    assert len(set(losses)) == 40


@pytest.mark.parametrize("facts", [None, [], {"counts": 3}, {"counts": [1], "sums": {"loss": ["x"]}}])
def test_a_checkpoint_without_a_curve_begins_a_new_one(facts):
    assert Curve.resumed(facts) == Curve()


def diverging(folder, checkpointing, bad, weights=False):
    """Return a training whose loss, or only its weight, is not finite from a step on; and what it reports."""
    weight, run = make(folder, checkpointing, steps=30)
    reports, plain = [], run.loss

    def loss(step):
        value, _ = plain(step)
        if step >= bad:
            value = value + (weight - weight.detach()).abs().sqrt().sum() if weights else value * float("nan")
        return value, {"other": value.detach() * 2}

    run.loss = loss
    run.reporting = Reporting(log_metrics=lambda metrics, step: reports.append((step, dict(metrics))))
    return run, reports


@pytest.mark.parametrize("bad", [0, 13, 19, 29])
@pytest.mark.parametrize("weights", [False, True])
def test_a_training_that_diverged_says_at_which_step_and_is_never_saved(tmp_path, ticking, bad, weights):
    run, _ = diverging(tmp_path, ticking(4), bad, weights)
    what = (
        f"weights that are not finite after step|loss nan at step {bad + 1}" if weights else f"loss nan at step {bad}"
    )
    with pytest.raises(ClepError, match=f"(?s)diverged.*({what})"):
        run.run()
    path = tmp_path / CHECKPOINT
    if path.exists():
        assert read_checkpoint_facts(path)["done"] <= bad
        assert all(bool(torch.isfinite(tensor).all()) for tensor in load_tensors(path).values())


def test_metrics_are_those_of_every_tenth_step_and_of_the_last(tmp_path, ticking):
    run, reports = diverging(tmp_path, ticking(1000), 1000)
    run.run()
    assert [step for step, _ in reports] == [0, 10, 20, 29]
    assert all(metrics["other"] == pytest.approx(2 * metrics["loss"]) for _, metrics in reports)
    assert sum(run.curve.counts) == 30


def test_numbers_are_read_from_the_device_every_tenth_step_alone(tmp_path, ticking, monkeypatch):
    run, _ = diverging(tmp_path, ticking(1000), 1000)
    reads = []
    for name in ("item", "tolist", "__bool__", "__float__"):
        plain = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, name=name, plain=plain: reads.append(name) or plain(self))
    run.loss, made = (lambda step, loss=run.loss: (reads.append(step), loss(step))[1]), reads
    run.optimiser = torch.optim.SGD(run.optimiser.param_groups[0]["params"], lr=0.1)
    run.run()
    between = [made[n + 1] for n, entry in enumerate(made[:-1]) if isinstance(entry, int) and entry % 10 not in (0, 9)]
    assert all(isinstance(entry, int) for entry in between)
