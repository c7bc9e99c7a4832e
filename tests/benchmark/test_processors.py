"""Measure how much another processor changes results: a short demo with this processor's newest instructions hidden.

Vectorised sums round otherwise where vectors are shorter, and training carries that on. Data and untrained weights must
not notice; how far the rest moves is printed.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from clepdg.store.opening import open_store
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.host.liveness import die_with_parent

SHORT = ("clep.epochs=2", "clep.steps_per_epoch=8", "acpt.epochs=10", "acpt.contexts=8", "classifier.steps=100")
AVX512 = "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
HIDDEN = {
    "AVX512": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": AVX512,
    },
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3",
    },
}


def run(home: Path, environment: dict[str, str]) -> tuple[Store, dict[str, Record]]:
    command = [str(Path(sys.executable).with_name("clep-dg")), "run", "--preset", "demo"]
    command += ["--folds", "supervised,leave-out-synthetic-1", *(word for line in SHORT for word in ("--set", line))]
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        timeout=1800,
        preexec_fn=die_with_parent,
        env={**os.environ, "CLEPDG_HOME": str(home), "CLEPDG_STORE": str(home / "store"), **environment},
    )
    store = open_store(str(home / "store"))
    (log,) = (home / "store" / "runs").glob("*.json")
    records = {}
    for node_id, facts in json.loads(log.read_text())["stages"].items():
        found = store.lookup(node_id.partition("/")[0], facts["key"])
        assert isinstance(found, Record)
        records[node_id] = found
    return store, records


def predictions(store: Store, record: Record):
    import pandas as pd

    return pd.read_parquet(store.local(record.stage, record.key) / "predictions.parquet")


def test_data_are_the_same_bytes_and_the_rest_is_told(tmp_path):
    capability = torch.backends.cpu.get_cpu_capability()
    if capability not in HIDDEN:
        pytest.skip(f"this processor offers torch {capability}: nothing that could be hidden")
    here, ours = run(tmp_path / "here", {})
    there, theirs = run(tmp_path / "there", HIDDEN[capability])
    assert ours.keys() == theirs.keys()
    same = Counter[str]()
    for node_id, record in ours.items():
        same[record.stage] += record.digests == theirs[node_id].digests
    count = Counter(record.stage for record in ours.values())
    print(capability, "against", HIDDEN[capability]["ATEN_CPU_CAPABILITY"])
    print({stage: f"{same[stage]} of {count[stage]} equal" for stage in count})
    for stage in ("source", "index", "shard", "backbone"):
        assert same[stage] == count[stage], stage
    moved = differ = answers = 0
    for node_id, record in ours.items():
        if record.stage == "evaluate":
            one, other = predictions(here, record), predictions(there, theirs[node_id])
            assert one["utterance_id"].equals(other["utterance_id"])
            p, q = (frame.filter(regex="^p_").to_numpy() for frame in (one, other))
            answers += len(p)
            differ += int((p.argmax(axis=1) != q.argmax(axis=1)).sum())
            moved = max(moved, float(np.abs(p - q).max()))
    print(f"{differ} of {answers} predictions differ; a probability by at most {moved:.1e}")
    assert answers > 0
