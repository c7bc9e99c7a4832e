"""Sections of the benchmark; each returns its lines. Weights are random."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from clepdg.audio import corruptions
from clepdg.audio.frontend import LAION_FRONT_END, MICRO_FRONT_END, log_mel, windows
from clepdg.audio.io import decode, resample, to_mono
from clepdg.callbacks import Reporting
from clepdg.config.conditions import SWEEP, parse
from clepdg.config.schema import AcptConfig, ClepConfig, ComputeConfig
from clepdg.dataset.shards import waveforms_of
from clepdg.emotions import EMOTIONS
from clepdg.method import acpt, clep
from clepdg.method.inputs.batch_audio import BatchAudio
from clepdg.models.clap import Clap
from clepdg.models.micro import build_micro
from clepdg_tasks.host.liveness import die_with_parent
from tests.benchmark.lines import Line, in_turn, line, ratios

ONE_THREAD = ComputeConfig(threads=1)
BATCH = 32


@cache
def corpus(root: Path) -> pd.DataFrame:
    """Return 128 synthetic utterances in shards."""
    from clepdg.method.prepare_corpus import prepare_corpus

    return prepare_corpus("synthetic-1", None, root / "corpora", allow_partial=True, settings={"utterances": 128})


@cache
def training(root: Path) -> pd.DataFrame:
    """Return the training part."""
    table = corpus(root)
    return table[table.split == "train"].reset_index(drop=True)


@cache
def htsat(root: Path) -> Clap:
    """Return a CLAP of true size with random weights."""
    from tests.gpu.clap import build_clap

    (root / "clap").mkdir(exist_ok=True)
    return build_clap(root / "clap", small=False)


def flac_bytes(table: pd.DataFrame) -> list[bytes]:
    """Return the encoded utterances."""
    return [
        (Path(row.folder) / row.tar).read_bytes()[row.offset : row.offset + row.bytes]
        for row in table.itertuples(index=False)
    ]


def loader(root: Path) -> dict[str, Line]:
    """Load batches for HTSAT, against decoding alone and against a loop over rows of a data frame."""
    table, clap = training(root), htsat(root)
    every = np.arange(min(64, len(table)))
    data, steps = flac_bytes(table.iloc[every]), iter(range(1 << 30))

    def floor() -> None:
        for each in data:
            decode(each)

    def peer() -> None:
        for n in every:
            row = next(table.iloc[[n]].itertuples(index=False))
            samples, rate = decode((Path(row.folder) / row.tar).read_bytes()[row.offset : row.offset + row.bytes])
            windows(to_mono(samples), rate, LAION_FRONT_END)

    def load(augment: bool) -> Callable[[], Any]:
        audio = BatchAudio(clap, table, ClepConfig(augment=augment), 0, ())
        audio.reader = type(audio.reader)(table)  # nothing is kept in memory: each call decodes
        return lambda: audio.load(next(steps), every)

    spent = in_turn({"floor": floor, "peer": peer, "ours": load(False), "augmented": load(True)})
    rate = [len(every) / seconds for seconds in spent["ours"]]
    augmented = [len(every) / seconds for seconds in spent["augmented"]]
    return {
        "Loading for CLEP": line(rate, unit="utterances/s a core", said="decode, cut, resample to 48 kHz"),
        "Loading for CLEP, of decoding alone": line(ratios(spent, "floor", "ours"), said="FLAC to samples alone"),
        "Loading for CLEP, against a data frame's rows": line(
            ratios(spent, "peer", "ours"), said="a loop of iloc and itertuples with windows"
        ),
        "Loading for CLEP, augmented": line(augmented, unit="utterances/s a core", said="rooms, noise, lines"),
    }


def log_mels(root: Path) -> dict[str, Line]:
    """Compute LAION's log-mels of utterances of 3.7 s, against transformers' extractor; and statistics."""
    from transformers import ClapFeatureExtractor

    from clepdg.models.log_mel_statistics import log_mel_statistics

    rng = np.random.default_rng(0)
    short = [rng.normal(0, 0.05, int(3.7 * 48000)).astype(np.float32) for _ in range(8)]
    extractor = ClapFeatureExtractor(
        truncation="rand_trunc", padding="repeatpad", frequency_min=LAION_FRONT_END.low_hz,
        frequency_max=LAION_FRONT_END.high_hz,
    )  # fmt: skip
    cut = torch.from_numpy(np.stack([windows(each, 48000, LAION_FRONT_END)[0] for each in short]))
    lengths = [len(each) for each in short]
    heard = [(resample(each, 48000, 16000), 16000) for each in short]
    expected = extractor(short, sampling_rate=48000, return_tensors="pt").input_features
    error = (expected - log_mel(cut, LAION_FRONT_END, lengths)).abs().max().item()
    spent = in_turn(
        {
            "peer": lambda: extractor(short, sampling_rate=48000, return_tensors="pt"),
            "ours": lambda: log_mel(cut, LAION_FRONT_END, lengths),
            "whole": lambda: log_mel(cut, LAION_FRONT_END),
            "statistics": lambda: [log_mel_statistics(*each) for each in heard],
        }
    )
    rate = [len(heard) / seconds for seconds in spent["statistics"]]
    return {
        "Log-mel against transformers' extractor": line(
            ratios(spent, "peer", "ours"),
            goal=">= 5",
            said=f"3.7 s repeated to 10 s; largest difference {error:.1e} dB",
        ),
        "Log-mel against the whole window": line(ratios(spent, "whole", "ours"), said="ours without its lengths"),
        "Log-mel statistics": line(rate, unit="utterances/s a core", goal=">= 300", said="3.7 s at 16 kHz"),
    }


def micro_step(root: Path) -> dict[str, Line]:
    """Train micro by steps of 32, against a plain loop with the same loss and against forward, backward and AdamW."""
    from transformers import ClapFeatureExtractor

    from clepdg.method.contrastive import contrastive_loss, targets

    table = training(root)
    emotions = tuple(sorted(set(table.emotion)))
    labels = torch.tensor([emotions.index(one) for one in table.emotion])
    data = flac_bytes(table.iloc[:BATCH])
    fe = MICRO_FRONT_END
    extractor = ClapFeatureExtractor(
        feature_size=fe.mels, sampling_rate=fe.sample_rate, hop_length=fe.hop, max_length_s=int(fe.seconds),
        fft_window_size=fe.n_fft, frequency_min=fe.low_hz, frequency_max=fe.high_hz, padding="repeat",
        truncation="rand_trunc",
    )  # fmt: skip
    clap = build_micro(0)
    with torch.no_grad():
        captions = clap.encode_text([f"{one} speech" for one in emotions])[labels[:BATCH]]
    parameters = [*clap.model.audio_model.parameters(), *clap.model.audio_projection.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-5)
    mels = torch.randn(BATCH, 1, fe.frames, fe.mels)

    def step(x: torch.Tensor) -> None:
        clap.model.train()
        features = clap.encode_log_mel(x)
        loss, _ = contrastive_loss(10 * features @ captions.T, targets(labels[:BATCH], "emotion"))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def plain() -> None:
        heard = [resample(to_mono(samples), rate, fe.sample_rate) for samples, rate in map(decode, data)]
        found = extractor(heard, sampling_rate=fe.sample_rate, return_tensors="pt").input_features
        x = found[:, :, : fe.frames]
        step((x - x.mean(dim=(-2, -1), keepdim=True)) / (x.std(dim=(-2, -1), keepdim=True) + 1e-5))

    stepped = _steps(build_micro(0), table, emotions, root)
    spent = in_turn({"floor": lambda: step(mels), "plain": plain, "ours": stepped}, rounds=4)
    return {
        "micro's step against a plain loop": line(
            ratios(spent, "plain", "ours"), goal=">= 3", said="decode, transformers' extractor, the same loss, AdamW"
        ),
        "micro's step, of forward, backward and AdamW": line(ratios(spent, "floor", "ours"), said="on a batch at hand"),
        "micro's step": line(
            [1000 * seconds for seconds in spent["ours"]], unit="ms", more=False, said="32 utterances"
        ),
    }


def _steps(clap: Clap, table: pd.DataFrame, emotions: tuple[str, ...], root: Path) -> Callable[[], None]:
    """Return a function that runs one step of CLEP's training, by a thread that trains."""
    import threading

    going, done = threading.Semaphore(0), threading.Semaphore(0)

    def progress(steps: int, total: int) -> None:
        done.release()
        going.acquire()

    both = pd.concat([table, table.head(8).assign(split="validation")], ignore_index=True)
    config = ClepConfig(batch_size=BATCH, epochs=1, steps_per_epoch=100_000)
    folder = root / "micro"
    folder.mkdir(exist_ok=True)

    def train() -> None:
        going.acquire()
        clep.fit(clap, both, emotions, config, ONE_THREAD, 0, folder, Reporting(progress=progress))

    threading.Thread(target=train, daemon=True).start()

    def step() -> None:
        going.release()
        done.acquire()

    return step


def embeddings(root: Path) -> dict[str, Line]:
    """Embed audio from shards, against bare batched forward passes."""
    table, found = corpus(root), dict[str, Line]()
    for name, clap, count, rounds in (("micro", build_micro(0), 128, 5), ("HTSAT-tiny", htsat(root), 8, 2)):
        few = table.iloc[:count]
        cut = torch.from_numpy(np.concatenate([windows(w, hz, clap.front_end) for w, hz in waveforms_of(few)]))

        def bare(clap: Clap = clap, cut: torch.Tensor = cut) -> None:
            with torch.no_grad():
                for part in torch.split(log_mel(cut, clap.front_end), BATCH):
                    clap.encode_log_mel(part)

        spent = in_turn(
            {"bare": bare, "ours": lambda clap=clap, few=few: clap.encode_waveforms(waveforms_of(few))}, rounds
        )
        goal = ">= .9" if name == "micro" else ">= .95"
        found[f"Audio embeddings, {name}, of a bare forward"] = line(
            ratios(spent, "bare", "ours"), goal=goal, said="log-mel and encoder of windows at hand, without decoding"
        )
    return found


def conditions(root: Path) -> dict[str, Line]:
    """Corrupt utterances."""
    heard = [(f"c/{n}", w, hz) for n, (w, hz) in enumerate(waveforms_of(corpus(root).iloc[:32]))]
    names = ("pink-10dB", "telephone", "room-short")

    def all_in(name: str) -> Callable[[], Any]:
        condition = parse(name)
        return lambda: [corruptions.corrupt(w, hz, each, condition) for each, w, hz in heard]

    spent = in_turn({name: all_in(name) for name in names})
    return {
        f"Corrupting: {name}": line([len(heard) / s for s in spent[name]], unit="utterances/s a core") for name in names
    }


def contexts(root: Path) -> dict[str, Line]:
    """Learn ACPT's contexts: how long joint takes to be as diverse and as faithful to emotions as faithful is."""
    curve = {
        name: [_contexts(root, AcptConfig(contexts=16, epochs=epochs, **settings)) for epochs in every]
        for name, settings, every in (
            ("faithful", {"method": "faithful", "tokens": 1}, (100,)),
            ("joint", {"plateau": 0.0}, (10, 20, 30, 40, 50, 60, 80)),
        )
    }
    seconds, *rival = curve["faithful"][0]
    enough = [spent for spent, *own in curve["joint"] if all(a <= b for a, b in zip(own, rival, strict=True))]
    points = [f"{name} {', '.join(f'{t:.1f} s {d:.3f} {c:.3f}' for t, d, c in found)}" for name, found in curve.items()]
    said = f"16 contexts, micro; CPU time, diversity and content loss: {'; '.join(points)}"
    name = "ACPT: time of joint until it is no worse than faithful, of faithful's"
    if not enough:
        return {name: Line(value=None, goal="<= .1", said=f"not reached: {said}")}
    return {name: line([min(enough) / seconds], goal="<= .1", said=said, more=False)}


def _contexts(root: Path, config: AcptConfig) -> tuple[float, float, float]:
    """Return CPU seconds, diversity loss and content loss of contexts."""
    from clepdg import prompts
    from clepdg.method.context_prompts import ContextPrompts, encode_all
    from clepdg.method.text_features import separate_captions

    clap, emotions, folder = build_micro(0), EMOTIONS[:6], root / f"acpt-{config.method}-{config.epochs}"
    separate_captions(clap, [prompts.captions(emotion, prompts.CAPTION_TEMPLATES) for emotion in emotions], 0)
    folder.mkdir()
    start = time.process_time()
    vectors, figures = acpt.fit(clap, emotions, config, ONE_THREAD, 0, folder, Reporting())
    spent, words = time.process_time() - start, [prompts.class_word(emotion) for emotion in emotions]
    with torch.no_grad():
        content = clap.encode_text([prompts.fill(config.content_template, word) for word in words])
        texts = [prompts.fill(config.joint_template, word) for word in words]
        joint = torch.stack([
            encode_all(ContextPrompts(clap, [text], config.tokens), vectors.unbind()) for text in texts
        ], dim=1)  # fmt: skip
        loss = acpt.content_loss(joint, content, config.temperature).item()
    return spent, figures["context_mean_abs_cosine"], loss


def evaluation(root: Path) -> dict[str, Line]:
    """Evaluate 39 methods of 15 seeds in 26 conditions."""
    from tests.benchmark import simulation

    spent: dict[int, list[float]] = {500: [], 10_000: []}
    for number, utterances in enumerate((500, 500, 500, 10_000)):
        folder = root / f"evaluate-{number}"
        folder.mkdir()
        start = time.process_time()
        simulation.evaluate(folder, utterances, rows=39, conditions=("clean", *SWEEP))
        spent[utterances].append(time.process_time() - start)
        shutil.rmtree(folder)
    millions, said = 39 * 15 * (10_000 + 25 * 2_500) / 1e6, "39 methods, 15 seeds, 26 conditions"
    return {
        "Evaluation, 500 utterances": line(spent[500], unit="s", more=False, said=said),
        "Evaluation, 10,000 utterances": line(
            spent[10_000], unit="s", goal="<= 10 s", more=False, said=f"the same, {millions:.0f} million predictions"
        ),
        "Evaluation, a million predictions": line(
            [spent[10_000][0] / millions],
            unit="s",
            more=False,
            said="of these: heads, checks, cells, digest, Parquet",
        ),
    }


def keys(root: Path) -> dict[str, Line]:
    """Compute keys and look up outputs of a store; a store ten times as large."""
    from clepdg.store.opening import open_store
    from tests.benchmark.test_store import fill, seconds_an_output

    stores = {count: open_store(str(root / f"store-{count}")) for count in (1_000, 10_000)}
    for count, store in stores.items():
        fill(store, count)
    spent = [{count: seconds_an_output(store, count) for count, store in stores.items()} for _ in range(3)]
    return {
        "Key and look-up of an output": line([1000 * one[10_000] for one in spent], unit="ms", goal="< 1", more=False),
        "The same, 10,000 against 1,000 outputs": line(
            [one[10_000] / one[1_000] for one in spent],
            goal="<= 1.5",
            said="wall time an output; 100,000 outputs: docs/scale.md, part keys",
            more=False,
        ),
    }


def shards(root: Path) -> dict[str, Line]:
    """Write shards with one process and two, against decode, resample and FLAC alone; wall time."""
    from tests.benchmark.test_shards import measure, write_speech

    source = root / "wav"
    source.mkdir()
    speech = write_speech(source)
    count = 4000  # of 1,000, the start of processes would be half of the time
    found = [{what: measure(source, what, count)["rate"] for what in ("floor", "1", "2")} for _ in range(3)]
    for one in found:
        with ThreadPoolExecutor(2) as pool:
            halves = pool.map(lambda _: measure(source, "floor", count // 2), range(2))
            one["two floors"] = sum(half["rate"] for half in halves)
    said = f"wall time; {count:,} utterances of {speech}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return {
        "Writing shards, one process": line([one["1"] for one in found], unit="utterances/s", said=said),
        "Shards, of decode, resample and FLAC": line(
            [one["1"] / one["floor"] for one in found], goal=">= .9", said=said
        ),
        "Shards, two processes against one": line([one["2"] / one["1"] for one in found], goal=">= 1.8", said=said),
        "Decode, resample and FLAC alone, two processes against one": line(
            [one["two floors"] / one["floor"] for one in found], said=f"what this machine gives at most; {said}"
        ),
    }


def demo(root: Path) -> dict[str, Line]:
    """Run the whole demo in an empty home; wall time."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CLEPDG_", "OMP_"))}
    start = time.perf_counter()
    subprocess.run(
        [str(Path(sys.executable).with_name("clep-dg")), "run", "--preset", "demo"],
        check=True, capture_output=True, timeout=1800, preexec_fn=die_with_parent,
        env={**environment, "CLEPDG_HOME": str(root / "demo")},
    )  # fmt: skip
    seconds = time.perf_counter() - start
    said = f"wall time; {os.cpu_count()} cores, load {os.getloadavg()[1]:.1f}"
    return {"The demo": line([seconds], unit="s", goal="<= 180", said=said, more=False)}


def up_to_date(root: Path) -> dict[str, Line]:
    """Run the demo again with nothing to do, against as many empty tasks of Prefect; wall time."""
    from tests.benchmark.test_up_to_date import figures

    found = figures(root / "home")
    said = f"wall time; {found['stages']} stages"
    return {
        "An up-to-date run against empty tasks": line(
            [found["ours"] / found["peer"]], goal="<= 1.1", said=said, more=False
        ),
        "Keys of an up-to-date run": line([found["keys"]], unit="s", goal="<= .3", said=said, more=False),
        "clep-dg status": line(found["status"], unit="s", goal="<= .5", said="wall time, start included", more=False),
    }


STEPS = """
import time, torch
from clepdg.models.micro import build_micro
clap, spent = build_micro(0), []
mels = torch.rand(32, 1, 301, 64)
for _ in range(4):
    start = time.perf_counter()
    clap.encode_log_mel(mels).sum().backward()
    spent.append(time.perf_counter() - start)
print(sorted(spent)[1])
"""


def waiting(root: Path) -> dict[str, Line]:
    """Take steps of micro beside the same in other processes: threads that wait asleep, against those that spin."""
    cores, spent = os.cpu_count() or 1, dict[str, list[float]](asleep=[], spinning=[])
    usual = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}

    def start(policy: dict[str, str]) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", STEPS]
        return subprocess.Popen(
            command, env=usual | policy, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent
        )

    for _ in range(3):
        for name, policy in (("asleep", {"OMP_WAIT_POLICY": "PASSIVE"}), ("spinning", {})):
            together = [start(policy) for _ in range(2 * cores)]
            spent[name].append(statistics.median(float(each.communicate(timeout=600)[0]) for each in together))
    said = f"wall time; {2 * cores} processes at once, each with {cores} threads of torch, on {cores} cores"
    return {
        "Forward and backward of micro beside other work": line(spent["asleep"], unit="s", more=False, said=said),
        "The same where threads spin while they wait": line(spent["spinning"], unit="s", more=False, said=said),
    }


def scale(root: Path) -> dict[str, Line]:
    """Simulate tables of 10,000 and 100,000 rows: how much more ten times as many cost a row."""
    from tests.benchmark.simulation import PARTS, measure

    found: dict[str, Line] = {}
    for name in PARTS:
        few, many = measure(name, 10_000), measure(name, 100_000)
        said = f"{few[0]:.2f} s and {few[1]:.0f} MiB, {many[0]:.2f} s and {many[1]:.0f} MiB"
        found[f"Ten times the rows: {name}"] = line([many[0] / few[0]], goal="about 10", said=said, more=False)
    return found


def averaging(root: Path) -> dict[str, Line]:
    """Average the gradients of two ranks, against torch's DistributedDataParallel; wall time."""
    from tests.benchmark import averaging as ranks

    (root / "ranks").mkdir()
    found = ranks.measure(root / "ranks")
    share, seconds = found["averaging"] / found["ours"], f"{found['averaging']:.2f} s of {found['ours']:.2f} s"
    return {
        "Averaging gradients, of a step": line(
            [share], said=f"{seconds}; HTSAT-tiny, 2 ranks over gloo, {ranks.WINDOWS} windows each", more=False
        ),
        "A step with our averaging, of one by DDP": line(
            [found["ours"] / found["ddp"]], said="DDP overlaps it with backward, but a resumed run may lose its bits",
            more=False,
        ),
    }  # fmt: skip


SECTIONS = (
    loader, log_mels, micro_step, waiting, embeddings, conditions, contexts, evaluation, keys, shards, demo, up_to_date,
    scale, averaging,
)  # fmt: skip
