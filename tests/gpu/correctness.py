"""Is what a device computes correct: against the CPU, after a resume, and of two ranks."""

import copy
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clepdg import prompts
from clepdg.audio.frontend import log_mel, windows
from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.config.schema import AcptConfig, ClepConfig, ComputeConfig
from clepdg.dataset.shards import waveforms_of
from clepdg.errors import ClepError
from clepdg.method import acpt, clep
from clepdg.models.clap import Clap
from clepdg.training import distributed
from tests.gpu.clap import EMOTIONS

if TYPE_CHECKING:
    from tests.gpu.measure import Measure

FP32, BF16 = ComputeConfig(precision="fp32"), ComputeConfig(precision="bf16")
TOLERANCE = 1e-4


def exact() -> None:
    """Switch TF32 off: products and convolutions in full fp32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def without_dropout(clap: Clap) -> Clap:
    """Set every dropout to 0: devices draw other numbers."""
    for module in clap.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return clap


def losses(clap: Clap, table: Any, compute: ComputeConfig, batch: int, steps: int, folder: Path) -> list[float]:
    """Train CLEP; return the losses that it logs: of the first step and the last."""
    found: list[float] = []

    def log(metrics: Any, step: int) -> None:
        found.extend([metrics["loss"]] if "loss" in metrics else [])

    config = ClepConfig(batch_size=batch, epochs=1, steps_per_epoch=steps)
    clep.fit(clap, table, EMOTIONS, config, compute, 0, folder, Reporting(log_metrics=log))
    return found


def farthest(one: Clap, other: Clap) -> float:
    """Return the largest difference of two models' weights."""
    second = other.model.state_dict()
    return max((t.cpu() - second[n].cpu()).abs().max().item() for n, t in one.model.state_dict().items() if t.numel())


def embeddings_agree(m: "Measure") -> None:
    """Compare log-mels and features with the CPU's; of bf16, with fp32 on the device."""
    exact()
    here, there = m.fresh("cpu"), m.fresh()
    heard = waveforms_of(m.few.iloc[np.arange(2 if m.small else 8)])
    cut = torch.from_numpy(np.concatenate([windows(waveform, rate, here.front_end) for waveform, rate in heard]))
    texts = [text for emotion in EMOTIONS for text in prompts.captions(emotion, prompts.CAPTION_TEMPLATES)][:64]
    with torch.no_grad():
        mels = [log_mel(cut.to(clap.device), clap.front_end).cpu() for clap in (here, there)]
        audio = [clap.encode_log_mel(mels[0]).cpu() for clap in (here, there)]
        text = [clap.encode_text(texts).cpu() for clap in (here, there)]
        with torch.autocast(there.device.type, torch.bfloat16):
            half = [there.encode_log_mel(mels[0]).cpu(), there.encode_text(texts).cpu()]
    error = (mels[0] - mels[1]).abs().max().item()
    m.add("log-mel against the CPU, largest difference", error, "dB", "< 0.01", error < 0.01)
    for name, (first, second), low in (("audio", audio, half[0]), ("text", text, half[1])):
        error, cosine = (first - second).abs().max().item(), (second * low).sum(dim=1).min().item()
        m.add(f"{name} embeddings, fp32, against the CPU", error, "", f"< {TOLERANCE}", error < TOLERANCE)
        m.add(f"{name} embeddings, bf16 against fp32, lowest cosine", cosine, "", "> .999", cosine > 0.999)


def losses_agree(m: "Measure") -> None:
    """Compare the losses of CLEP and ACPT with the CPU's: the first, and after five steps."""
    exact()
    batch = 4 if m.small else 8
    here, there, half = without_dropout(m.fresh("cpu")), without_dropout(m.fresh()), without_dropout(m.fresh())
    table = m.few
    on_cpu = losses(here, table, FP32, batch, 6, m.new_folder())
    found = losses(there, table, FP32, batch, 6, m.new_folder())
    low = losses(half, table, BF16, batch, 6, m.new_folder())
    error = abs(found[0] - on_cpu[0])
    m.add("CLEP's first loss, fp32, against the CPU", error, "", f"< {TOLERANCE}", error < TOLERANCE)
    m.add("CLEP's loss after 5 steps, fp32, against the CPU", abs(found[-1] - on_cpu[-1]))
    m.add("CLEP's loss after 5 steps, bf16 against fp32", abs(low[-1] - found[-1]))
    m.add("CLEP's weights after 6 steps, against the CPU", farthest(here, there))
    config, ends = AcptConfig(contexts=8, batch_size=4, epochs=3), list[list[float]]()
    for place in ("cpu", m.device):
        ends.append([])
        report = Reporting(log_metrics=lambda metrics, step, to=ends[-1]: to.append(metrics["loss"]))
        acpt.fit(m.fresh(place), EMOTIONS, config, FP32, 0, m.new_folder(), report)
    error = abs(ends[0][0] - ends[1][0])
    m.add("ACPT's first loss, fp32, against the CPU", error, "", f"< {TOLERANCE}", error < TOLERANCE)
    m.add("ACPT's loss after 5 steps, fp32, against the CPU", abs(ends[0][-1] - ends[1][-1]))


def resumed_training_agrees(m: "Measure") -> None:
    """Compare a CLEP training that was stopped and resumed with an uninterrupted one, and two equal ones."""
    config = ClepConfig(batch_size=4 if m.small else 16, epochs=1, steps_per_epoch=6)
    table = m.few

    def fit(folder: Path, checkpointing: Checkpointing = DEFAULT_CHECKPOINTING) -> Clap:
        clap = m.fresh()
        clep.fit(clap, table, EMOTIONS, config, FP32, 0, folder, Reporting(), checkpointing)
        return clap

    whole, again, stopped = fit(m.new_folder()), fit(m.new_folder()), m.new_folder()
    try:
        fit(stopped, Checkpointing(checkpoint_seconds=1e9, limit_seconds=4, clock=itertools.count().__next__))
        raise AssertionError("the training was not stopped")
    except ClepError as error:
        assert "time limit" in str(error), error
    resumed, moved = farthest(whole, fit(stopped)), farthest(whole, m.fresh("cpu"))
    m.add("resumed CLEP against an uninterrupted one, weights", resumed, "", "0 on a CPU", resumed <= TOLERANCE)
    m.add("two equal trainings, weights", farthest(whole, again))
    m.add("how far the weights moved", moved, "", "> 0", moved > 0)


def two_ranks_agree(m: "Measure") -> None:
    """Compare CLEP on two devices over NCCL (gloo in a dry run) with one device."""
    if m.gpu and torch.cuda.device_count() < 2:
        m.lines.append(("two ranks over NCCL", "not measured: one device", "", None))
        return
    exact()
    folder, batch = m.new_folder(), 4 if m.small else 16
    table, one = m.few, without_dropout(m.fresh())
    expected = losses(one, table, FP32, batch, 3, m.new_folder())
    torch.multiprocessing.spawn(_rank, (m.device, m.clap, table, batch, folder), nprocs=2)
    found = torch.load(folder / "found")
    error = max(abs(a - b) for a, b in zip(expected, found, strict=True))
    m.add("CLEP's losses of two ranks against one", error, "", f"< {TOLERANCE}", error < TOLERANCE)


def _rank(rank: int, device: str, clap: Clap, table: Any, batch: int, folder: Path) -> None:
    exact()
    place = f"cuda:{rank}" if device.startswith("cuda") else device
    distributed.start(rank, 2, place, folder / "rendezvous")
    clap.model = copy.deepcopy(clap.model).to(place)  # what was passed lies in memory that both ranks share
    found = losses(without_dropout(clap), table, FP32, batch, 3, folder)
    if rank == 0:
        torch.save(found, folder / "found")
    distributed.stop()


SECTIONS = (embeddings_agree, losses_agree, resumed_training_agrees, two_ranks_agree)
