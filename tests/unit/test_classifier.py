"""Protects the classifier: ArcFace with its guard against a peer, centring, temperature, and heads on disk."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clepdg.callbacks import Reporting
from clepdg.config.schema import ClassifierConfig
from clepdg.errors import ClepError, StoreError
from clepdg.method import classifier, heads
from clepdg.method.classifier import arcface_logits, fit_audio, fit_text
from clepdg.method.heads import Head, majority

CONFIG = ClassifierConfig(steps=50, centring="none")


def blobs(n=4, per=20, d=16, spread=0.05, cone=0.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(n, d, generator=g), dim=1) + cone
    y = torch.arange(n).repeat_interleave(per)
    return F.normalize(centres[y] + spread * torch.randn(n * per, d, generator=g), dim=1), y


def test_arcface_equals_pytorch_metric_learning():
    """The peer takes the margin in degrees: 0.5 rad = 28.648."""
    from pytorch_metric_learning.losses import ArcFaceLoss

    torch.manual_seed(0)
    x, y = torch.randn(32, 16, dtype=torch.float64), torch.randint(0, 4, (32,))
    peer = ArcFaceLoss(num_classes=4, embedding_size=16, margin=28.648, scale=5).double()
    weight = peer.W.detach().T  # (N, D)
    cosine = F.normalize(x, dim=1) @ F.normalize(weight, dim=1).T
    guarded = cosine.gather(1, y[:, None]) <= math.cos(math.pi - 0.5)
    assert not guarded.any()  # the peer's guard differs; beyond it see the next test
    ours = F.cross_entropy(arcface_logits(cosine, y, 5.0, 0.5), y)
    assert ours.item() == pytest.approx(peer(x, y).item(), abs=1e-4)


def test_guard_keeps_the_logit_falling_all_the_way_round():
    """cos(theta + m) rises again beyond pi; with the guard the own logit grows with the cosine everywhere."""
    cosine = torch.linspace(-1, 1, 2001)[:, None]
    own = arcface_logits(cosine, torch.zeros(2001, dtype=torch.long), 1.0, 0.5)[:, 0]
    assert (own.diff() > -1e-6).all()
    unguarded = torch.cos(torch.acos(cosine.clamp(-1 + 1e-6, 1 - 1e-6)) + 0.5)[:, 0]
    assert (unguarded.diff() < -1e-4).any()
    above = cosine[:, 0] > math.cos(math.pi - 0.5)
    torch.testing.assert_close(own[above], unguarded[above], atol=1e-4, rtol=0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_where_x_is_a_class_weight(sign):
    weight = torch.nn.Parameter(F.normalize(torch.randn(4, 16), dim=1))
    x = sign * weight.detach().clone()
    logits = arcface_logits(x @ F.normalize(weight, dim=1).T, torch.arange(4), 5.0, 0.5)
    F.cross_entropy(logits, torch.arange(4)).backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(weight.grad).all()


def test_logits_of_a_cosine_head_are_those_of_audio_without_its_mean():
    rng = np.random.default_rng(0)
    x, weight, mean = (rng.normal(size=shape).astype(np.float32) for shape in ((7, 16), (4, 16), 16))
    head = Head(
        labels=tuple("abcd"),
        cosine=True,
        weight=torch.from_numpy(weight),
        bias=torch.ones(4),  # not used
        mean=torch.from_numpy(mean),
        log_temperature=1.5,
    )
    centred = x - mean
    lengths = np.linalg.norm(centred, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
    logits = math.exp(1.5) * (centred @ weight.T) / lengths
    np.testing.assert_allclose(head.logits(x), logits, rtol=1e-4, atol=1e-5)
    odds = np.exp(logits)
    np.testing.assert_allclose(head.probabilities(x), odds / odds.sum(axis=1, keepdims=True), atol=1e-5)


def test_scale_of_the_weights_does_not_matter():
    """Public copies "normalise" by rebinding a loop variable, which does nothing."""
    x, y = blobs()
    w = torch.randn(4, 16)
    losses = [
        F.cross_entropy(arcface_logits(x @ F.normalize(scale * w, dim=1).T, y, 5.0, 0.5), y).item()
        for scale in (0.01, 1.0, 100.0)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) == pytest.approx(losses[2], abs=1e-5)
    head = Head(labels=("a", "b", "c", "d"), cosine=True, weight=w, bias=torch.zeros(4), mean=torch.zeros(16))
    bigger = replace(head, weight=7 * w)
    np.testing.assert_allclose(head.logits(x.numpy()), bigger.logits(x.numpy()), atol=1e-5)


@pytest.mark.parametrize("cone", [0.0, 0.6])
def test_training_does_not_collapse_in_a_narrow_cone(cone, tmp_path):
    x, y = blobs(cone=cone, spread=0.01)
    _, figures = fit_text(x, y, 4, replace(CONFIG, steps=600), 0, tmp_path, Reporting())
    assert figures["text_accuracy"] > 0.95
    if cone:
        assert (x @ x.T).mean() > 0.85


def test_no_steps_give_the_class_means(tmp_path):
    x, y = blobs()
    weight, figures = fit_text(x, y, 4, replace(CONFIG, steps=0), 0, tmp_path, Reporting())
    torch.testing.assert_close(weight, torch.stack([x[y == n].mean(0) for n in range(4)]))
    assert figures["weight_change"] == 0


def test_centring_subtracts_the_mean_of_class_means_then_normalises(tmp_path):
    x, y = blobs(cone=0.5)
    x, y = x[10:], y[10:]  # unbalanced: the mean over classes is not the mean over rows
    weight, _ = fit_text(x, y, 4, replace(CONFIG, steps=0, centring="source"), 0, tmp_path, Reporting())
    mean = torch.stack([x[y == n].mean(0) for n in range(4)]).mean(0)
    centred = F.normalize(x - mean, dim=1)
    torch.testing.assert_close(weight, torch.stack([centred[y == n].mean(0) for n in range(4)]))


def test_the_mean_is_that_of_the_labels_that_were_met(tmp_path):
    x, y = blobs(cone=0.5)
    weight, _ = fit_text(x, y, 4, replace(CONFIG, steps=0, centring="source"), 0, tmp_path, Reporting(), new=2)
    mean = torch.stack([x[y == n].mean(0) for n in (0, 1, 3)]).mean(0)
    centred = F.normalize(x - mean, dim=1)
    torch.testing.assert_close(weight, torch.stack([centred[y == n].mean(0) for n in range(4)]))
    head = Head(labels=tuple("abcd"), cosine=True, weight=weight, bias=torch.arange(4.0), mean=torch.zeros(16))
    known = heads.drop_label(head, "c")
    assert known.labels == ("a", "b", "d")
    np.testing.assert_allclose(known.logits(x.numpy()), head.logits(x.numpy())[:, [0, 1, 3]], atol=1e-6)
    assert known.bias.tolist() == [0, 1, 3]


@pytest.mark.parametrize("length", [0.0, 0.5, 2.0])
def test_noise_turns_text_embeddings_by_its_length_anew_each_step(length, tmp_path, monkeypatch):
    """In a high dimension noise is orthogonal to what it is added to: the cosine is 1 / sqrt(1 + length^2)."""
    seen = []

    def watched(cosine, y, scale, margin):
        seen.append(cosine.detach().gather(1, y[:, None])[:, 0])
        return arcface_logits(cosine, y, scale, margin)

    monkeypatch.setattr(classifier, "arcface_logits", watched)
    x, y = torch.eye(2, 4096), torch.arange(2)
    config = replace(CONFIG, steps=2, batch_size=64, noise=length, learning_rate=1e-9)
    fit_text(x, y, 2, config, 0, tmp_path, Reporting())
    for cosine in seen:
        np.testing.assert_allclose(cosine, 1 / math.sqrt(1 + length**2), atol=0.04)
    assert (length == 0) == (len({round(float(value), 6) for step in seen for value in step}) == 1)


def test_a_pass_learns_from_one_set_and_from_what_is_in_all(tmp_path, monkeypatch):
    x, y = blobs(n=2, per=40)
    sets = torch.tensor(([-1] * 10 + [0] * 10 + [1] * 10 + [2] * 10) * 2)
    drawn = []
    generator = np.random.default_rng

    class Watched:
        def __init__(self, seed):
            self.rng = generator(seed)

        def integers(self, high, size):
            drawn.append(high)
            return self.rng.integers(high, size=size)

    monkeypatch.setattr(classifier.np.random, "default_rng", Watched)
    config = replace(CONFIG, steps=12, batch_size=20)  # 40 rows a set: two steps a pass
    ordered, _ = fit_text(x, y, 2, config, 0, tmp_path, Reporting(), sets=sets)
    assert set(drawn) == {40}
    monkeypatch.setattr(classifier, "class_means", lambda x, y, n: torch.eye(2, 16))  # the start is not what is tested

    def learnt(x, steps, name):
        (tmp_path / name).mkdir()
        return fit_text(x, y, 2, replace(config, steps=steps), 0, tmp_path / name, Reporting(), sets=sets)[0]

    # two steps of set 0, two of set 1, two of set 2: a change in one is learnt from when its turn comes, and not before
    for number, unaware in enumerate((0, 2, 4)):
        marked = x.clone()
        marked[sets == number] = -marked[sets == number]
        for steps in (unaware, unaware + 2):
            same = torch.equal(learnt(x, steps, f"{number}.{steps}"), learnt(marked, steps, f"{number}.{steps}.marked"))
            assert same == (steps == unaware), (number, steps)


def test_a_probe_needs_two_labels():
    with pytest.raises(ClepError, match="two labels"):
        fit_audio(np.zeros((3, 2), np.float32), np.array([1, 1, 1]), ("a", "b"))


def test_only_the_weight_learns_and_a_killed_training_goes_on(tmp_path, ticking):
    x, y = blobs()
    before = x.clone()
    whole, _ = fit_text(x, y, 4, CONFIG, 0, tmp_path, Reporting())
    assert torch.equal(x, before)

    def kill(done, total):
        if done == 33:
            raise KeyboardInterrupt

    folder = tmp_path / "broken"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        fit_text(x, y, 4, CONFIG, 0, folder, Reporting(progress=kill), ticking(20))
    assert (folder / "training.resume").exists()
    resumed, _ = fit_text(x, y, 4, CONFIG, 0, folder, Reporting())
    assert torch.equal(resumed, whole)


def test_softmax_is_another_loss(tmp_path):
    x, y = blobs(spread=0.3)
    arc, _ = fit_text(x, y, 4, CONFIG, 0, tmp_path, Reporting())
    (tmp_path / "b").mkdir()
    soft, figures = fit_text(x, y, 4, replace(CONFIG, loss="softmax"), 0, tmp_path / "b", Reporting())
    assert not torch.equal(arc, soft)
    assert figures["text_accuracy"] > 0.9


def test_source_mean_weighs_corpora_and_classes_equally():
    x = np.array([[0.0], [0.0], [0.0], [4.0], [8.0]], dtype=np.float32)
    y, corpora = np.array([0, 0, 0, 1, 0]), ["a", "a", "a", "a", "b"]
    assert classifier.source_mean(x, y, corpora)[0] == pytest.approx(((0 + 4) / 2 + 8) / 2)


def test_weights_give_every_corpus_and_class_the_same():
    y, corpora = np.array([0, 0, 0, 1, 0, 1]), ["a", "a", "a", "a", "b", "b"]
    np.testing.assert_allclose(classifier.balanced_weights(y, corpora), [1 / 12, 1 / 12, 1 / 12, 1 / 4, 1 / 4, 1 / 4])


def test_temperature_is_the_best_one():
    x, y = blobs(spread=0.4)
    weight = torch.stack([x[y == n].mean(0) for n in range(4)])
    head = Head(labels=tuple("abcd"), cosine=True, weight=weight, bias=torch.zeros(4), mean=torch.zeros(16))
    corpora = ["a"] * len(y)
    found = classifier.fit_temperature(head, x.numpy(), y.numpy(), corpora)

    def nll(log_temperature):
        p = replace(head, log_temperature=log_temperature).probabilities(x.numpy())
        return -np.log(p[np.arange(len(y)), y.numpy()]).mean()

    grid = np.linspace(0, math.log(100), 200)
    assert nll(found) <= min(map(nll, grid)) + 1e-6
    assert 0 <= found <= math.log(100)


def test_logistic_head_equals_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x, y = (t.numpy()[15:] for t in blobs(spread=0.4))  # 5 of the first class, 20 of each other one
    head = fit_audio(x, y, tuple("abcd"))
    scaled = StandardScaler().fit_transform(x)
    peer = LogisticRegression(max_iter=2000, class_weight="balanced").fit(scaled, y)
    np.testing.assert_allclose(head.probabilities(x), peer.predict_proba(scaled), atol=1e-3)


def test_logistic_head_never_predicts_a_label_it_has_not_seen():
    x, y = (t.numpy() for t in blobs(n=2))
    head = fit_audio(x, y + 1, tuple("abcd"))
    p = head.probabilities(x)
    assert (p.argmax(1) == y + 1).mean() > 0.95
    assert p[:, [0, 3]].max() < 1e-9


def test_majority_gives_the_label_frequencies():
    head = majority(np.array([0, 0, 0, 1]), ("a", "b", "c"), 5)
    p = head.probabilities(np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32))
    np.testing.assert_allclose(p, [[0.75, 0.25, 0.0]] * 3, atol=1e-4)


def test_head_survives_the_disk(tmp_path):
    x, y = (t.numpy() for t in blobs())
    head = fit_audio(x, y, tuple("abcd"))
    digest = head.save(tmp_path)
    loaded = heads.load_head(tmp_path)
    np.testing.assert_array_equal(loaded.probabilities(x), head.probabilities(x))
    assert loaded.save(tmp_path / ".") == digest
    (tmp_path / "head.json").write_text("{}")
    with pytest.raises(StoreError):
        heads.load_head(tmp_path)


def test_a_damaged_head_of_the_same_size_is_named(tmp_path):
    head = Head(labels=("a", "b"), cosine=False, weight=torch.ones(2, 3), bias=torch.zeros(2), mean=torch.zeros(3))
    head.save(tmp_path)
    path = tmp_path / "head.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\xff\xff\xff\xff")  # a float32 that is none
    with pytest.raises(StoreError, match=r"(?s)not finite.*weight.*head.safetensors.*clep-dg verify"):
        heads.load_head(tmp_path)


def test_a_probe_does_not_depend_on_how_sums_are_rounded():
    # Another order of the utterances rounds sums otherwise, as another processor or number of threads does.
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 600)
    x = rng.normal(0, 1, (600, 8)) + 0.3 * np.eye(8)[y]
    x = (x @ rng.normal(0, 1, (8, 256)) + rng.normal(0, 0.05, (600, 256))).astype(
        np.float32
    )  # as correlated as log-mels
    order = rng.permutation(600)
    one, other = fit_audio(x, y, tuple("abcd")), fit_audio(x[order], y[order], tuple("abcd"))
    np.testing.assert_allclose(one.weight, other.weight, atol=1e-6)
    np.testing.assert_allclose(one.bias, other.bias, atol=1e-6)
