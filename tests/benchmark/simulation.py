"""Simulate large corpora without audio: time and memory of their tables, and of a store's keys and records.

    python -m tests.benchmark.simulation --sizes 10000,100000,1000000

Each part runs in a process of its own. CPU seconds and peak memory should grow as the size does.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clepdg.config.conditions import CLEAN
from clepdg.dataset import shards, tables
from clepdg.dataset.duplicates import Fingerprint, find_duplicates
from clepdg.evaluation import fold_results, utterances
from clepdg.evaluation.blocks import join

LABELS = ("angry", "happy", "neutral", "sad")
SPLITS = ("train", "train", "validation", "test")
TAR = 2000  # utterances of a tar
SEEDS = tuple(f"c{clep}.l{later}" for clep in range(3) for later in range(5))
OUTPUTS = 10  # rows for one output of a store

Part = Callable[[Path, int], None]


def index_table(n: int, corpora: int = 5) -> pd.DataFrame:
    """Return an index of n utterances."""
    place = np.arange(n)
    names = [f"corpus-{p % corpora}/{p:08d}" for p in place]
    corpus = [name.partition("/")[0] for name in names]
    speaker = [f"{of}/{p // corpora % 200:03d}" for of, p in zip(corpus, place.tolist(), strict=True)]
    found: dict[str, Any] = dict.fromkeys(tables.COLUMNS)
    found |= {"utterance_id": names, "corpus": corpus, "speaker": speaker, "cluster": speaker}
    found |= {"gender": np.array(["female", "male"], object)[place % 2], "language": "en"}
    found |= {"raw_label": np.array(LABELS, object)[place % 4], "emotion": np.array(LABELS, object)[place % 4]}
    found |= {"split": np.array(SPLITS, object)[place // 7 % 4], "path": [f"{name}.wav" for name in names]}
    found |= {"sample_rate": 16000, "num_samples": 64000 + place % 999, "rms_db": -30.0 - place % 7}
    found |= {"sha256": [f"{p:064x}" for p in place.tolist()], "text": "t", "notes": [[] for _ in range(n)]}
    return pd.DataFrame(found).astype({"transcript": object})


def offset_table(n: int) -> pd.DataFrame:
    """Return the offsets of n utterances, in tars of 2,000."""
    place = np.arange(n)
    table = index_table(n).sort_values("utterance_id", ignore_index=True)
    return pd.DataFrame(
        {
            "utterance_id": table.utterance_id,
            "split": table.split,
            "tar": [f"train-{p // TAR:06d}.tar" for p in place.tolist()],
            "offset": place % TAR * 40000,
            "bytes": 39000,
            "sample_rate": np.int32(16000),
            "num_samples": 64000 + place % 999,
            "pcm_sha256": [f"{p:064x}" for p in place.tolist()],
            "raw_label": table.raw_label,
        }
    )


def index(folder: Path, n: int) -> None:
    """Write an index, read it, digest it, label it."""
    none = pd.DataFrame({name: pd.Series(dtype=object) for name in tables.QUARANTINE_COLUMNS})
    tables.write_index(folder, index_table(n), none)
    table = tables.read_utterances(folder)
    tables.digests(table, tables.read_quarantine(folder))
    labelled = utterances.label_utterances(table, "4", ("train", "validation", "test"))
    utterances.digest_part(labelled, "test")
    utterances.centring_utterances(table, set(table.utterance_id[:10]))


def offsets(folder: Path, n: int) -> None:
    """Write an offset table, read it, digest it, join it with the index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = offset_table(n)
    types = [(name, pa.type_for_alias(kind)) for name, kind in shards.COLUMNS.items()]
    pq.write_table(pa.Table.from_pandas(table, pa.schema(types), preserve_index=False), folder / shards.OFFSETS)
    for tar in table.tar.unique():
        with (folder / tar).open("wb") as file:
            file.truncate(TAR * 40000)  # takes no space
    found = shards.read_offsets(folder)
    shards.digests(folder)
    utterances.join_audio(index_table(n), found)
    utterances.copies_of_sources(found, found)


def duplicates(folder: Path, n: int) -> None:
    """Look for duplicates: half of the utterances are the same recording."""
    find_duplicates(
        {
            f"c/{p:08d}": Fingerprint(sha256=f"{p % 9}", audio=str(p if p % 2 else 0), raw_label="A", part=p % 3)
            for p in range(n)
        }
    )


def batches(folder: Path, n: int) -> None:
    """Group the training utterances and draw 1,000 batches of 32."""
    from clepdg.method.contrastive import draw_batch

    table = index_table(n)
    groups = [
        [np.flatnonzero((table.corpus == corpus) & (table.emotion == emotion)) for emotion in LABELS]
        for corpus in sorted(table.corpus.unique())
    ]
    for step in range(1000):
        draw_batch(groups, 0, step, 32)


def embeddings(folder: Path, n: int) -> None:
    """Save, load and select embeddings of 64 dimensions."""
    from clepdg.method.audio_embeddings import AudioEmbeddings, load_audio_embeddings, select

    names = tuple(f"c/{p:08d}" for p in range(n))
    found = AudioEmbeddings(utterance_ids=names, embeddings=np.zeros((n, 64), np.float32))
    found.save(folder)
    loaded = load_audio_embeddings(folder)
    select([loaded], names[::2])
    loaded.only(set(names[::3]))


def evaluate(folder: Path, n: int, rows: int = 1, conditions: tuple[str, ...] = (CLEAN, "telephone")) -> None:
    """Predict with heads of 15 seeds, compute cells, digest and write them; a corruption holds the test part."""
    import torch

    from clepdg.method.audio_embeddings import AudioEmbeddings
    from clepdg.method.fold.predict import FoldHead, predict
    from clepdg.method.heads import Head

    table = utterances.label_utterances(index_table(n, corpora=1), "4", ("train", "validation", "test"))
    x, generator = np.random.default_rng(0).normal(size=(n, 64)).astype(np.float32), torch.Generator().manual_seed(0)
    heads = [
        FoldHead(row=f"row-{row}", seed=seed, model="clep", head=Head(
            labels=LABELS, cosine=True, weight=torch.randn(4, 64, generator=generator), bias=torch.zeros(4),
            mean=torch.zeros(64), log_temperature=1.0))
        for row in range(rows) for seed in SEEDS
    ]  # fmt: skip
    found = {"clep": [AudioEmbeddings(utterance_ids=tuple(table.utterance_id), embeddings=x)]}
    parts = []
    for condition in conditions:
        part = table if condition == CLEAN else table[table.split == "test"].reset_index(drop=True)
        parts.append(predict(heads, part, found, fold="leave-out-corpus-0", condition=condition))
    predictions = join(parts)
    cells = fold_results.result_cells(
        predictions, LABELS, confidence=0.95, split_units={"corpus-0": "speaker"}, new_labels={}, ceilings=()
    )
    fold_results.digest_results(predictions, cells)
    fold_results.write_predictions(predictions, folder / "predictions.parquet")


def keys(folder: Path, n: int) -> None:
    """Fill a store with an output for ten rows; compute all keys and look all outputs up."""
    from clepdg.hashing import stage_key
    from clepdg.store.opening import open_store
    from tests.benchmark.test_store import CONFIG, fill

    opened, count = open_store(str(folder)), n // OUTPUTS
    fill(opened, count)
    for number in range(count):
        key = stage_key("clep", 1, {**CONFIG, "number": number}, {"shard": "a" * 64})
        assert not isinstance(opened.lookup("clep", key), str)


def status(folder: Path, n: int) -> None:
    """Judge the demo's plan, as `clep-dg status` does, in a store that holds an output for ten rows."""
    from clepdg.store.opening import open_store
    from clepdg_flows.cli.status import judge
    from clepdg_flows.run.plan import make_plan
    from clepdg_tasks.engine.run_history import Arguments
    from tests.benchmark.test_store import fill

    opened = open_store(str(folder))
    fill(opened, n // OUTPUTS)
    start = time.process_time()
    assert sum(1 for _ in judge(make_plan(Arguments(preset="demo")), opened, frozenset())) > 50
    print(f"   status alone: {time.process_time() - start:.2f} s")


PARTS: dict[str, Part] = {
    part.__name__: part for part in (index, offsets, duplicates, batches, embeddings, evaluate, keys, status)
}


def _measured(name: str, n: int, sender: Any) -> None:
    from clepdg_tasks.host.liveness import die_with_parent

    die_with_parent()
    with tempfile.TemporaryDirectory() as folder:
        start, began = time.process_time(), _peak_mib()
        PARTS[name](Path(folder), n)
        sender.send((time.process_time() - start, _peak_mib() - began))


def _peak_mib() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


def measure(name: str, n: int) -> tuple[float, float]:
    """Return CPU seconds and MiB of memory that a part takes with n rows, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_measured, args=(name, n, sender))
    child.start()
    sender.close()
    try:
        found: tuple[float, float] = receiver.recv()
    except EOFError:
        found = (float("nan"), float("nan"))  # it ran out of memory
    child.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    sizes, rows = [int(size) for size in given.sizes.split(",")], {}
    print(f"{'':12}" + "".join(f"{size:>24,}" for size in sizes))
    for name in given.parts.split(","):
        rows[name] = {str(size): measure(name, size) for size in sizes}
        print(f"{name:12}" + "".join(f"{s:>12.2f} s{mib:>6,.0f} MiB" for s, mib in rows[name].values()), flush=True)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
