"""Protects classifiers for words of a user's own: made of a stored one's parts, kept, and said to be uncertain."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from clepdg.callbacks import Reporting
from clepdg.config.schema import AcptConfig, ClassifierConfig, TextConfig
from clepdg.emotions import labels
from clepdg.errors import BackboneError, ConfigError, StoreError
from clepdg.hashing import plain
from clepdg.method import acpt, classifier
from clepdg.method.fold.new_words import check_words, classify_words
from clepdg.method.heads import Head
from clepdg.method.text_embeddings import build_text_embeddings
from clepdg.models.clap import Clap
from clepdg.prompts import CONTENT_TEMPLATE, JOINT_TEMPLATE
from clepdg.store.opening import open_store
from clepdg.store.record import Record
from clepdg.store.store import Store

KNOWN = labels("4")
KEYS = {"clep/c": "c", "acpt/a": "a", "text_embeddings/t": "t", "classifier/k": "k", "text_embeddings/gone": "gone"}


def commit(store: Store, stage: str, key: str, save, **facts) -> None:
    with store.lock(stage, key):
        content = save(store.partial(stage, key))
        given = {"config": {}, "inputs": {}, "figures": {}, "files": {}, "digests": {"content": content or "d"}}
        store.commit(Record(stage=stage, name=key, key=key, version=1, seconds=1.0, **{**given, **facts}))


@pytest.fixture(scope="module")
def parts(tmp_path_factory, micro_factory) -> tuple[Store, Clap, Head]:
    """A store with all that a head for four emotions was made of, the CLAP and the head."""
    store, clap = open_store(str(tmp_path_factory.mktemp("store"))), micro_factory()
    config, contexts = ClassifierConfig(steps=30), torch.randn(2, 1, 128, generator=torch.Generator().manual_seed(0))
    text = build_text_embeddings(clap, TextConfig(), contexts)
    weight, _ = classifier.fit_text(
        text.embeddings, text.label_index, 4, config, 0, tmp_path_factory.mktemp("x"), Reporting()
    )

    def content(stage: str, key: str) -> str:
        return store.lookup(stage, key).digests["content"]

    mean = torch.randn(128, generator=torch.Generator().manual_seed(1)) / 20
    head = Head(labels=KNOWN, cosine=True, weight=weight, bias=torch.zeros(4), mean=mean, log_temperature=2.0)

    commit(store, "clep", "c", clap.save, config={"emotions": list(KNOWN)})
    commit(store, "acpt", "a", lambda folder: acpt.save(folder, contexts, AcptConfig(), KNOWN))
    settings = {"how": "given", "content_templates": TextConfig().content_templates, "contexts": ()}
    settings |= {"content_template": CONTENT_TEMPLATE, "joint_template": JOINT_TEMPLATE}
    commit(store, "text_embeddings", "t", text.save, config=plain(settings), inputs={"acpt": content("acpt", "a")})
    learnt = {"classifier": plain(config), "seed": 0}
    commit(store, "classifier", "k", head.save, config=learnt, inputs={"text": content("text_embeddings", "t")})
    return store, clap, head


def classify(parts, words: list[str], kept: Path, keys=KEYS) -> Head:
    store = parts[0]
    folders = store.local("clep", "c"), store.local("classifier", "k")
    return classify_words(store, keys, *folders, check_words(words), kept).head


def test_its_own_labels_give_the_same_head(parts, tmp_path) -> None:
    made, head = classify(parts, list(KNOWN), tmp_path), parts[2]
    assert made.labels == KNOWN
    torch.testing.assert_close(made.weight, head.weight, atol=1e-5, rtol=0)
    torch.testing.assert_close((made.mean, made.log_temperature), (head.mean, head.log_temperature))


def test_other_words_are_kept_and_need_the_text_encoder_once(parts, tmp_path, monkeypatch, caplog) -> None:
    with caplog.at_level(logging.WARNING, "clepdg"):
        made = classify(parts, [" kitchen", "furious ", "angry"], tmp_path)
        monkeypatch.setattr("clepdg.method.fold.new_words.fit_words", None)
        again = classify(parts, ["kitchen", "furious", "angry"], tmp_path)
    assert made.labels == again.labels == ("kitchen", "furious", "angry")
    torch.testing.assert_close(made.weight, again.weight)
    x = np.random.default_rng(0).standard_normal((3, 128)).astype(np.float32)
    assert (made.probabilities(x) == again.probabilities(x)).all()
    told = [record.message for record in caplog.records]
    assert len(told) == 2 and all(": kitchen. Probabilities" in each for each in told)  # CLEP learnt the others


def test_a_kept_head_is_of_its_words_alone(parts, tmp_path) -> None:
    one, other = (classify(parts, words, tmp_path) for words in (["happy", "sad"], ["sad", "happy"]))
    assert (one.labels, other.labels) == (("happy", "sad"), ("sad", "happy"))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("words", [["happy"], [], ["sad", "sad "], ["sad", " "], ["sad", "{x}"], "sad"])
def test_words_that_are_no_choice_are_refused(words) -> None:
    with pytest.raises(ConfigError, match="at least two words"):
        check_words(words)


def test_what_can_not_be_made_is_one_error(parts, tmp_path) -> None:
    with pytest.raises(BackboneError, match="sarcastic"):
        classify(parts, ["sarcastic", "sad"], tmp_path)
    with pytest.raises(StoreError, match="made of.\n  got: acpt"):
        classify(parts, ["happy", "sad"], tmp_path, {name: key for name, key in KEYS.items() if name != "acpt/a"})
    assert not list(tmp_path.iterdir())
