"""Measure the speed of CLEP-DG as ratios against peers and floors of the same run; write docs/benchmarks.md.

    python -m tests.benchmark.bench              # all sections
    python -m tests.benchmark.bench --only evaluate,keys --no-write

CPU time is measured, functions in turn, so that other work on the machine changes little. The figures are kept in
docs/benchmarks.json; the next run says what is worse by more than the spread.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any, Final

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_WAIT_POLICY="PASSIVE", OMP_NUM_THREADS="1")

from tests.benchmark.lines import NO_GPU, Line, as_json, as_table, regressed

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE, FIGURES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.json"
GPU_LINES: Final = {
    "CLEP on a GPU: steps with the loader against a batch on the device": ">= .95",
    "CLEP on a GPU: share of the rate of bf16 matrix products": "",
    "CLEP on a GPU: channels_last, torch.compile, CUDA graphs, each against none": "",
    "CLEP on a GPU: peak memory of batch 1,024 with clep.chunk": "",
    "Audio embeddings on a GPU against the encoder alone": ">= .95",
    "ACPT on a GPU: 80 contexts, 7 emotions, RoBERTa-base": "<= 60 s",
    "Two ranks over NCCL": "",
}
HEAD: Final = """# Benchmarks

Written by `make bench` on {date}, of commit {commit}. Do not edit it: run `make bench` again.

{machine}

CPU time of one core, unless a line says otherwise. Functions of a line ran in turn in one process; the median of the
rounds is shown, with the smallest and the largest. A ratio is how many times as fast as the peer or floor, unless its
goal says that less is better.

"""


def machine() -> dict[str, str]:
    """Return what was measured on."""
    import numpy
    import torch
    import transformers

    found = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = found[0].partition(": ")[2] if found else platform.processor()
    return {
        "processor": f"{name}, {os.cpu_count()} cores",
        "load": f"{os.getloadavg()[1]:.1f} over the last 5 minutes",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": numpy.__version__,
    }


def measure(only: set[str], folder: Path) -> dict[str, Line]:
    """Run the sections; one that fails is a line that says so."""
    from tests.benchmark.sections import SECTIONS

    lines: dict[str, Line] = {}
    for section in SECTIONS:
        if only and section.__name__ not in only:
            continue
        start = time.perf_counter()
        print(f"-- {section.__name__}", flush=True)
        try:
            found = section(folder)
        except Exception as error:  # the other sections are measured
            traceback.print_exc()
            found = {section.__name__: Line(value=None, said=f"not measured: {type(error).__name__}: {error}"[:200])}
        lines |= found
        print(as_table(found), f"\n   {time.perf_counter() - start:.0f} s", flush=True)
    return lines


def main() -> int:
    """Measure, compare with the last run and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="sections, joined by commas")
    parser.add_argument("--no-write", action="store_true", help="leave docs/benchmarks.* as they are")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    only = set(filter(None, given.only.split(",")))
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(only, Path(folder))
    last: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {"lines": {}}
    kept = {name: Line(**own) for name, own in last["lines"].items() if only and name not in lines | GPU_LINES}
    lines = {**kept, **lines, **{name: Line(value=None, goal=goal, said=NO_GPU) for name, goal in GPU_LINES.items()}}
    worse = [said for name, own in lines.items() if (said := regressed(name, own, last["lines"].get(name)))]
    print("\n".join(["", as_table(lines), "", *(f"worse than on {last['date']}: {said}" for said in worse)]))
    if not given.no_write:
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
        facts = {"date": f"{datetime.now():%Y-%m-%d}", "commit": commit.stdout.strip(), "machine": machine()}
        FIGURES.write_text(json.dumps({**facts, "lines": as_json(lines)}, indent=1) + "\n")
        said = "; ".join(f"{name} {value}" for name, value in facts["machine"].items())
        page = HEAD.format(date=facts["date"], commit=facts["commit"], machine=said) + as_table(lines)
        lost = "".join(f"- {one}\n" for one in worse) or "Nothing is worse than in the run before, beyond the spread.\n"
        PAGE.write_text(f"{page}\n\n## Against the run before\n\n{lost}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
