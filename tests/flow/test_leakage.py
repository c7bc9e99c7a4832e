"""Protects a left-out corpus from being learnt from: whatever becomes of it, its fold's models keep their bytes."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clepdg.callbacks import Reporting
from clepdg.store.record import Record
from clepdg_flows.run.plan import make_plan
from clepdg_tasks.engine import execute
from clepdg_tasks.engine.node import decide
from clepdg_tasks.engine.run_history import Arguments
from clepdg_tasks.host.settings import Settings

pytestmark = pytest.mark.usefixtures("few_separation_steps")

TARGET = "ravdess"
FOLD = f"leave-out-{TARGET}"
LEARNT = ("clep", "acpt", "text_embeddings", "classifier")
OVERRIDES = {
    "synthetic.utterances": 32,
    "clep.epochs": 1,
    "clep.steps_per_epoch": 3,
    "clep.batch_size": 8,
    "acpt.contexts": 4,
    "acpt.epochs": 3,
    "acpt.tokens": 1,
    "classifier.steps": 20,
    "evaluate.conditions": ["babble-5dB"],
    "rows": ["log-mel", "clep-zero-shot-centred", "text-random", "text-acpt"],
}
EMOTIONS = {"neutral": "01", "happy": "03", "sad": "04", "angry": "05"}


def write_target(root: Path, seed: int = 0, noise: bool = False, speakers: tuple[int, ...] = (1, 2, 3, 5)) -> None:
    """Write a small RAVDESS: tones whose pitch says the emotion, or noise."""
    rng = np.random.default_rng(seed)
    for speaker in speakers:
        folder = root / f"Actor_{speaker:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        for pitch, code in enumerate(EMOTIONS.values()):
            for statement in ("01", "02"):
                time = np.arange(48000) / 48000
                wave = np.sin(2 * np.pi * (150 + 90 * pitch) * time) if not noise else rng.standard_normal(48000)
                name = f"03-01-{code}-01-{statement}-01-{speaker:02d}.wav"
                soundfile.write(folder / name, 0.1 * wave + 0.01 * rng.standard_normal(48000), 48000, subtype="PCM_16")


def poison_labels(root: Path) -> None:
    files = sorted(root.rglob("*.wav"))
    data = [path.read_bytes() for path in files]
    for path, other in zip(files, np.random.default_rng(1).permutation(len(files)), strict=True):
        path.write_bytes(data[other])


def poison_audio(root: Path) -> None:
    shutil.rmtree(root)
    write_target(root, seed=9, noise=True)


def add_and_remove(root: Path) -> None:
    shutil.rmtree(root / "Actor_05")
    write_target(root, seed=3, speakers=(4, 7))


def duplicate(root: Path) -> None:
    first, same_label, other_label, *_ = sorted((root / "Actor_01").glob("*.wav"))
    shutil.copy(first, same_label)
    shutil.copy(first, other_label)


def copy_sources(root: Path, home: Path) -> None:
    """Put audio that the sources learn from under the target's names."""
    learnt = sorted((home / "store" / "source").glob("*/tree/**/*.wav"))
    assert learnt
    for path, source in zip(sorted(root.rglob("*.wav")), learnt, strict=False):
        shutil.copy(source, path)


class Runner:
    def __init__(self, home: Path) -> None:
        self.home, self.target = home, home / "target"
        self.settings = Settings(home=home, store=str(home / "store"), tracking_url=None, device="cpu", workers=1)

    def run(self, backbone: str | None = None, **changes) -> dict[str, tuple[Record, bool]]:
        """Bring the fold that leaves the target out up to date; return node id -> (record, reused)."""
        arguments = Arguments(
            preset="demo",
            backbone=backbone,
            corpora=("synthetic-1", "synthetic-3", TARGET),
            sources={TARGET: str(self.target)},
            folds=(FOLD,),
            until="evaluate",
            allow_partial=True,
            overrides={**OVERRIDES, **changes},
        )
        store, records, found = self.settings.open_store(), {}, {}
        for node in make_plan(arguments).nodes:
            reporting = lambda node, decision: contextlib.nullcontext(Reporting())  # noqa: E731
            outcome = execute.run(
                node, decide(node, records, store, dict), records, store, self.settings, reporting=reporting
            )
            records[node.id] = outcome.record
            found[node.id] = (outcome.record, outcome.reused)
        return found


def learnt(found: dict[str, tuple[Record, bool]], stages: tuple[str, ...] = LEARNT) -> dict[str, str]:
    """Return node id -> key, digests and files of what the fold learns."""
    own = {i: record for i, (record, _) in found.items() if record.stage in stages and i.split("/")[1].startswith(FOLD)}
    assert {record.stage for record in own.values()} == set(stages)
    return {i: json.dumps([r.key, r.digests, r.files], sort_keys=True) for i, r in own.items()}


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> tuple[Runner, dict[str, tuple[Record, bool]]]:
    runner = Runner(tmp_path_factory.mktemp("clean"))
    write_target(runner.target)
    return runner, runner.run()


ALL_BUT_COPIES = (poison_audio, add_and_remove, duplicate, poison_labels)


@pytest.mark.parametrize(
    "poison",
    [*((each,) for each in ALL_BUT_COPIES), ALL_BUT_COPIES, ()],
    ids=lambda each: "-".join(one.__name__ for one in each) or "copies",
)
def test_a_poisoned_target_changes_no_byte_of_what_its_fold_learns(clean, tmp_path, poison):
    runner, before = clean
    work = Runner(tmp_path)
    shutil.copytree(runner.home / "store", tmp_path / "store")  # whose outputs of the sources save time
    for stage in LEARNT:
        shutil.rmtree(tmp_path / "store" / stage)  # learnt anew, beside the poisoned target
    write_target(work.target)
    for each in poison:
        each(work.target)
    if not poison:
        copy_sources(work.target, tmp_path)
    after = work.run()
    assert learnt(after) == learnt(before)
    assert not any(reused for i, (_, reused) in after.items() if i.split("/")[0] in LEARNT and FOLD in i)
    name = f"evaluate/{FOLD}"
    assert after[name][0].key != before[name][0].key  # the poison did arrive, where it may
    assert poison or after[name][0].figures["copies"] > 0  # dropped, from the target alone
    for corpus in ("synthetic-1", "synthetic-3"):
        assert after[f"index/{corpus}"][1] and after[f"shard/{corpus}"][1]


def test_neither_does_it_reach_pretraining_or_rows_that_learn_more(tmp_path):
    """micro-context hears its sources in environments; captions with terciles; an emotion left out."""
    rows = ["log-mel", "text-acpt", "clep-attribute", "new-sad"]
    clean, work = Runner(tmp_path / "clean"), Runner(tmp_path / "poisoned")
    write_target(clean.target)
    before = clean.run("micro-context", rows=rows, **{"pretrain.steps": 2})
    shutil.copytree(clean.home / "store", work.home / "store")
    stages = ("backbone", *LEARNT)
    for stage in stages:
        shutil.rmtree(work.home / "store" / stage)
    write_target(work.target)
    for poison in (poison_audio, add_and_remove, duplicate):
        poison(work.target)
    after = work.run("micro-context", rows=rows, **{"pretrain.steps": 2})
    assert learnt(after, stages) == learnt(before, stages)
    assert after[f"evaluate/{FOLD}"][0].key != before[f"evaluate/{FOLD}"][0].key


def test_centring_on_the_target_changes_the_evaluation_alone_and_is_marked(clean):
    runner, before = clean
    after = runner.run(**{"classifier.centring": "target"})
    changed = {i for i, (record, _) in after.items() if record.key != before[i][0].key}
    assert {i.split("/")[0] for i in changed} <= {"classifier", "evaluate"}
    same = [i for i in before if i.split("/")[0] in ("clep", "acpt", "text_embeddings", "audio_embeddings")]
    assert all(after[i][1] for i in same)
    heads = after[f"evaluate/{FOLD}"][0].config["heads"]
    assert {head["centring"] for head in heads if head["row"] == "text-acpt"} == {"target"}
