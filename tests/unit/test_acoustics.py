"""Protects the look at contexts and acoustics: found where it was planted, and only by chance where it was not."""

import numpy as np
import pytest

from clepdg.evaluation.context_geometry import DIRECTIONS, random_share, rank_names, subspace_share

KINDS = ("white", "hum", "babble", "telephone", "room-long", "room-short")
CONTEXTS = tuple(f"context {n}" for n in range(16))
NAMES = dict(zip(KINDS, CONTEXTS, strict=False))


@pytest.fixture
def directions():
    return np.random.default_rng(0).standard_normal((16, 64))


def audio(directions, order=range(6), noise=1.0, seed=1):
    rng = np.random.default_rng(seed)
    return {kind: directions[n] + noise * rng.standard_normal((40, 64)) for kind, n in zip(KINDS, order, strict=True)}


def text(directions, noise=1.0, seed=2):
    rng = np.random.default_rng(seed)
    return directions[:, None] + noise * rng.standard_normal((16, 4, 64))


def test_contexts_that_name_their_corruption_rank_first(directions):
    found = rank_names(audio(directions), text(directions), CONTEXTS, NAMES)
    assert found.ranks == dict.fromkeys(KINDS, 1)
    assert (found.mean_rank, found.contexts) == (1.0, 16)
    assert found.p < 0.001


def test_what_all_contexts_share_does_not_rank_them():
    """Nor how much of a context is its own: beside a large shared move, those that differ most would rank first."""
    basis = np.eye(64)
    moves = {kind: (basis[n] + 0.5 * basis[6 + n])[None] for kind, n in zip(KINDS, range(6), strict=True)}
    own = basis[:16] * np.where(np.arange(16) < 6, 1.0, 3.0)[:, None]  # those that name a corruption are fainter
    for shared in (0.0, 10.0):
        found = rank_names(moves, (own + shared * basis[16])[:, None], CONTEXTS, NAMES)
        assert found.ranks == dict.fromkeys(KINDS, 1), shared


def test_neither_one_loud_utterance_nor_one_emotion_decides(directions):
    moves, words = audio(directions), text(directions)
    for n, kind in enumerate(KINDS):
        moves[kind][0] = 1000 * directions[n + 6]
    words[:, 0] = 1000 * np.roll(directions, 1, axis=0)
    assert rank_names(moves, words, CONTEXTS, NAMES).ranks == dict.fromkeys(KINDS, 1)


def test_p_is_the_share_of_all_deals_with_as_high_a_mean_rank():
    basis = np.eye(64)[:16]

    def p(**ranks):  # of each corruption's own context; the others follow in their order
        order = {kind: np.roll(np.arange(16), KINDS.index(kind) + 1 - rank) for kind, rank in ranks.items()}
        moves = {kind: -own[None].astype(float) @ basis for kind, own in order.items()}
        found = rank_names(moves, basis[:, None], CONTEXTS, NAMES)
        assert found.ranks == ranks
        return found.p

    assert p(white=1) == pytest.approx(1 / 16, abs=0.01)
    assert p(hum=5) == pytest.approx(5 / 16, abs=0.01)
    assert p(white=16) == 1.0
    assert p(white=1, hum=1) == pytest.approx(1 / (16 * 15), abs=0.002)


def test_names_dealt_wrongly_are_told_by_chance_alone(directions):
    found = [
        rank_names(
            audio(directions, np.random.default_rng(seed).permutation(16)[:6]), text(directions), CONTEXTS, NAMES
        )
        for seed in range(40)
    ]
    assert 6.0 < np.mean([names.mean_rank for names in found]) < 11.0  # 8.5 by chance
    assert np.mean([names.p < 0.05 for names in found]) < 0.25


def test_corruptions_without_a_context_are_passed_over(directions):
    moves = audio(directions)
    assert set(rank_names(moves, text(directions), CONTEXTS, {"hum": "context 1"}).ranks) == {"hum"}
    assert rank_names(moves, text(directions), CONTEXTS, {}) is None


def test_the_share_of_a_planted_subspace_is_found():
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((DIRECTIONS, 64))
    inside = rng.standard_normal((50, DIRECTIONS)) @ basis
    assert subspace_share(inside, rng.standard_normal((16, 4, DIRECTIONS)) @ basis) == pytest.approx(1.0)
    mean, high = random_share(inside)
    assert mean == pytest.approx(DIRECTIONS / 64, abs=0.03)
    assert mean < high < 0.4


def test_random_moves_have_the_share_of_a_random_subspace():
    rng = np.random.default_rng(3)
    moves = rng.standard_normal((200, 64))
    share = subspace_share(moves, rng.standard_normal((16, 4, 64)))
    assert share == pytest.approx(DIRECTIONS / 64, abs=0.04)
