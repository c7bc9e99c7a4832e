"""Protects text embeddings of rivals: noise matched in norm, contexts redrawn from (seed, set), and context effects."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clepdg import prompts
from clepdg.config.schema import AcptConfig, TextConfig
from clepdg.emotions import EMOTIONS, labels
from clepdg.method import acpt, audio_embeddings, text_embeddings
from clepdg.method.context_effect import context_effect, effective_rank

CONFIG = TextConfig()
VECTORS = AcptConfig(contexts=5, tokens=2)


@pytest.fixture(scope="module")
def vectors(micro):
    return acpt.initial_vectors(micro, VECTORS, 0)


def test_embeddings_of_several_corpora_are_selected_by_utterance():
    first, second = (np.arange(6, dtype=np.float32).reshape(3, 2) + start for start in (0, 10))
    both = [
        audio_embeddings.AudioEmbeddings(utterance_ids=("a/1", "a/2", "a/3"), embeddings=first),
        audio_embeddings.AudioEmbeddings(utterance_ids=("b/1", "b/2", "b/3"), embeddings=second),
    ]
    np.testing.assert_array_equal(audio_embeddings.select(both, ["b/3", "a/2"]), np.stack([second[2], first[1]]))
    assert audio_embeddings.select(both, []).shape == (0, 2)  # a target without an utterance of the label set


def content(micro):
    texts = [prompts.fill(prompts.CONTENT_TEMPLATE, prompts.class_word(name)) for name in labels("4")]
    with torch.no_grad():
        return micro.encode_text(texts)


def test_noise_is_as_far_from_the_content_as_contexts_are(micro, vectors):
    given = text_embeddings.build_text_embeddings(micro, CONFIG, vectors)
    noise = text_embeddings.build_noise_embeddings(micro, CONFIG, vectors, prompts.CONTENT_TEMPLATE, 0)
    c, moved = content(micro), given.context_index >= 0
    assert torch.equal(noise.embeddings[~moved], given.embeddings[~moved])
    for n, x, u in zip(given.label_index[moved], noise.embeddings[moved], given.embeddings[moved], strict=True):
        assert float((x - c[n]).norm()) == pytest.approx(float((u - c[n]).norm()), abs=1e-6)
        assert float(x.norm()) == pytest.approx(1, abs=1e-6)
    assert noise.label_index.tolist() == given.label_index.tolist()
    same = [float(a @ b) for a, b in zip(noise.embeddings[moved], given.embeddings[moved], strict=True)]
    assert max(same) < 0.999  # another direction


def test_noise_is_a_function_of_its_seed(micro, vectors):
    first, again, other = (
        text_embeddings.build_noise_embeddings(micro, CONFIG, vectors, prompts.CONTENT_TEMPLATE, seed).embeddings
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_redrawn_contexts_are_a_function_of_seed_and_set():
    vectors = torch.randn(400, 2, 3, generator=torch.Generator().manual_seed(0)) * 2 + 5
    three, five = text_embeddings.redraw_contexts(vectors, 0, 3), text_embeddings.redraw_contexts(vectors, 0, 5)
    assert three.shape == (1200, 2, 3)
    assert torch.equal(five[:1200], three)  # a set does not depend on how many there are
    assert not torch.equal(three[:400], three[400:800])
    assert not torch.equal(text_embeddings.redraw_contexts(vectors, 1, 1), three[:400])
    torch.testing.assert_close(five.mean(dim=0), vectors.mean(dim=0), atol=0.3, rtol=0)
    torch.testing.assert_close(five.std(dim=0), vectors.std(dim=0), atol=0.3, rtol=0)


def test_one_prompt_is_the_first_of_the_ensemble(micro):
    one = replace(CONFIG, content_templates=CONFIG.content_templates[:1])
    single, every = (text_embeddings.build_text_embeddings(micro, config, ()) for config in (one, CONFIG))
    torch.testing.assert_close(single.embeddings, every.embeddings[:: len(CONFIG.content_templates)], atol=1e-5, rtol=0)


def test_context_effect_equals_a_plain_loop(micro):
    words = [prompts.class_word(emotion) for emotion in EMOTIONS]
    pairs = [(k, n) for n in range(len(words)) for k in range(16)]
    texts = [
        prompts.fill(prompts.JOINT_TEMPLATE, words[n]).format(context=prompts.HANDWRITTEN_CONTEXTS[k]) for k, n in pairs
    ]
    with torch.no_grad():
        u = dict(zip(pairs, micro.encode_text(texts), strict=True))
        c = micro.encode_text([prompts.fill(prompts.CONTENT_TEMPLATE, word) for word in words])
    shifts = [float((vector - c[n]).norm()) for (_, n), vector in u.items()]
    of_emotion = [torch.stack([u[k, n] for k in range(16)]).mean(0) for n in range(len(words))]
    everything = torch.stack(list(u.values())).mean(0)
    within = sum(float((vector - of_emotion[n]).square().sum()) for (_, n), vector in u.items())
    total = sum(float((vector - everything).square().sum()) for vector in u.values())
    found = context_effect(micro)
    assert found["context_shift"] == pytest.approx(sum(shifts) / len(shifts), abs=1e-4)
    assert found["context_variance_share"] == pytest.approx(within / total, abs=1e-3)
    rows = torch.stack([vector - c[n] for (_, n), vector in u.items()])
    assert found["context_effective_rank"] == pytest.approx(effective_rank(rows), rel=1e-3)


def test_a_model_that_does_not_read_contexts_has_no_context_effect(micro, monkeypatch):
    encode = type(micro).encode_text
    monkeypatch.setattr(type(micro), "encode_text", lambda self, texts: encode(self, [t.split(",")[0] for t in texts]))
    found = context_effect(micro)
    assert found["context_shift"] < 1e-5
    assert found["context_variance_share"] < 1e-6
