"""Measure CLEP-DG on a GPU: first whether it is correct, then how fast it is.

    python3 tests/gpu/measure.py --out gpu.json
    python3 tests/gpu/measure.py --cpu             # the same code on a CPU, at small sizes: tries the script

It needs torch, torchaudio, transformers, NumPy, safetensors, this checkout and no network: weights are random, audio is
generated. It takes at most 8 minutes, and ends with a table and a JSON. It exits with 1 where a result is wrong.
"""

import argparse
import copy
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]
sys.path += [str(ROOT / "tests" / "gpu" / "stand_ins")]  # last: what is installed comes first
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads would slow the loader's

import torch

from clepdg.models.clap import Clap
from tests.gpu.clap import build_clap, write_corpus

LIMIT = 480.0  # seconds of the whole; sections that would start after 85 % of it are left out


class Measure:
    """One measurement: where it runs, its sizes, and what it found.

    Attributes:
        small: sizes of a dry run.
        lines: (name, value as text, goal, whether it is reached; None: there is no goal).
    """

    def __init__(self, device: str, folder: Path, *, small: bool) -> None:
        self.device, self.folder, self.small = device, folder, small
        self.gpu = device.startswith("cuda")
        self.began = time.perf_counter()
        self.clap = build_clap(folder, small=small)
        # not resampled: a CPU and a GPU do that differently
        self.few = write_corpus(self.new_folder(), 32, self.clap.front_end.sample_rate)
        self.utterances = self.few if small else write_corpus(self.new_folder(), 512, 16000)
        self.lines: list[tuple[str, str, str, bool | None]] = []
        self.values: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self.failed: dict[str, str] = {}

    def fresh(self, device: str | None = None) -> Clap:
        """Return a copy of the model with its first weights."""
        return Clap(copy.deepcopy(self.clap.model).to(device or self.device), self.clap.tokenizer, self.clap.front_end)

    def new_folder(self) -> Path:
        """Return an empty folder."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def add(self, name: str, value: float, unit: str = "", goal: str = "", reached: bool | None = None) -> None:
        """Add a line to the table."""
        self.values[name] = value
        self.lines.append((name, f"{value:.4g} {unit}".strip(), goal, reached))
        print(f"   {name}: {value:.4g} {unit}", flush=True)

    def wait(self) -> None:
        """Wait for the device's work."""
        if self.gpu:
            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], Any], least: float = 2.0) -> float:
        """Return the seconds of a call: the mean over calls for at least so long, after one that warms up."""
        function()
        self.wait()
        start, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - start < (0.1 if self.small else least):
            function()
            self.wait()
            calls += 1
        return (time.perf_counter() - start) / calls

    def section(self, function: Callable[["Measure"], None]) -> None:
        """Run one section; its error is a line of the table, and the others follow."""
        start, name = time.perf_counter(), function.__name__.replace("_", " ")
        if start - self.began > 0.85 * LIMIT:
            self.failed[name] = "not measured: the time is over"
            return
        print(f"-- {name}", flush=True)
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            function(self)
        except Exception as error:  # another section may still be measured
            traceback.print_exc()
            self.failed[name] = f"{type(error).__name__}: {error}"
        if self.gpu:
            self.peaks[name] = torch.cuda.max_memory_allocated() >> 20
        print(f"   {time.perf_counter() - start:.1f} s", flush=True)


def table(m: Measure) -> str:
    """Return the lines as text."""
    said = {None: "", True: "yes", False: "NO"}
    rows = [("", "measured", "goal", "reached"), *((*line[:3], said[line[3]]) for line in m.lines)]
    rows += [(f"peak GPU memory, {name}", f"{mib:,} MiB", "", "") for name, mib in m.peaks.items()]
    rows += [(name, error[:60], "", "NO") for name, error in m.failed.items()]
    widths = [max(len(row[n]) for row in rows) for n in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def facts(m: Measure) -> dict[str, Any]:
    """Return what the JSON holds."""
    import transformers

    name = torch.cuda.get_device_name(m.device) if m.gpu else platform.processor() or platform.machine()
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    found = {"device": name, "dry_run": m.small, "versions": versions, "date": time.strftime("%Y-%m-%d")}
    found |= {"seconds": round(time.perf_counter() - m.began, 1), "values": m.values, "peak_mib": m.peaks}
    return found | {"failed": m.failed, "missed": [line[0] for line in m.lines if line[3] is False]}


def main() -> int:
    """Run all sections; return 1 where a correctness section failed or missed its goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="a dry run on the CPU, at small sizes")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--out", type=Path, help="where the JSON is written")
    given = parser.parse_args()
    if not given.cpu and not torch.cuda.is_available():
        print("torch sees no GPU here. A dry run on the CPU: --cpu", file=sys.stderr)
        return 2
    from tests.gpu import correctness, speed

    with tempfile.TemporaryDirectory() as folder:
        m = Measure("cpu" if given.cpu else given.device, Path(folder), small=given.cpu)
        for section in correctness.SECTIONS:
            m.section(section)
        wrong = bool(m.failed) or any(line[3] is False for line in m.lines)
        for section in speed.SECTIONS:
            m.section(section)
        found = json.dumps(facts(m), indent=1)
    print(f"\n{table(m)}\n\n{found}")
    if given.out:
        given.out.write_text(found + "\n")
    return int(wrong or bool(m.failed))


if __name__ == "__main__":
    sys.exit(main())
