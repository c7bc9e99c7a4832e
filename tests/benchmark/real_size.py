"""Measure what a real run costs: CLAP at its true size (HTSAT-tiny, RoBERTa-base), with random weights.

    python -m tests.benchmark.real_size --device cuda:0 --out real_size.json

On a GPU it also compares the GPU with the CPU. Needs no network and no weights; it ends with the estimated hours of the
preset `open`: an estimate from measured rates, not a run.
"""

import argparse
import contextlib
import copy
import itertools
import json
import os
import platform
import resource
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
import pandas as pd
import torch

from clepdg import prompts
from clepdg.audio.frontend import LAION_FRONT_END
from clepdg.callbacks import Reporting
from clepdg.config.schema import ComputeConfig, IndexConfig, ShardConfig
from clepdg.dataset import shards
from clepdg.dataset.probe import Probe, probe_file
from clepdg.dataset.shard_writer import write_shards
from clepdg.models.clap import Clap
from tests.benchmark import real_sections as sections
from tests.benchmark.open_run import NOT_COUNTED, lines, open_run, table
from tests.benchmark.real_sections import EMOTIONS

CORPORA = {"one": 48000, "two": 16000}  # Hz of its source files


class Enough(Exception):
    """Ends a training that was measured for long enough."""


class Measure:
    """One measurement: where it runs, for how long, and what was found."""

    def __init__(self, device: str, seconds: float, folder: Path) -> None:
        self.device, self.seconds, self.folder = device, seconds, folder
        self.gpu = device.startswith("cuda")
        self.compute, self.cores = ComputeConfig(), ComputeConfig(threads=os.cpu_count() or 1)
        self.config, self.counts = open_run()
        self.rates: dict[str, float] = {}
        self.found: dict[str, Any] = {"agreement": {}, "memory_mib": {}, "cores_used": {}, "errors": {}}
        self.numbers = itertools.count()

    def section(self, function: Callable[["Measure"], None]) -> None:
        """Run one section; print its error and return if it fails."""
        began, worked = time.perf_counter(), time.process_time()
        name = function.__name__
        print(f"-- {name}", flush=True)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True  # torch's defaults
        torch.set_num_threads(self.compute.threads)
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            function(self)
        except Exception as error:
            self.found["errors"][name] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        peak = (
            torch.cuda.max_memory_allocated() if self.gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        )
        self.found["memory_mib"][name] = round(peak / 2**20)
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
        self.found["cores_used"][name] = round(worked / seconds, 2)  # below the threads: others had the cores
        print(f"   {seconds:.1f} s, {worked / seconds:.2f} cores, peak {peak / 2**20:,.0f} MiB", flush=True)

    def rate(self, name: str, value: float) -> None:
        self.rates[name] = value
        print(f"   {name}: {value:.5g}", flush=True)

    def agree(self, name: str, **values: float) -> None:
        self.found["agreement"][name] = values
        print(f"   {name}: " + ", ".join(f"{key} {value:.6g}" for key, value in values.items()), flush=True)

    def fresh(self, device: str | None = None) -> Clap:
        """Return a copy of the model with its first weights."""
        return Clap(copy.deepcopy(self.model).to(device or self.device), self.tokenizer, LAION_FRONT_END)

    def small(self) -> pd.DataFrame:
        """Return few utterances: 48 of training, 8 of validation."""
        train = self.utterances.split == "train"
        return pd.concat([self.utterances[train].head(48), self.utterances[~train].head(8)], ignore_index=True)

    def heard(self, count: int) -> Iterator[tuple[str, np.ndarray, int]]:
        """Yield utterances as the audio embeddings read them: streamed from the shards."""
        folders: Iterable[str] = itertools.cycle(self.utterances.folder.unique())
        return itertools.islice(itertools.chain.from_iterable(shards.stream(Path(f)) for f in folders), count)

    def new_folder(self) -> Path:
        folder = self.folder / f"{next(self.numbers)}"
        folder.mkdir()
        return folder

    def timed(self, function: Callable[[], Any]) -> float:
        """Return the seconds that a call takes, work on the GPU included."""
        self.wait()
        began = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize()

    def per_second(self, name: str, units: int, function: Callable[[], Any]) -> None:
        """Repeat a call until the time is up; record units per second. The first call does not count on a GPU."""
        if self.gpu:
            function()
        spent, times = 0.0, 0
        while times == 0 or spent < min(self.seconds, 4):
            spent, times = spent + self.timed(function), times + 1
        self.rate(name, units * times / spent)

    def steps(self, fit: Callable[[Reporting], Any], first: int) -> float:
        """Return steps per second of a training, without its first steps."""
        ends: list[float] = []

        def progress(done: int, total: int) -> None:
            ends.append(time.perf_counter())
            if done >= first + 2 and ends[-1] - ends[first - 1] >= self.seconds:
                raise Enough

        with contextlib.suppress(Enough):
            fit(Reporting(progress=progress))
        self.wait()
        return (len(ends) - first) / (ends[-1] - ends[first - 1])


def build(m: Measure) -> None:
    """Build CLAP as clepdg.laion does, with the weights that transformers draws, and a small byte-level BPE."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import ClapConfig, ClapModel, RobertaTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    bpe = ByteLevelBPETokenizer()
    texts = [*prompts.vocabulary(), *prompts.CAPTION_TEMPLATES, *prompts.HANDWRITTEN_CONTEXTS, prompts.JOINT_TEMPLATE]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(texts, vocab_size=800, min_frequency=1, special_tokens=special, show_progress=False)
    bpe.save_model(str(m.folder))
    m.tokenizer = RobertaTokenizerFast(str(m.folder / "vocab.json"), str(m.folder / "merges.txt"))
    audio = {"patch_embeds_hidden_size": 96, "hidden_size": 768, "depths": [2, 2, 6, 2]}
    text = {"vocab_size": 50265, "num_hidden_layers": 12, "layer_norm_eps": 1e-5}
    torch.manual_seed(0)
    audio |= {"num_attention_heads": [4, 8, 16, 32], "enable_fusion": False}
    m.model = ClapModel(ClapConfig(audio_config=audio, text_config=text)).eval()
    norm = m.model.audio_model.audio_encoder.batch_norm
    norm.running_mean.fill_(-30.0)
    norm.running_var.fill_(200.0)
    m.found["parameters"] = sum(p.numel() for p in m.model.parameters())


def data(m: Measure) -> None:
    """Index and shard generated utterances of 2 to 5 s with the project's own code; the rates are one process's."""
    import soundfile

    rng, rows, parts = np.random.default_rng(0), [], []
    for n, (corpus, rate) in itertools.product(range(128), CORPORA.items()):
        t = np.arange(int(rate * rng.uniform(2, 5))) / rate
        pitch = (90 + 60 * (n % 4)) * (1 + 0.05 * np.sin(2 * np.pi * rng.uniform(1, 4) * t))
        voice = sum(np.sin(2 * np.pi * k * np.cumsum(pitch) / rate) / k for k in range(1, 12))
        sound = 0.1 * voice * (1.1 + np.sin(2 * np.pi * 3 * t)) + rng.normal(0, 0.005, len(t))
        soundfile.write(m.folder / f"{corpus}{n}.wav", sound, rate, subtype="PCM_16")
        split = "validation" if n % 8 > 5 else "train"
        rows.append((f"{corpus}/{n:03d}", corpus, EMOTIONS[n % 4], split, f"{corpus}{n}.wav", EMOTIONS[n % 4]))
    m.utterances = pd.DataFrame(rows, columns=["utterance_id", "corpus", "emotion", "split", "path", "raw_label"])

    def probe() -> None:
        found = [probe_file(m.folder / path, None, IndexConfig()) for path in m.utterances.path]
        assert all(isinstance(one, Probe) for one in found), found[0]

    m.per_second("probe", len(rows), probe)
    for corpus, rate in CORPORA.items():
        folder, part = m.new_folder(), m.utterances[m.utterances.corpus == corpus]
        m.per_second(f"shard_{rate}", len(part), partial(write_shards, folder, m.folder, part, ShardConfig()))
        offsets = shards.read_offsets(folder).drop(columns=["split", "raw_label"])
        parts.append(part.merge(offsets, on="utterance_id").assign(folder=str(folder)))
    m.utterances = pd.concat(parts, ignore_index=True)


def main() -> None:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measured training")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--agreement", action="store_true", help="compare on a CPU too: tries the comparison itself")
    parser.add_argument("--only", help="names of sections, joined by commas; build and data always run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        m = Measure(given.device, given.seconds, Path(folder))
        agreement = sections.AGREEMENT if m.gpu or given.agreement else ()
        for function in (build, data, *agreement, *sections.SPEED):
            if not given.only or function.__name__ in ("build", "data", *given.only.split(",")):
                m.section(function)
            if not hasattr(m, "model"):
                raise SystemExit("There is no model to measure.")
    machine = {
        "device": torch.cuda.get_device_name(m.device) if m.gpu else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "threads": m.compute.threads,
        "date": datetime.now().isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - began, 1),
    }
    for precision in ("fp32", "bf16"):
        rows = lines(m.counts, m.rates, precision)
        m.found[f"estimate_{precision}"] = rows
        print(f"\nEstimate of `open` on this device, {precision}, from measured rates; not a run:\n{table(rows)}")
    print(f"Not in it: {NOT_COUNTED}\n{json.dumps(machine)}", flush=True)
    if given.out:
        given.out.write_text(json.dumps({**machine, **m.found, "rates": m.rates, "counts": asdict(m.counts)}, indent=1))


if __name__ == "__main__":
    main()
