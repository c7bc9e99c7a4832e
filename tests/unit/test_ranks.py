"""Protects training on several ranks: one process's loss and gradients, resuming, and no orphans."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import psutil
import pytest
import torch

from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.config.presets import demo
from clepdg.config.schema import ClepConfig
from clepdg.errors import ClepError, ConfigError
from clepdg.models.tensors import load_tensors
from clepdg.store.documents import Documents
from clepdg.training import distributed
from clepdg_tasks.engine.node import Work
from clepdg_tasks.engine.worker import WorkerProcess
from clepdg_tasks.host.settings import PROJECT
from tests.unit import stage_functions
from tests.unit.test_worker import gone

CONFIG = replace(demo().clep, epochs=1, steps_per_epoch=2, batch_size=8, clip_norm=1e9, train_text_encoder=True)
TRAININGS = {
    "emotion": (CONFIG, False),
    "instance": (replace(CONFIG, target="instance", chunk=3), False),
    "frozen-text": (replace(CONFIG, train_text_encoder=False, from_scratch=False), False),
    "dropout": (replace(CONFIG, epochs=2, steps_per_epoch=1), True),
}


@pytest.fixture(scope="module")
def worker():
    worker = WorkerProcess()
    yield worker
    worker.end()


def work(folder, what, reporting=None, checkpointing=DEFAULT_CHECKPOINTING, **config):
    folder.mkdir(exist_ok=True)
    return Work(
        config={"what": what, **config},
        folder=folder,
        inputs={},
        records={},
        previous=None,
        pins=Documents(folder),
        device="cpu",
        workers=1,
        reporting=reporting or Reporting(),
        checkpointing=checkpointing,
    )


def pids_of(folder, count, seconds=90.0):
    """Return the pids of ranks that say them by files."""
    import time

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]
        if len(found) == count:
            return found
        time.sleep(0.05)
    raise AssertionError("the ranks did not start")


@pytest.fixture(scope="module")
def trained(worker, utterances, tmp_path_factory):
    """Train on two ranks, and in this process with the same, whole batch; return folders and reported metrics."""
    folders, metrics = {}, {"one": [], "two": []}
    for name, compute in (("one", stage_functions.train), ("two", stage_functions.on_two)):
        folders[name] = tmp_path_factory.mktemp(name)
        reporting = Reporting(log_metrics=lambda values, step, name=name: metrics[name].append((step, values)))
        job = work(folders[name], "train", reporting, trainings=TRAININGS, utterances=utterances)
        threads = torch.get_num_threads()
        computed = compute(job) if name == "one" else worker.compute(compute, job)
        torch.set_num_threads(threads)
        metrics[f"{name} figures"] = computed.figures
    return folders, metrics


@pytest.mark.parametrize("name", ["emotion", "instance", "frozen-text"])
def test_two_ranks_give_the_gradients_of_one_process_with_the_whole_batch(trained, name):
    folders, _ = trained
    one = load_tensors(folders["one"] / name / "gradients-0.safetensors")
    assert {"logit_scale_a", "audio_projection.linear1.weight", "text_projection.linear1.weight"} <= set(one)
    assert any(key.startswith("text_model") for key in one) == (name != "frozen-text")
    assert max(float(gradient.abs().max()) for gradient in one.values()) > 0.01
    for rank in range(2):
        two = load_tensors(folders["two"] / name / f"gradients-{rank}.safetensors")
        assert set(two) == set(one)
        for key in one:
            torch.testing.assert_close(
                two[key], one[key], atol=1e-5, rtol=0, msg=lambda text, key=key: f"{key}: {text}"
            )


def test_two_ranks_give_the_losses_and_scores_of_one_process(trained):
    """Over two steps of three trainings: the weights stay together as well."""
    _, metrics = trained
    pairs = list(zip(metrics["one"], metrics["two"], strict=True))[:-4]  # dropout's masks differ
    assert len([values for (_, values), _ in pairs if "loss" in values]) == 6  # the first and the last step
    for (step, one), (other_step, two) in pairs:
        assert step == other_step
        assert two == pytest.approx(one, abs=1e-5 if step == 0 else 1e-3)
    for name in ("emotion", "instance", "frozen-text"):
        assert metrics["two figures"][name]["validation_uar"] == metrics["one figures"][name]["validation_uar"]


def test_ranks_end_with_equal_weights(trained):
    folders, _ = trained
    for name in TRAININGS:
        digests = {(folders["two"] / name / f"digest-{rank}").read_text() for rank in range(2)}
        assert len(digests) == 1, name


def test_ranks_that_ran_out_of_time_go_on_bit_for_bit(worker, trained, utterances, tmp_path):
    only = {"dropout": TRAININGS["dropout"]}
    job = work(tmp_path, "train", trainings=only, utterances=utterances, checkpointing=Checkpointing(limit_seconds=0.0))
    with pytest.raises(ClepError, match="time limit is reached") as error:
        worker.compute(stage_functions.on_two, job)
    assert "step 1 of 2" in str(error.value)
    worker.compute(stage_functions.on_two, work(tmp_path, "train", trainings=only, utterances=utterances))
    whole = trained[0]["two"]
    for rank in range(2):
        resumed = (tmp_path / "dropout" / f"digest-{rank}").read_text()
        assert resumed == (whole / "dropout" / f"digest-{rank}").read_text()
    assert not list(tmp_path.glob("ranks-*"))


def test_ranks_gather_in_order_the_first_reports_and_nothing_listens_to_others(worker, tmp_path):
    heard = []
    reporting = Reporting(progress=lambda done, total: heard.append((done, total)))
    computed = worker.compute(stage_functions.on_two, work(tmp_path, "meet", reporting))
    assert computed.figures["gathered"] == [1.0, 1.0, 2.0, 2.0]
    assert computed.digests["content"] == "[0, 1, 1]"
    assert heard == [(0, 2)]
    assert set(computed.figures["listening"]) <= {"127.0.0.1", "::1"}


def test_a_rank_that_fails_ends_the_others_and_is_the_error(worker, tmp_path):
    with pytest.raises(ConfigError, match=r"^The second rank refuses\.$"):
        worker.compute(stage_functions.on_two, work(tmp_path, "quarrel"))
    assert all(gone(pid) for pid in pids_of(tmp_path, 2))
    with pytest.raises(ZeroDivisionError, match="a bug of the second rank"):
        worker.compute(stage_functions.on_two, work(tmp_path, "stumble"))


def test_a_killed_rank_ends_the_others_and_is_one_clear_error(worker, tmp_path):
    with pytest.raises(ClepError, match=r"The training process was killed \(signal 9\)"):
        worker.compute(stage_functions.on_two, work(tmp_path, "lose"))
    assert all(gone(pid) for pid in pids_of(tmp_path, 2))


def test_ranks_die_with_a_killed_worker_and_when_it_is_stopped(tmp_path):
    def kill():
        psutil.Process(pids_of(tmp_path / "killed", 2)[0]).parent().kill()

    def close():
        pids_of(tmp_path / "stopped", 2)
        worker.close()

    for name, end, message in (("killed", kill, "signal 9"), ("stopped", close, "was stopped")):
        worker = WorkerProcess()
        thread = threading.Thread(target=end)
        thread.start()
        with pytest.raises(ClepError, match=message):
            worker.compute(stage_functions.on_two, work(tmp_path / name, "sleep"))
        thread.join()
        worker.end()
        assert all(gone(pid) for pid in pids_of(tmp_path / name, 2))


def test_ranks_die_with_a_killed_run(tmp_path):
    driver = f"""
from pathlib import Path
from clepdg_tasks.engine.worker import WorkerProcess
from tests.unit import stage_functions
from tests.unit.test_ranks import work
WorkerProcess().compute(stage_functions.on_two, work(Path({str(tmp_path)!r}), "sleep"))
"""
    run = subprocess.Popen([sys.executable, "-c", driver], cwd=PROJECT, env={**os.environ, "PYTHONPATH": "."})
    try:
        pids = pids_of(tmp_path, 2)
        pids.append(psutil.Process(pids[0]).ppid())
    finally:
        run.kill()
        run.wait(30)
    assert all(gone(pid) for pid in pids)


def test_a_batch_that_ranks_can_not_share_is_refused():
    with pytest.raises(ConfigError, match="shared out equally") as error:
        ClepConfig(batch_size=32, ranks=3)
    assert "batch_size 32" in str(error.value)
    with pytest.raises(ConfigError, match="ranks"):
        ClepConfig(ranks=0)


def test_one_rank_changes_nothing():
    features = torch.randn(3, 2, requires_grad=True)
    assert distributed.gather(features) is features
    assert distributed.rank_slice(7) == slice(0, 7)
    assert distributed.gather_lists([1, 2]) == [1, 2]
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
