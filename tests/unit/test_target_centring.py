"""Protects centring on the target: all of its test audio, whatever it is labelled, and nothing else."""

import numpy as np
import pandas as pd
import pytest

from clepdg.errors import ClepError
from clepdg.evaluation.utterances import centring_utterances
from clepdg.method.fold.predict import centre_on_targets


def test_it_takes_the_test_part_whatever_its_emotions_but_no_copy_of_what_sources_learnt() -> None:
    rows = [
        ("a/1", "test", "angry"),
        ("a/2", "test", "calm"),  # outside the label set
        ("a/3", "test", None),  # names no emotion
        ("a/4", "test", "sad"),  # a copy
        ("a/5", "train", "sad"),
    ]
    table = pd.DataFrame(rows, columns=["utterance_id", "split", "emotion"]).assign(corpus="a")
    assert centring_utterances(table[::-1], {"a/4"}).utterance_id.tolist() == ["a/1", "a/2", "a/3"]


def test_each_corpus_is_without_the_mean_of_its_own_test_audio() -> None:
    rng = np.random.default_rng(0)
    x, test = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    corpora, of_test = np.array(["a", "b", "a", "b"]), np.array(["b", "a", "a", "b", "b"])
    found = centre_on_targets(x, corpora, test, of_test)
    for place, corpus in enumerate(corpora):
        np.testing.assert_allclose(found[place], x[place] - test[of_test == corpus].mean(axis=0), atol=1e-6)
    with pytest.raises(ClepError, match=r"no test audio to centre a target on.\n  got: b"):
        centre_on_targets(x, corpora, test[1:3], of_test[1:3])
