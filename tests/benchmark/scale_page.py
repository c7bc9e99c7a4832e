"""Write docs/scale.md: what large corpora cost, computed from measured rates.

    python -m tests.benchmark.scale_page

It reads docs/benchmarks.json (`make bench`), docs/simulation.json (`python -m tests.benchmark.simulation --out FILE`)
and docs/gpu.json (`make gpu GPU="--out docs/gpu.json"`).
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clepdg.config.conditions import SWEEP
from clepdg.config.schema import ClepConfig

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
CASES: Final = {"MSP-Podcast": (207_136, 324.0), "1 million utterances": (1_000_000, 324.0 / 207_136 * 1_000_000)}
CORES, MEMORY_GB, PRICE = 16, 128, 3.0  # of the machine of a GPU; dollars an hour of a GPU: assumed
TRAIN, VALIDATION, TEST = 0.7, 0.1, 0.2  # parts of the corpus
METHODS, SEEDS, CLEPS = 39, 15, 3
EMBEDDING_BYTES: Final = 4 * 512
PREDICTION_BYTES: Final = 44  # of a line of predictions: measured, tests/benchmark/simulation.py evaluate
PEAK: Final = 2  # times the table
SIMULATED_PREDICTIONS: Final = (
    15 * 1.25
)  # of an utterance, in tests/benchmark/simulation.py: 15 seeds, the test part twice


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The cost of a stage on a machine with one GPU."""

    name: str
    seconds: float
    disk_gb: float
    memory_gb: float
    limit: str
    shared: bool = True  # by several GPUs and their machines' cores


def read(name: str) -> dict[str, Any]:
    """Return a JSON file of docs/."""
    found: dict[str, Any] = json.loads((DOCS / name).read_text())
    return found


def stages(n: int, hours: float) -> list[Stage]:
    """Cost the stages of a run on one corpus of n utterances."""
    from clepdg.method.inputs.batch_audio import MOST_BYTES

    bench, gpu, simulated = read("benchmarks.json")["lines"], read("gpu.json")["values"], read("simulation.json")

    def rate(name: str) -> float:
        return float(bench[name]["value"])

    def grown(part: str) -> tuple[float, float]:
        seconds, mib = simulated[part][max(simulated[part], key=int)]
        size = int(max(simulated[part], key=int))
        return seconds * n / size, mib / 1024 * n / size

    heard = max(value for name, value in gpu.items() if name.startswith("CLEP,") and name.endswith("with the loader"))
    epochs, conditions = ClepConfig().epochs, len(SWEEP)
    trained = CLEPS * epochs * n * (TRAIN / heard + VALIDATION / gpu["audio embeddings"])
    embedded = (1 + CLEPS) * n * (1 + TEST * conditions)
    corrupted = n * TEST * conditions / (rate("Corrupting: pink-10dB") * CORES)
    predictions = METHODS * SEEDS * n * (1 + TEST * conditions)
    table = predictions * PREDICTION_BYTES / 1e9
    index, offsets = grown("index"), grown("offsets")
    pcm = hours * 3600 * 16000 * 2 / 1e9
    return [
        Stage(name="index: tables", seconds=index[0], disk_gb=0.0, memory_gb=index[1], limit="one core", shared=False),
        Stage(name="shard", seconds=n / rate("Writing shards, one process") / CORES, disk_gb=pcm, memory_gb=offsets[1],
              limit=f"{CORES} cores"),
        Stage(name=f"clep: {CLEPS} seeds, {epochs} passes each", seconds=trained, disk_gb=CLEPS * 0.6,
              memory_gb=min(pcm, MOST_BYTES / 1e9),
              limit="the loader, or the GPU"),
        Stage(name="acpt", seconds=CLEPS * gpu["ACPT, 80 contexts, 7 emotions"], disk_gb=0.0, memory_gb=1.0,
              limit="the GPU"),
        Stage(name=f"audio embeddings, clean and {conditions} conditions",
              seconds=max(embedded / gpu["audio embeddings"], corrupted),
              disk_gb=embedded * EMBEDDING_BYTES / 1e9, memory_gb=n * EMBEDDING_BYTES / 1e9, limit="the GPU"),
        Stage(name="evaluate", seconds=predictions * grown("evaluate")[0] / (n * SIMULATED_PREDICTIONS),
              disk_gb=0.8 * table, memory_gb=PEAK * table, limit="one core", shared=False),
    ]  # fmt: skip


def page(price: float = PRICE) -> str:
    """Return docs/scale.md."""
    bench, gpu = read("benchmarks.json"), read("gpu.json")
    said = [
        "# Scale\n",
        "What large corpora cost: **estimates**, computed from measured rates by",
        "`python -m tests.benchmark.scale_page`. Do not edit this page. The rates are those of",
        f"\n- [benchmarks](benchmarks.md), {bench['date']}: {bench['machine']['processor']};",
        f"- a GPU, {gpu['date']}: {gpu['device']}, by `{gpu['command']}`"
        + (f" of commit {gpu['commit']}" if "commit" in gpu else "")
        + (f" ({gpu['note']});" if "note" in gpu else ";"),
        "- [simulated tables](#simulated-tables).\n",
        f"Assumed: ${price:g} an hour of a GPU with {CORES} cores and {MEMORY_GB} GB; {TRAIN:.0%} of a corpus trains,"
        f" {VALIDATION:.0%} validates, {TEST:.0%} tests;",
        f"{CLEPS} CLEPs, each {ClepConfig().epochs} passes over the corpus; {METHODS} methods, {SEEDS} seeds; clean"
        f" everything, {len(SWEEP)} conditions of the test part. Eight GPUs",
        "share what can be shared without loss, which was not measured: NCCL is untried. FLAC is counted as 16-bit",
        "samples.\n",
    ]
    for name, (n, hours) in CASES.items():
        said += [f"## {name}\n", f"{n:,} utterances, {hours:,.0f} hours.\n"]
        said += [
            "| stage | 1 GPU, hours | dollars | 8 GPUs, hours | dollars | disk, GB | memory, GB | limit |",
            "|" + "---|" * 8,
        ]
        one_all = eight_all = 0.0
        for stage in stages(n, hours):
            one, eight = stage.seconds / 3600, stage.seconds / 3600 / (8 if stage.shared else 1)
            one_all, eight_all = one_all + one, eight_all + eight
            said.append(
                f"| {stage.name} | {one:.2f} | {one * price:.1f} | {eight:.2f} | {8 * eight * price:.1f} |"
                f" {stage.disk_gb:,.1f} | {stage.memory_gb:,.1f} | {stage.limit} |"
            )
        dollars = f"{one_all * price:.0f} | {eight_all:.1f} | {8 * eight_all * price:.0f}"
        said.append(f"| **all** | {one_all:.1f} | {dollars} | | | |\n")
        said += [f"{_first(stages(n, hours))}\n"]
    said += ["## Simulated tables\n"]
    said += ["`python -m tests.benchmark.simulation --out docs/simulation.json`: CPU seconds and memory, no audio."]
    said += ["Part keys fills a store with an output for ten rows, then computes all keys and looks all outputs up.\n"]
    found = read("simulation.json")
    sizes = list(next(iter(found.values())))
    said += ["| part | " + " | ".join(f"{int(size):,} rows" for size in sizes) + " |", "|" + "---|" * (1 + len(sizes))]
    said += [
        f"| {part} | " + " | ".join(f"{own[size][0]:.2f} s, {own[size][1]:,.0f} MiB" for size in sizes) + " |"
        for part, own in found.items()
    ]
    return "\n".join(said) + "\n"


def _first(found: list[Stage]) -> str:
    """Return what breaks first."""
    over = sorted((stage for stage in found if stage.memory_gb > MEMORY_GB), key=lambda stage: -stage.memory_gb)
    if over:
        names = " and ".join(f"{stage.name} needs {stage.memory_gb:,.0f} GB" for stage in over)
        return f"What breaks first is memory: {names}, of {MEMORY_GB}. Fewer methods, seeds or conditions at once fit."
    slowest = max(found, key=lambda stage: stage.seconds)
    return f"Everything fits into {MEMORY_GB} GB; what takes longest is {slowest.name}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--price", type=float, default=PRICE, help="dollars an hour of a GPU")
    (DOCS / "scale.md").write_text(page(parser.parse_args().price))


if __name__ == "__main__":
    sys.exit(main())
