"""How fast shards are written: against the work itself in one process, and one process against two; and in what space.

The floor is decode, resample and FLAC of the same files in the same order, and nothing else.
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from clepdg.config.schema import SyntheticConfig
from clepdg.corpora import synthetic
from clepdg.corpora.cards import load_card
from clepdg_tasks.host.liveness import die_with_parent

RAVDESS = Path(__file__).resolve().parents[2].parent / "shared" / "corpora" / "ravdess_actors_01-06.zip"
DRIVER = """
import json, multiprocessing, os, sys, tempfile, time
from pathlib import Path

peaks = {}  # process -> MiB


def watch(done, total):
    for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):  # unlike getrusage's, this peak does not survive exec
                peaks[pid] = int(line.split()[1]) / 1024


def main():
    import pandas as pd
    from clepdg.dataset import shard_writer
    from clepdg.audio.io import decode, encode_flac, resample, to_mono, to_pcm
    from clepdg.config.schema import ShardConfig

    root, what, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.wav"))
    rows = [(f"c/{n:06d}", ("train", "validation", "test")[n % 3], files[n % len(files)], "A") for n in range(count)]
    table = pd.DataFrame(rows, columns=["utterance_id", "split", "path", "raw_label"])
    start = time.perf_counter()
    if what == "floor":
        for path in table.path:
            samples, rate = decode(root / path)
            encode_flac(to_pcm(resample(to_mono(samples), rate, 16000)), 16000)
    else:
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            shard_writer.write_shards(Path(out), root, table, ShardConfig(), workers=int(what), progress=watch)
    seconds = time.perf_counter() - start
    print(json.dumps({"rate": count / seconds, "peak": sum(peaks.values())}))


if __name__ == "__main__":  # child processes import this file again
    main()
"""


def write_speech(root: Path) -> str:
    """Write 360 utterances of RAVDESS, or as many synthetic ones where it is not at hand; return which.

    Both have 48 kHz; RAVDESS's take 3.7 s on average, the synthetic ones 1.7 s.
    """
    if RAVDESS.exists():
        zipfile.ZipFile(RAVDESS).extractall(root)
        return "RAVDESS"
    synthetic.write(load_card("synthetic-1"), SyntheticConfig(utterances=360), root)
    return "synthetic speech"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    write_speech(root)
    return root


def measure(corpus: Path, what: str, count: int) -> dict[str, float]:
    driver = corpus.parent / "driver.py"
    if not driver.exists():
        driver.write_text(DRIVER)
    asked = [sys.executable, str(driver), str(corpus), what, str(count)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=900, check=True, preexec_fn=die_with_parent)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def test_two_processes_are_worth_it_and_one_adds_little_to_the_work_itself(corpus: Path) -> None:
    best = {what: max(measure(corpus, what, 4000)["rate"] for _ in range(2)) for what in ("floor", "1", "2")}
    print(
        f"\nutterances/s: floor {best['floor']:.0f}, 1 process {best['1']:.0f}, 2 processes {best['2']:.0f};", end=" "
    )
    print(f"1 of the floor {best['1'] / best['floor']:.2f}, 2 of 1 {best['2'] / best['1']:.2f}")
    assert best["1"] >= 0.8 * best["floor"]
    assert best["2"] >= 1.7 * best["1"]


def test_memory_does_not_grow_with_the_corpus(corpus: Path) -> None:
    small, large = measure(corpus, "2", 1000)["peak"], measure(corpus, "2", 10000)["peak"]
    print(f"\npeak MiB: {small:.0f} for 1,000 utterances, {large:.0f} for 10,000: {large / small:.3f}")
    assert large <= 1.1 * small
