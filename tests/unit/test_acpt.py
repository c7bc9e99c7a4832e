"""Protects ACPT: its losses against plain loops, that only V learns, and resuming bit for bit."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch

from clepdg import prompts
from clepdg.callbacks import DEFAULT_CHECKPOINTING, Reporting
from clepdg.config.presets import faithful_acpt
from clepdg.config.schema import AcptConfig, ClepConfig, ComputeConfig
from clepdg.errors import BackboneError, ClepError, StoreError
from clepdg.hashing import read_json
from clepdg.method import acpt
from clepdg.method.context_effect import effective_rank
from clepdg.method.context_prompts import ContextPrompts
from clepdg.method.text_features import separate_emotions
from clepdg.models.micro import build_micro

EMOTIONS = ("angry", "happy", "sad")
JOINT = AcptConfig(contexts=6, tokens=2, epochs=3, batch_size=4)
FAITHFUL = replace(faithful_acpt(), contexts=3, epochs=4)


def fit(clap, config, folder, seed=0, reporting=None, checkpointing=DEFAULT_CHECKPOINTING):
    folder.mkdir(exist_ok=True)
    return acpt.fit(clap, EMOTIONS, config, ComputeConfig(), seed, folder, reporting or Reporting(), checkpointing)


def test_diversity_loss_equals_a_plain_loop():
    torch.manual_seed(0)
    every = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    own = torch.tensor([3, 1])
    pairs = [abs(float(every[k] @ every[j])) for k in (3, 1) for j in range(5) if j != k]
    assert acpt.diversity_loss(every[own], every, own).item() == pytest.approx(np.mean(pairs), abs=1e-6)
    earlier = [abs(float(every[4] @ every[j])) for j in range(3)]
    assert acpt.diversity_loss(every[4:], every[:3]).item() == pytest.approx(np.mean(earlier), abs=1e-6)
    assert acpt.diversity_loss(every[:1], every[:0]).item() == 0


def test_diversity_has_no_gradient_for_the_others():
    contexts, others = torch.randn(2, 8, requires_grad=True), torch.randn(4, 8, requires_grad=True)
    acpt.diversity_loss(contexts, others).backward()
    assert contexts.grad is not None
    assert others.grad is None


def test_the_nearest_hand_written_context_of_each_is_written(tmp_path, micro):
    clap, config = micro, replace(JOINT, method="vocabulary")
    vectors, figures = fit(clap, config, tmp_path / "v")
    written = read_json(tmp_path / "v" / acpt.NEAREST)
    features = ContextPrompts(clap, [config.context_template], config.tokens).encode(vectors)[:, 0]
    texts = [prompts.CONTEXT_TEMPLATE.format(context=each) for each in prompts.HANDWRITTEN_CONTEXTS]
    worded = [clap.encode_text([text])[0] for text in texts]
    for (caption, cosine), feature in zip(written, features, strict=True):
        cosines = [float(feature @ each) for each in worded]
        assert cosine == pytest.approx(max(cosines), abs=1e-5)
        assert cosines[prompts.HANDWRITTEN_CONTEXTS.index(caption)] == pytest.approx(max(cosines), abs=1e-5)
    assert figures["nearest_caption_cosine"] == pytest.approx(np.mean([cosine for _, cosine in written]), abs=1e-5)


def test_content_loss_equals_a_plain_loop():
    torch.manual_seed(0)
    u = torch.nn.functional.normalize(torch.randn(2, 3, 8), dim=2)
    c = torch.nn.functional.normalize(torch.randn(3, 8), dim=1)
    total = 0.0
    for k in range(2):
        for m in range(3):
            odds = [np.exp(float(u[k, m] @ c[n]) / 0.1) for n in range(3)]
            total -= np.log(odds[m] / sum(odds)) / 6
    assert acpt.content_loss(u, c, 0.1).item() == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize(
    "config",
    [JOINT, FAITHFUL, *(replace(JOINT, method=method) for method in ("random", "vocabulary"))],
    ids=lambda c: c.method,
)
def test_only_the_context_vectors_learn(micro_factory, tmp_path, config):
    clap = micro_factory()
    before = clap.digest()
    vectors, figures = fit(clap, config, tmp_path / "a")
    start = acpt.initial_vectors(clap, config, 0)
    assert vectors.shape == (config.contexts, config.tokens, 128)
    assert clap.digest() == before
    assert not any(p.requires_grad or p.grad is not None for p in clap.model.parameters())
    moved = (vectors != start).flatten(1).any(dim=1)
    assert moved.all() if config.method in ("joint", "faithful") else not moved.any()
    assert all(np.isfinite(list(figures.values())))


def test_contexts_outside_a_step_do_not_move(micro, tmp_path, monkeypatch):
    """Of 6 contexts in steps of 4, each step moves its own alone: Adam's momentum must not carry the others along."""
    held = []
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda params, lr: held.append(params) or adam(params, lr=lr))
    snapshots = [acpt.initial_vectors(micro, JOINT, 0)]

    def remember(done, total):
        snapshots.append(torch.stack([v.detach().clone() for v in held[0]]))

    fit(micro, JOINT, tmp_path / "a", reporting=Reporting(progress=remember))
    moved = [(after != before).flatten(1).any(dim=1) for before, after in pairwise(snapshots)]
    assert [int(m.sum()) for m in moved] == [4, 2, 4, 2, 4, 2]
    assert all(not bool((a & b).any()) for a, b in (moved[0:2], moved[2:4], moved[4:6]))


def test_each_loss_does_what_it_is_for(tmp_path):
    micro = build_micro(0)
    separate_emotions(micro, EMOTIONS, ClepConfig(), seed=0)  # an untrained model's texts are nearly the same
    config = AcptConfig(contexts=8, tokens=2, epochs=30, batch_size=8)
    _, random = fit(micro, replace(config, method="random"), tmp_path / "random")
    _, spread = fit(micro, replace(config, content_weight=0.0), tmp_path / "spread")
    _, agreeing = fit(micro, replace(config, diversity_weight=0.0), tmp_path / "agreeing")
    assert spread["context_mean_abs_cosine"] < random["context_mean_abs_cosine"] - 0.1
    assert agreeing["content_top1"] > max(random["content_top1"], spread["content_top1"])


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ({"plateau": 0.9}, [10]),  # nothing falls by so much: it ends at the first look
        ({"plateau": 0.0}, [25]),
        ({"plateau": 0.9, "epochs": 9}, [9]),
        ({"plateau": 1e-9, "diversity_weight": 0.0}, [25]),  # the other loss still falls
        ({"plateau": 0.9, "method": "faithful", "tokens": 1}, [75]),  # contexts one after another: no plateau of all
    ],
)
def test_joint_ends_where_neither_loss_falls(micro, tmp_path, settings, epochs):
    config, seen = replace(JOINT, **{"contexts": 3, "epochs": 25, **settings}), list[int]()
    fit(micro, config, tmp_path / "a", reporting=Reporting(progress=lambda done, total: seen.append(done)))
    curve = read_json(tmp_path / "a" / "training.json")
    assert [curve["content_loss"][-1][0]] == epochs
    assert seen[-1] == (75 if config.method == "faithful" else config.epochs)  # what shows it is not left half-way


def test_a_killed_training_ends_at_the_same_plateau(micro_factory, tmp_path, ticking):
    micro = micro_factory()
    separate_emotions(micro, EMOTIONS, ClepConfig(), seed=0)
    config = replace(JOINT, contexts=3, epochs=60, plateau=0.05)
    whole, _ = fit(micro, config, tmp_path / "whole")
    ends = read_json(tmp_path / "whole" / "training.json")["content_loss"][-1][0]
    assert 10 < ends < 60  # it looks twice or more
    with pytest.raises(ClepError, match="time limit"):
        fit(micro, config, tmp_path / "a", checkpointing=ticking(0, ends - 5))
    resumed, _ = fit(micro, config, tmp_path / "a")
    assert torch.equal(resumed, whole)


@pytest.fixture(scope="module")
def whole(micro, tmp_path_factory):
    """Return a function that gives the contexts of an uninterrupted training."""
    return cache(lambda config: fit(micro, config, tmp_path_factory.mktemp("whole"))[0])


@pytest.mark.parametrize(("config", "seconds"), [(JOINT, 0), (FAITHFUL, 3)], ids=["joint", "faithful"])
@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_a_killed_training_goes_on_bit_for_bit(micro, whole, tmp_path, ticking, config, seconds, killed_after):
    """Joint training, whose features are refreshed when an epoch starts, is saved at an epoch's end alone."""

    class Killed(Exception):
        pass

    def kill(done, total):
        if done == killed_after:
            raise Killed

    with pytest.raises(Killed):
        fit(micro, config, tmp_path / "broken", reporting=Reporting(progress=kill), checkpointing=ticking(seconds))
    assert (tmp_path / "broken" / "training.resume").exists() == (killed_after >= 3)
    resumed, _ = fit(micro, config, tmp_path / "broken")
    assert torch.equal(resumed, whole(config))


def test_random_words_are_words_of_the_vocabulary_but_not_of_emotions(micro):
    config = replace(JOINT, method="vocabulary", contexts=200)
    vectors = acpt.initial_vectors(micro, config, 0)
    names = {number: word for word, number in micro.tokenizer.get_vocab().items()}
    table = micro.word_embeddings.weight.detach()
    found = {names[int((table - v).norm(dim=1).argmin())] for v in vectors.flatten(0, 1)}
    assert all(bool((table == v).all(dim=1).any()) for v in vectors.flatten(0, 1)[:50])
    emotional = {word for group in prompts.EMOTION_WORDS.values() for word in group}
    assert not found & (emotional | {prompts.PLACEHOLDER, "<s>", ","})
    assert len(found) > 50
    assert torch.equal(acpt.initial_vectors(micro, config, 0), vectors)
    assert not torch.equal(acpt.initial_vectors(micro, config, 1), vectors)


def test_words_of_a_byte_level_vocabulary_start_with_its_mark():
    class Tokenizer:
        def get_vocab(self):
            return {
                "<s>": 0,
                "\u0120house": 1,
                "ing": 2,
                "\u0120angry": 3,
                "\u0120of": 4,
                "\u0120Paris": 5,
                "\u0120rain": 6,
            }

    class Stub:
        tokenizer = Tokenizer()

    assert acpt.word_ids(Stub()) == [1, 6]


def test_everything_that_tells_good_contexts_from_bad_is_logged(micro, tmp_path):
    vectors, figures = fit(micro, replace(JOINT, method="random"), tmp_path / "a")
    encoder = ContextPrompts(micro, [JOINT.context_template], JOINT.tokens)
    with torch.no_grad():
        e = encoder.encode(vectors)[:, 0]
        real = micro.encode_text([prompts.CONTEXT_TEMPLATE.format(context=c) for c in prompts.HANDWRITTEN_CONTEXTS])
    highest = [max(float(row @ other) for other in real) for row in e]
    among = [max(float(real[a] @ real[b]) for b in range(16) if b != a) for a in range(16)]
    pairs = [abs(float(e[a] @ e[b])) for a in range(len(e)) for b in range(len(e)) if a != b]
    assert figures["nearest_caption_cosine"] == pytest.approx(np.mean(highest), abs=1e-5)
    assert figures["nearest_caption_cosine_lowest"] == pytest.approx(min(highest), abs=1e-5)
    assert figures["nearest_caption_cosine_of_captions"] == pytest.approx(np.mean(among), abs=1e-5)
    assert figures["context_mean_abs_cosine"] == pytest.approx(np.mean(pairs), abs=1e-5)
    assert {"shift_mean_abs_cosine", "content_top1", "shift_effective_rank", "joint_mean_cosine"} <= set(figures)


def test_effective_rank():
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1)


def test_placeholders_are_counted_after_tokenising(micro):
    with pytest.raises(BackboneError, match="placeholders"):
        ContextPrompts(micro, ["x speech recorded in {context}"], 2)


def test_save_and_load(micro, tmp_path):
    vectors = acpt.initial_vectors(micro, JOINT, 0)
    assert acpt.save(tmp_path, vectors, JOINT, EMOTIONS) == acpt.save(tmp_path, vectors, JOINT, EMOTIONS)
    assert torch.equal(acpt.load(tmp_path), vectors)
    (tmp_path / "contexts.safetensors").write_bytes(b"no")
    with pytest.raises(StoreError, match="can't be read"):
        acpt.load(tmp_path)
