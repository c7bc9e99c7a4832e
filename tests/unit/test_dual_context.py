"""Protects dual-context's pretraining: which words name which states, by heads alone, the same bytes after a kill."""

import numpy as np
import pytest
import torch

from clepdg import prompts
from clepdg.callbacks import Reporting
from clepdg.config.schema import ComputeConfig, PretrainConfig
from clepdg.errors import ClepError
from clepdg.method.audio_embeddings import AudioEmbeddings
from clepdg.method.pretraining.dual_context import environment_accuracy, pretrain
from clepdg.models.dual import build_dual
from tests.encoders import save_encoders

ENVIRONMENTS = [*prompts.CONTEXT_OF]
CONFIG = PretrainConfig(steps=60, batch_size=32, learning_rate=3e-3, left_out=("hum",))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_encoders(tmp_path_factory.mktemp("encoders"))


def states(corpus: int, splits=("train",) * 6 + ("validation",) * 2) -> AudioEmbeddings:
    """Return states that tell their environment; each corpus has its own offset."""
    rng = np.random.default_rng(corpus)
    names = [f"{split}/{name}/u{n}" for n, split in enumerate(splits) for name in ENVIRONMENTS]
    x = rng.normal(0, 0.3, (len(names), 3, 32)).astype(np.float32) + corpus
    x[np.arange(len(names)), 1, np.tile(np.arange(len(ENVIRONMENTS)), len(splits))] += 4
    return AudioEmbeddings(utterance_ids=tuple(names), embeddings=x)


def taught(folders, folder, parts=None, **given):
    dual = build_dual(*folders, seed=0)
    folder.mkdir(exist_ok=True)
    reporting = given.pop("reporting", Reporting())
    parts = parts or [states(0), states(1)]
    return dual, pretrain(dual, parts, CONFIG, ComputeConfig(threads=1), folder, reporting, **given)


def test_it_names_environments_that_it_learnt_and_encoders_keep_their_bytes(folders, tmp_path):
    before = build_dual(*folders, seed=0).model.state_dict()
    dual, figures = taught(folders, tmp_path / "a")
    changed = {name for name, tensor in dual.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {*dual.model.heads()} - {"audio_projection.read"}
    assert figures["environment_accuracy_heard"] > 0.9
    assert figures["environments"] == len(ENVIRONMENTS)
    new = states(2)
    of = environment_accuracy(dual, new.embeddings - 2, np.array([name.split("/")[1] for name in new.utterance_ids]))
    assert np.mean([of[name] for name in ENVIRONMENTS if name != "hum"]) > 0.9


def test_neither_left_out_environments_nor_validation_states_change_the_heads(folders, tmp_path):
    others = [states(0), states(1)]
    for part in others:
        for place, name in enumerate(part.utterance_ids):
            if name.startswith("validation/") or "/hum/" in name:
                part.embeddings[place] = 99
    digests = {taught(folders, tmp_path / name, parts)[0].digest() for name, parts in (("a", None), ("b", others))}
    assert len(digests) == 1


def test_a_killed_pretraining_goes_on_bit_for_bit(folders, tmp_path, ticking):
    class Killed(Exception):
        pass

    def kill(done, total):
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        taught(folders, tmp_path / "broken", reporting=Reporting(progress=kill), checkpointing=ticking(2))
    assert (tmp_path / "broken" / "training.resume").exists()
    digests = {taught(folders, tmp_path / name)[0].digest() for name in ("broken", "whole")}
    assert len(digests) == 1


def test_without_validation_utterances_it_is_one_error(folders, tmp_path):
    with pytest.raises(ClepError, match="validation"):
        taught(folders, tmp_path / "a", [states(0, ("train",) * 4)])
