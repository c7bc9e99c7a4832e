"""Protects what models of a condition share: its bytes, its size, and that nothing is made twice."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from clepdg.audio import corruptions
from clepdg.audio.corruptions import corrupt
from clepdg.callbacks import Reporting
from clepdg.config.conditions import parse
from clepdg.config.schema import ComputeConfig
from clepdg.dataset import kept
from clepdg.dataset.kept import Latest, corrupted_reader
from clepdg.dataset.shards import UtteranceReader
from clepdg_tasks.engine.node import Work
from clepdg_tasks.stages.embeddings import compute_audio_embeddings

CONDITIONS = ("pink-20dB", "pink-10dB", "hum-0dB", "babble-5dB", "room-short+white-5dB+telephone", "clipping")


@pytest.fixture(autouse=True)
def empty():
    kept.clear()
    yield
    kept.clear()


@pytest.fixture
def made(monkeypatch) -> Counter[str]:
    """Count what is corrupted, and which noises are made."""
    counted: Counter[str] = Counter()

    def count(module: Any, name: str, argument: int) -> None:
        function = getattr(module, name)

        def counting(*given: Any) -> Any:
            counted[f"{name} {getattr(given[argument], 'name', given[argument])}"] += 1
            return function(*given)

        monkeypatch.setattr(module, name, counting)

    count(kept, "corrupt", 3)
    count(corruptions, "make_noise", 0)
    return counted


def talkers(tone):
    return [tone(1.0, 16000, pitch, seed) for seed, pitch in enumerate((90, 110, 130, 170, 210, 240))]


def test_all_models_get_the_bytes_that_are_made_once(utterances, tone, made):
    names, recordings, reader = utterances.utterance_id.tolist(), talkers(tone), UtteranceReader(utterances)
    for name in CONDITIONS:
        condition = parse(name)
        for _model in range(3):
            read = corrupted_reader(reader, names, condition, recordings, "corpus")
            for n in (0, 5):
                waveform, rate = read(n)
                expected = corrupt(*reader.waveform(n), names[n], condition, recordings)
                assert (waveform.tobytes(), rate) == (expected.tobytes(), 16000)
    alone = {"pink": 12, "hum": 6, "babble": 6, "white": 6}  # by the six calls of corrupt in this test
    assert {name: made[f"corrupt {name}"] for name in CONDITIONS} == dict.fromkeys(CONDITIONS, 2)
    assert {kind: made[f"make_noise {kind}"] - count for kind, count in alone.items()} == dict.fromkeys(alone, 2)


def test_other_corpora_talkers_and_utterances_are_not_mixed_up(utterances, tone):
    names, voices, reader = utterances.utterance_id.tolist(), talkers(tone), UtteranceReader(utterances)
    condition = parse("babble-0dB")
    first = corrupted_reader(reader, names, condition, voices, "one")(0)[0]
    others = [
        corrupted_reader(reader, names, condition, voices[1:], "one")(0)[0],
        corrupted_reader(reader, names, condition, voices, "one")(1)[0],
        corrupted_reader(reader, ["another", *names[1:]], condition, voices, "one")(0)[0],
    ]
    assert all(not np.array_equal(first, other) for other in others)
    assert np.array_equal(corrupted_reader(reader, names, condition, voices, "two")(0)[0], first)
    assert len(kept.CORRUPTED._kept) == 3  # of these talkers: utterances 0 and 1 of one, 0 of the other


def test_memory_is_bounded_and_another_group_takes_its_place():
    latest, calls = Latest(1000), Counter[Any]()

    def get(group: str, name: int) -> np.ndarray:
        def make() -> np.ndarray:
            calls[group, name] += 1
            return np.resize(np.arange(1000, dtype=np.float32), 100)  # a view of more

        return latest.get(group, name, make)

    for _ in range(2):
        for name in range(4):
            get("a", name)
    assert latest.bytes_left == 200
    assert [calls["a", name] for name in range(4)] == [1, 1, 2, 2]
    assert all(waveform.base is None for waveform in latest._kept.values())
    get("b", 0)
    assert latest.bytes_left == 600
    get("a", 0)
    assert calls["a", 0] == 2


@pytest.mark.parametrize("model", ["micro", "log-mel"])
def test_embeddings_are_the_same_with_what_is_kept_and_without(utterances, micro, tmp_path, model, made):
    micro.save(tmp_path / "model")
    shard = Path(utterances.folder[0])
    inputs = {"shard": shard, "model": tmp_path / "model"}

    def embed(name: str) -> str:
        (tmp_path / name).mkdir()
        work = Work(
            config={"condition": "pink-5dB", "compute": ComputeConfig(), "model": model},
            folder=tmp_path / name, inputs=inputs, records={"shard": SimpleNamespace(digests={"content": "c"})},
            previous=None, pins=None, device="cpu", workers=1, reporting=Reporting(),
        )  # fmt: skip
        return compute_audio_embeddings(work).digests["content"]

    cold = embed("cold")
    before = {name: waveform.tobytes() for name, waveform in kept.CORRUPTED._kept.items()}
    assert embed("warm") == cold
    assert made["corrupt pink-5dB"] == len(before) == len(utterances)
    assert {name: waveform.tobytes() for name, waveform in kept.CORRUPTED._kept.items()} == before
    kept.clear()
    assert embed("again") == cold
    assert made["corrupt pink-5dB"] == 2 * len(before)
