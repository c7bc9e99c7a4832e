"""Protects the main job, `clep-dg/full` without parameters: from an empty machine to the report and `predict`.

Stand-ins on 127.0.0.1 serve what it meets; users point it elsewhere by the same settings (HF_ENDPOINT, mirrors, cards).
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.rehearsal.stage import DEFAULT, Machine, machine, timed

FEW = {
    "clep.epochs": 1,
    "clep.steps_per_epoch": 2,
    "clep.batch_size": 8,
    "acpt.contexts": 8,
    "acpt.epochs": 1,
    "classifier.steps": 20,
}
FIVE = ("ravdess", "crema-d", "tess", "emodb", "meld")


def settings(*more: str) -> list[str]:
    return [part for pair in (*(f"{n}={v}" for n, v in FEW.items()), *more) for part in ("--set", pair)]


def outcomes(there: Machine) -> Counter[str]:
    return Counter(facts["outcome"] for facts in there.last_run()["stages"].values())


def audio_of(there: Machine, corpus: str) -> Path:
    return next(path for path in sorted(there.publishers.trees[corpus].rglob("*")) if path.suffix == ".wav")


def test_one_corpus_and_a_small_model_from_an_empty_machine_to_a_prediction(tmp_path):
    with machine(tmp_path, tiny=True, corpora=("ravdess",)) as there:
        run = ["clep-dg", "run", "--corpora", "ravdess", "--allow-partial", *settings("protocols=supervised")]
        refused = there.run(*run, "--backbone", f"laion/gated@{'0' * 40}", check=False)
        assert refused.returncode == 2 and "gated" in refused.stderr and not refused.stdout
        first = there.run(*run)
        assert set(outcomes(there)) == {"Completed"} and "text classifier, ACPT contexts" in first.stdout
        stored = next((there.home / "store" / "backbone").glob("*/model.safetensors"))
        assert not list(stored.parent.glob("*.bin"))
        asked = [path for _, path in there.hub.requests if DEFAULT.name in path]
        assert asked and all(str(DEFAULT.revision) in path for path in asked)  # the pinned commit, never main
        there.hub.requests.clear()
        status = there.run("clep-dg", "status", *run[2:])
        assert f"All {len(there.last_run()['stages'])} stages are up to date" in status.stdout
        assert not there.hub.requests
        predicted = there.run("clep-dg", "predict", str(audio_of(there, "ravdess")))
        assert any(emotion in predicted.stdout for emotion in ("angry", "happy", "neutral", "sad"))


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_the_whole_rehearsal_with_models_of_true_size(tmp_path):
    """`make rehearsal`: five corpora, HTSAT-tiny and RoBERTa-base, servers, a worker, and the deployment `full`."""
    with machine(tmp_path, tiny=False, corpora=FIVE) as there:
        with timed("make up"):
            there.run("python", "-m", "clepdg_tasks.admin.services", "up")
        try:
            full = ["prefect", "deployment", "run", "clep-dg/full", "--watch", "--param", "allow_partial=true"]
            full += ["--param", f"overrides={json.dumps(FEW)}"]
            with timed("clep-dg/full, from nothing"):
                there.run(*full)
            assert set(outcomes(there)) == {"Completed"}
            print_costs(there)
            assert len(list((there.home / "store" / "report").glob("*/report.html"))) == 1
            with timed("clep-dg predict"):
                predicted = there.run("clep-dg", "predict", str(audio_of(there, "tess")))
            assert any(emotion in predicted.stdout for emotion in ("angry", "happy", "neutral", "sad"))
            assert "clep-dg-classifier" in there.run("clep-dg", "compare").stdout
            there.hub.requests.clear()
            with timed("clep-dg/full, again"):
                there.run(*full)
            assert set(outcomes(there)) == {"Reused"} and not there.hub.requests
            there.run("clep-dg", "pin")
            there.publishers.change("emodb")
            with timed("clep-dg/refresh after a publisher changed a file"):
                there.run("prefect", "deployment", "run", "clep-dg/refresh", "--watch")
            notes = " ".join(there.last_run()["notes"])
            assert "emodb" in notes and "other metadata than at the download" in notes
            checked = there.run("clep-dg", "fetch", "--check", check=False)
            assert checked.returncode == 1 and "differs" in checked.stdout
        finally:
            there.run("python", "-m", "clepdg_tasks.admin.services", "down")


def print_costs(there: Machine) -> None:
    """Print seconds by stage, and the most memory of each kind of process."""
    seconds: Counter[str] = Counter()
    for node_id, facts in there.last_run()["stages"].items():
        seconds[node_id.partition("/")[0]] += facts["seconds"]
    for stage, spent in seconds.items():
        print(f"  {stage:17s} {spent:8.1f} s", flush=True)
    for kind, most in sorted(there.peak.items()):
        print(f"  most memory of {kind}: {most / 2**30:.2f} GiB", flush=True)
