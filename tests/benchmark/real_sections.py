"""Measure a device against the CPU, a resumed training against an uninterrupted one, and speed."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import normalize

from clepdg import emotions, prompts
from clepdg.audio.frontend import LAION_FRONT_END, log_mel, windows
from clepdg.callbacks import DEFAULT_CHECKPOINTING, Checkpointing, Reporting
from clepdg.config.schema import AcptConfig, ClepConfig, ComputeConfig, TextConfig
from clepdg.emotions import labels
from clepdg.errors import ClepError
from clepdg.method import acpt, audio_embeddings, classifier, clep, text_embeddings, weights
from clepdg.method.inputs.batch_audio import BatchAudio
from clepdg.method.text_features import TextFeatures
from clepdg.models.clap import Clap, load_clap
from clepdg.models.log_mel_statistics import log_mel_statistics
from clepdg.training.loop import save_atomically

if TYPE_CHECKING:
    from tests.benchmark.real_size import Measure

EMOTIONS = labels("4")
SCALED = 5  # a CPU measures a fifth of ACPT's contexts


def exact(m: "Measure") -> None:
    """Switch TF32 off: products and convolutions in full fp32."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(m.cores.threads)


def forward_agreement(m: "Measure") -> None:
    """Compare features on the device with the CPU's; of bf16, cosines with fp32 on the device."""
    exact(m)
    here, there = m.fresh("cpu"), m.fresh()
    cut = torch.from_numpy(np.concatenate([windows(w, rate, LAION_FRONT_END) for _, w, rate in m.heard(8)]))
    texts = [text for emotion in EMOTIONS for text in prompts.captions(emotion, prompts.CAPTION_TEMPLATES)][:64]
    with torch.no_grad():
        text = [clap.encode_text(texts).cpu() for clap in (here, there)]
        mels = [log_mel(cut, LAION_FRONT_END), log_mel(cut.to(m.device), LAION_FRONT_END)]
        audio = [here.encode_log_mel(mels[0]), there.encode_log_mel(mels[1]).cpu()]
        with torch.autocast(torch.device(m.device).type, torch.bfloat16):
            half = [there.encode_text(texts), there.encode_log_mel(log_mel(cut.to(m.device), LAION_FRONT_END))]
    m.agree("log-mel, dB", largest=(mels[0] - mels[1].cpu()).abs().max().item())
    for name, (first, second), low in (("text", text, half[0]), ("audio", audio, half[1])):
        spread = (first - first.mean(dim=0)).norm(dim=1).mean().item()
        m.agree(f"{name} features", largest=(first - second).abs().max().item(), spread_of_features=spread)
        low = low.cpu()
        centred = [normalize(x - second.mean(dim=0), dim=1) for x in (second, low)]
        cosine = (second * low).sum(dim=1).min().item()
        m.agree(f"{name}, bf16", lowest_cosine=cosine, lowest_centred=(centred[0] * centred[1]).sum(dim=1).min().item())


def losses(m: "Measure", device: str, compute: ComputeConfig, size: int) -> tuple[list[float], Clap]:
    """Train CLEP for 6 steps without dropout; return the first and last loss, and the model."""
    clap, logged = m.fresh(device), list[float]()
    for module in clap.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

    def log(metrics: Any, step: int) -> None:
        logged.extend([metrics["loss"]] if "loss" in metrics else [])

    config = ClepConfig(batch_size=size, epochs=1, steps_per_epoch=6)
    clep.fit(clap, m.small(), EMOTIONS, config, compute, 0, m.new_folder(), Reporting(log_metrics=log))
    return logged, clap


def farthest(one: Clap, other: Clap) -> float:
    """Return the largest difference of two models' weights."""
    second = other.model.state_dict()
    return max((t.cpu() - second[n].cpu()).abs().max().item() for n, t in one.model.state_dict().items() if t.numel())


def training_agreement(m: "Measure") -> None:
    """Compare CLEP's loss and ACPT's contexts after 6 steps on the device with the CPU's."""
    exact(m)
    size = 8 if m.gpu else 2
    (first, last), there = losses(m, m.device, m.cores, size)
    (first_bf16, last_bf16), _ = losses(m, m.device, replace(m.cores, precision="bf16"), size)
    (first_cpu, last_cpu), here = losses(m, "cpu", m.cores, size)
    m.agree("CLEP loss", cpu=first_cpu, first=abs(first - first_cpu), after_5_steps=abs(last - last_cpu))
    m.agree("CLEP weights", largest=farthest(here, there))
    m.agree("CLEP loss, bf16", first=abs(first_bf16 - first), after_5_steps=abs(last_bf16 - last))
    ends: list[tuple[list[float], torch.Tensor]] = []
    config = AcptConfig(contexts=8, batch_size=4, epochs=3)
    for place in ("cpu", m.device):
        logged: list[float] = []
        report = Reporting(log_metrics=lambda metrics, step, to=logged: to.append(metrics["loss"]))
        vectors, _ = acpt.fit(m.fresh(place), labels("6"), config, m.cores, 0, m.new_folder(), report)
        ends.append((logged, vectors.cpu()))
    (loss_cpu, v_cpu), (loss, v) = ends
    moved = (v_cpu - acpt.initial_vectors(m.fresh("cpu"), config, 0)).abs().max().item()
    m.agree("ACPT loss", cpu=loss_cpu[0], first=abs(loss[0] - loss_cpu[0]), after_5_steps=abs(loss[-1] - loss_cpu[-1]))
    m.agree("ACPT contexts", largest=(v - v_cpu).abs().max().item(), they_moved=moved)


def resume_agreement(m: "Measure") -> None:
    """Compare a CLEP training that was stopped and resumed with an uninterrupted one, and two equal ones."""
    # One epoch: fit returns the best epoch's weights, which here are those of the last step, after the resumption.
    config = ClepConfig(batch_size=16 if m.gpu else 2, epochs=1, steps_per_epoch=6)

    def fit(folder: Any, checkpointing: Checkpointing = DEFAULT_CHECKPOINTING) -> Clap:
        clap = m.fresh()
        clep.fit(clap, m.small(), EMOTIONS, config, m.compute, 0, folder, Reporting(), checkpointing)
        return clap

    whole, again, stopped = fit(m.new_folder()), fit(m.new_folder()), m.new_folder()
    try:
        fit(stopped, Checkpointing(checkpoint_seconds=1e9, limit_seconds=4, clock=itertools.count().__next__))
        raise AssertionError("the training was not stopped")
    except ClepError as error:
        print(f"   stopped: {' '.join(str(error).split())[:90]}", flush=True)
    resumed = fit(stopped)
    moved = farthest(whole, m.fresh("cpu"))
    m.agree("resumed CLEP", largest=farthest(whole, resumed), two_equal_ones=farthest(whole, again), they_moved=moved)


def clep_speed(m: "Measure") -> None:
    """Time CLEP's steps with its loader, and with a batch that lies on the device already; and the loader alone."""
    config = replace(ClepConfig(), epochs=1, steps_per_epoch=5000)  # longer than is measured: no validation
    table, first = m.utterances, 8 if m.gpu else 1
    train = table[table.split == "train"].reset_index(drop=True)
    every, here = np.arange(config.batch_size), m.fresh("cpu")
    audio = BatchAudio(here, train, config, 0, ())
    m.per_second("loader", len(every), lambda: audio.load(0, every))
    fixed = audio.load(0, every)
    real = BatchAudio.load

    def same(*_: Any) -> torch.Tensor:
        return fixed

    def fit(compute: ComputeConfig) -> Callable[[Reporting], Any]:
        clap, folder = m.fresh(), m.new_folder()
        return lambda report: clep.fit(clap, table, EMOTIONS, config, compute, 0, folder, report)

    def rate(name: str, compute: ComputeConfig, load: Any, tf32: bool = False) -> None:
        BatchAudio.load, torch.backends.cuda.matmul.allow_tf32 = load, tf32  # type: ignore[method-assign]
        try:
            m.rate(f"clep_{name}", m.steps(fit(compute), first))
        finally:
            BatchAudio.load, torch.backends.cuda.matmul.allow_tf32 = real, False  # type: ignore[method-assign]

    for name in ("fp32", "bf16"):
        compute = ComputeConfig(precision=name)  # type: ignore[arg-type]
        rate(name, compute, real)
        rate(f"{name}_no_loader", compute, same)
        m.rate(f"clep_{name}_loader_share", 1 - m.rates[f"clep_{name}"] / m.rates[f"clep_{name}_no_loader"])
    if m.gpu:
        rate("tf32_no_loader", m.compute, same, tf32=True)


def selection_speed(m: "Measure") -> None:
    """Time CLEP's validation, and what it saves: its best epoch, and the model folder with its digest."""
    clap, few = m.fresh(), m.utterances.head(None if m.gpu else 32)
    text = TextFeatures(clap, EMOTIONS, ClepConfig())
    index = few.emotion.map({emotion: n for n, emotion in enumerate(EMOTIONS)}).to_numpy()
    m.per_second("validation", len(few), lambda: clep.zero_shot_uars(clap, text, few, index))
    weights.trainable_groups(clap, ClepConfig())
    trained = {name: p for name, p in clap.model.named_parameters() if p.requires_grad}
    m.rate("best_seconds", m.timed(lambda: save_atomically(m.folder / "best", trained, {})))
    folder = m.new_folder()
    m.rate("save_seconds", m.timed(lambda: (clap.save(folder), clap.digest())))
    m.rate("load_seconds", m.timed(lambda: load_clap(folder, device=m.device)))


def embedding_speed(m: "Measure") -> None:
    """Time audio embeddings from shards, their parts alone, and text embeddings."""
    clap, count = m.fresh(), len(m.utterances) if m.gpu else 32

    def embed() -> Any:
        return audio_embeddings.build_audio_embeddings(
            lambda batch: clap.encode_waveforms(batch).cpu().numpy(), m.heard(count), count, Reporting()
        )

    m.per_second("embed", count, embed)
    m.per_second("embed_reading_alone", count, lambda: [windows(w, hz, LAION_FRONT_END) for _, w, hz in m.heard(count)])
    batch = torch.randn(32, LAION_FRONT_END.samples, device=m.device).mul_(0.1)
    with torch.no_grad():
        m.per_second("embed_model_alone", 32, lambda: clap.encode_log_mel(log_mel(batch, LAION_FRONT_END)))
    m.per_second("log_mel_statistics", count, lambda: [log_mel_statistics(w, hz) for _, w, hz in m.heard(count)])
    contexts = acpt.initial_vectors(clap, AcptConfig(contexts=80 if m.gpu else 16), 0)
    config = TextConfig()
    rows = len(text_embeddings.build_text_embeddings(clap, config, contexts).embeddings)
    m.per_second("prompts", rows, lambda: text_embeddings.build_text_embeddings(clap, config, contexts))


def acpt_speed(m: "Measure") -> None:
    """Time epochs of ACPT's joint training, and its description; a CPU measures a fifth of the contexts."""
    full, scale = AcptConfig(), 1 if m.gpu else SCALED
    config = replace(full, contexts=full.contexts // scale, epochs=3 if m.gpu else 1)
    per_epoch, first = -(-config.contexts // config.batch_size), -(-config.contexts // config.batch_size)
    for count in sorted({6, *m.counts.acpt_epochs}):
        names, clap, ends = emotions.EMOTIONS[:count], m.fresh(), [time.perf_counter()]
        report = Reporting(progress=lambda done, total, ends=ends: ends.append(time.perf_counter()))
        acpt.fit(clap, names, config, m.compute, 0, m.new_folder(), report)
        begin = first if m.gpu else 0
        m.rate(f"acpt_epoch_{count}_seconds", scale * (ends[-1] - ends[begin]) * per_epoch / (len(ends) - 1 - begin))
    start = replace(config, method="random")
    run = partial(acpt.fit, clap, names, start, m.compute, 0, m.new_folder(), Reporting())
    m.rate("acpt_describe_seconds", scale * m.timed(run))


def classifier_speed(m: "Measure") -> None:
    """Time one head learnt from text and one probe, at their true sizes, on random embeddings around class means."""
    rng, n = np.random.default_rng(0), m.counts.learning
    y = rng.integers(len(EMOTIONS), size=n)
    x = (rng.normal(size=(len(EMOTIONS), 512))[y] * 0.02 + rng.normal(size=(n, 512)) * 0.04).astype(np.float32)
    torch.set_num_threads(1)
    text, config = torch.from_numpy(x[:360]), m.config.classifier

    def fit() -> Any:
        labelled = torch.from_numpy(y[: len(text)])
        return classifier.fit_text(text, labelled, len(EMOTIONS), config, 0, m.new_folder(), Reporting())

    m.rate("text_head_seconds", m.timed(fit))
    m.rate("probe_head_seconds", m.timed(lambda: classifier.fit_audio(x, y, EMOTIONS)))
    torch.set_num_threads(m.compute.threads)


AGREEMENT = (forward_agreement, training_agreement, resume_agreement)
SPEED = (clep_speed, selection_speed, embedding_speed, acpt_speed, classifier_speed)
