"""Protects CLEP's loss and sampler: against plain loops, and the identities between its targets."""

import math

import numpy as np
import pytest
import torch

from clepdg.method.contrastive import contrastive_loss, draw_batch, equal_captions, targets


def plain_loss(logits, q):
    """The definition, number by number: 1/2 [CE(L, Q) + CE(L^T, rownorm(Q^T))]."""
    b = len(logits)
    total = 0.0
    for table, weight in ((logits, q), (logits.T, (q.T / q.T.sum(1, keepdims=True)))):
        for i in range(b):
            floor = math.log(sum(math.exp(table[i][j]) for j in range(b)))
            total -= sum(weight[i][j] * (table[i][j] - floor) for j in range(b)) / b / 2
    return total


@pytest.mark.parametrize("kind", ["emotion", "instance"])
def test_loss_equals_a_plain_loop(kind):
    torch.manual_seed(0)
    y = torch.tensor([0, 1, 1, 2, 0, 1])
    logits = 3 * torch.randn(6, 6, dtype=torch.float64)
    q = targets(y, kind).double()
    torch.testing.assert_close(q.sum(1), torch.ones(6, dtype=torch.float64))
    loss, _ = contrastive_loss(logits, q)
    assert loss.item() == pytest.approx(plain_loss(logits.numpy(), q.numpy()), abs=1e-9)


def test_attribute_targets_equal_a_plain_loop():
    torch.manual_seed(0)
    y = torch.tensor([0, 1, 1, 2, 0, 1, 0])
    true = (torch.rand(7, 7) > 0.5) | torch.eye(7, dtype=torch.bool)
    q = targets(y, "attribute", true=true)
    for i in range(7):
        matching = [j for j in range(7) if y[i] == y[j] and true[i, j]]
        assert [j for j in range(7) if q[i, j] > 0] == matching
        assert q[i, matching].tolist() == pytest.approx([1 / len(matching)] * len(matching))
    logits = 3 * torch.randn(7, 7, dtype=torch.float64)
    assert contrastive_loss(logits, q.double())[0].item() == pytest.approx(
        plain_loss(logits.numpy(), q.double().numpy()), abs=1e-9
    )


def test_attribute_is_emotion_where_captions_say_nothing_and_instance_where_all_differ():
    y = torch.tensor([0, 1, 1, 2, 0, 1])
    everything = torch.ones(6, 6, dtype=torch.bool)
    assert torch.equal(targets(y, "attribute", true=everything), targets(y, "emotion"))
    assert torch.equal(targets(y, "attribute", true=torch.eye(6, dtype=torch.bool)), targets(y, "instance"))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_soft_targets_equal_a_plain_loop(share):
    torch.manual_seed(0)
    y = torch.tensor([0, 1, 1, 2, 0, 1])
    p = torch.nn.functional.normalize(torch.randn(3, 8, dtype=torch.float64), dim=1)
    q = targets(y, "soft", similarity=p @ p.T / 0.1, share=share)
    for i in range(6):
        odds = [math.exp(float(p[y[i]] @ p[y[j]]) / 0.1) for j in range(6)]
        same = sum(bool(y[i] == y[j]) for j in range(6))
        expected = [(1 - share) * bool(y[i] == y[j]) / same + share * odds[j] / sum(odds) for j in range(6)]
        assert q[i].tolist() == pytest.approx(expected, abs=1e-6)
    assert q.sum(1).tolist() == pytest.approx([1.0] * 6)
    logits = 3 * torch.randn(6, 6, dtype=torch.float64)
    assert contrastive_loss(logits, q)[0].item() == pytest.approx(plain_loss(logits.numpy(), q.numpy()), abs=1e-9)


def test_soft_is_even_where_the_backbone_tells_no_emotions_apart():
    y = torch.tensor([0, 1, 1, 2])
    q = targets(y, "soft", similarity=torch.full((3, 3), 10.0), share=0.1)
    torch.testing.assert_close(q, 0.9 * targets(y, "emotion") + 0.1 / 4)


def test_floor_is_reached_by_the_best_logits():
    q = targets(torch.tensor([0, 1, 1, 0, 1]), "emotion").double()
    loss, floor = contrastive_loss(torch.where(q > 0, 40.0, -40.0).double(), q)
    assert floor.item() > 0.5
    assert loss.item() == pytest.approx(floor.item(), abs=1e-6)


def test_instance_and_emotion_agree_where_captions_are_equal():
    """With one identical caption per class, both targets have the same value and the same gradient for the audio."""
    torch.manual_seed(1)
    y = torch.tensor([0, 1, 1, 2, 0, 1])
    text = torch.nn.functional.normalize(torch.randn(3, 8, dtype=torch.float64), dim=1)[y]
    results = []
    for kind in ("emotion", "instance"):
        audio = torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(6, 8).requires_grad_()
        loss = -(targets(y, kind).double() * torch.log_softmax(5 * audio @ text.T, dim=1)).sum(1).mean()
        loss.backward()
        results.append((loss.item(), audio.grad))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-6, rtol=0)


def test_equal_captions_do_not_count_as_negatives():
    captions = ["a", "b", "a", "c"]
    mask = equal_captions(captions)
    assert mask.nonzero().tolist() == [[0, 2], [2, 0]]
    logits = torch.randn(4, 4, requires_grad=True)
    loss, floor = contrastive_loss(logits, targets(torch.arange(4), "instance"), mask)
    loss.backward()
    assert torch.isfinite(loss)
    assert floor == 0
    assert logits.grad[0, 2] == logits.grad[2, 0] == 0
    assert (logits.grad[0, [0, 1, 3]] != 0).all()


def test_sampler_is_uniform_over_corpora_then_emotions_and_repeats_nothing():
    groups = [[np.arange(0, 90), np.arange(90, 100)], [np.arange(100, 110), np.arange(110, 120)]]
    drawn = [draw_batch(groups, 7, step, 8) for step in range(1500)]
    assert all(len(set(batch)) == 8 for batch in drawn)
    flat = np.concatenate(drawn)
    assert np.mean(flat < 100) == pytest.approx(0.5, abs=0.03)
    assert np.mean(flat < 90) == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(draw_batch(groups, 7, 3, 8), drawn[3])
    assert not np.array_equal(draw_batch(groups, 8, 3, 8), drawn[3])


def test_sampler_takes_all_when_there_are_few():
    assert sorted(draw_batch([[np.arange(3)], [np.arange(3, 5)]], 0, 0, 32)) == [0, 1, 2, 3, 4]
