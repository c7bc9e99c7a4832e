"""How fast a device trains and embeds, against its own rate of matrix products."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from clepdg.audio.frontend import log_mel
from clepdg.callbacks import Reporting
from clepdg.config.schema import AcptConfig, ClepConfig, ComputeConfig
from clepdg.dataset.shards import UtteranceReader
from clepdg.emotions import EMOTIONS as CANONICAL
from clepdg.method import acpt, clep
from clepdg.method.audio_embeddings import build_audio_embeddings
from clepdg.method.inputs.batch_audio import BatchAudio
from clepdg.training.batches import map_ahead
from tests.gpu.clap import EMOTIONS

if TYPE_CHECKING:
    from tests.gpu.measure import Measure

MINUTE = 60.0


class Enough(Exception):
    """Ends a training that was measured for long enough."""


def matrix_products(m: "Measure") -> None:
    """Measure the rate of bf16 matrix products: what the device can do."""
    size = 256 if m.small else 8192
    a, b = (torch.randn(size, size, device=m.device, dtype=torch.bfloat16) for _ in range(2))

    def ten() -> None:
        for _ in range(10):
            a @ b

    m.add("bf16 matrix products", 10 * 2 * size**3 / m.seconds(ten) / 1e12, "TFLOP/s")


def steps_per_second(m: "Measure", config: ClepConfig, compute: ComputeConfig, seconds: float) -> float:
    """Return the rate of CLEP's steps, without the first ones."""
    first, ends, steps = 1 if m.small else 10, list[float](), list[int]()

    def progress(done: int, total: int) -> None:
        if done == first or ends and time.perf_counter() - ends[0] >= seconds:
            m.wait()
            ends.append(time.perf_counter())
            steps.append(done)
        if len(ends) == 2:
            raise Enough

    with contextlib.suppress(Enough):
        clep.fit(m.fresh(), m.utterances, EMOTIONS, config, compute, 0, m.new_folder(), Reporting(progress=progress))
    return (steps[1] - steps[0]) / (ends[1] - ends[0])


def on_device(m: "Measure", loaded: Any) -> Any:
    """Return a loaded batch, its samples on the device."""
    return replace(loaded, samples=loaded.samples.to(m.device))


def flops_of_a_step(m: "Measure", batch: int) -> float:
    """Return the floating-point operations of forward and backward of the audio encoder."""
    from torch.utils.flop_counter import FlopCounterMode

    clap, counter = m.fresh(), FlopCounterMode(display=False)
    windows = torch.randn(2, clap.front_end.samples, device=m.device).mul_(0.1)
    with counter:
        clap.encode_inputs(windows).sum().backward()
    return counter.get_total_flops() * batch / 2


def training(m: "Measure") -> None:
    """Measure CLEP's steps with the loader, and with a batch that lies on the device."""
    size, seconds = (4, 0.1) if m.small else (32, 12.0)
    config = ClepConfig(batch_size=size, epochs=1, steps_per_epoch=100_000)
    train = m.utterances[m.utterances.split == "train"]
    load, fixed = BatchAudio.load, on_device(m, BatchAudio(m.fresh(), train, config, 0, ()).load(0, np.arange(size)))
    flops, products = flops_of_a_step(m, size), m.values["bf16 matrix products"] * 1e12

    def same(*_: Any) -> Any:
        return fixed

    for precision in ("bf16",) if m.small else ("fp32", "bf16"):
        compute = ComputeConfig(precision=precision)  # type: ignore[arg-type]
        real = steps_per_second(m, config, compute, seconds)
        BatchAudio.load = same  # type: ignore[method-assign]
        try:
            synthetic = steps_per_second(m, config, compute, seconds)
        finally:
            BatchAudio.load = load  # type: ignore[method-assign]
        m.add(f"CLEP, {precision}, with the loader", real * size, "utterances/s")
        m.add(f"CLEP, {precision}, batch on the device", synthetic * size, "utterances/s")
        reached = None if m.small else real >= 0.95 * synthetic
        m.add(f"CLEP, {precision}, loader against batch on the device", real / synthetic, "", ">= .95", reached)
        m.add(f"CLEP, {precision}, share of the matrix products' rate", real * flops / products)


def embeddings(m: "Measure") -> None:
    """Measure audio embeddings, and the encoder alone on a batch on the device."""
    clap, count = m.fresh(), 8 if m.small else 512

    reader, names = UtteranceReader(m.utterances), m.utterances.utterance_id.tolist()

    def embed() -> Any:
        heard = zip(names, map_ahead(reader.waveform, range(count)), strict=False)
        return build_audio_embeddings(
            lambda batch: clap.encode_waveforms(batch).cpu().numpy(),
            ((name, *each) for name, each in heard), count, Reporting(), 4 if m.small else 256,
        )  # fmt: skip

    batch = torch.randn(4 if m.small else 32, clap.front_end.samples, device=m.device).mul_(0.1)
    with torch.no_grad():
        alone = len(batch) / m.seconds(lambda: clap.encode_log_mel(log_mel(batch, clap.front_end)))
    real = count / m.seconds(embed, 6.0)
    m.add("audio embeddings", real, "utterances/s")
    m.add("encoder alone", alone, "utterances/s")
    m.add(
        "audio embeddings against the encoder alone",
        real / alone,
        "",
        ">= .95",
        None if m.small else real >= 0.95 * alone,
    )


def contexts(m: "Measure") -> None:
    """Measure ACPT with 80 contexts and 7 emotions, whole; past a minute and a half it is extrapolated."""
    config = AcptConfig(contexts=8, batch_size=4, epochs=2) if m.small else AcptConfig()
    start, reached = time.perf_counter(), [0, 1]

    def progress(done: int, total: int) -> None:
        reached[:] = [done, total]
        if time.perf_counter() - start > 1.5 * MINUTE:
            raise Enough

    with contextlib.suppress(Enough):
        acpt.fit(m.fresh(), CANONICAL[:7], config, ComputeConfig(), 0, m.new_folder(), Reporting(progress=progress))
    m.wait()
    spent = time.perf_counter() - start
    whole = spent * reached[1] / max(1, reached[0])
    m.add(f"ACPT, {config.contexts} contexts, 7 emotions", whole, "s", "<= 60", None if m.small else whole <= MINUTE)
    m.add("ACPT, a step", 1000 * spent / max(1, reached[0]), "ms")


Section = Callable[["Measure"], None]
SECTIONS: tuple[Section, ...] = (matrix_products, training, embeddings, contexts)
