"""Protects training in chunks: gradients of the whole batch, in the memory of a chunk, and keys of runs without it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clepdg.config.presets import build, demo
from clepdg.config.schema import ClepConfig
from clepdg.errors import ConfigError
from clepdg.hashing import digest, plain
from clepdg.method.contrastive import contrastive_loss, targets
from clepdg.method.inputs import batch_audio
from clepdg.method.inputs.batch_audio import BatchAudio
from clepdg.method.weights import train_mode, trainable_groups
from tests.clap import build_small_clap

BATCH = np.array([0, 3, 5, 6, 9, 12, 14, 15])
CONFIG = replace(demo().clep, batch_size=len(BATCH), from_scratch=False)


def gradients(clap, utterances, config, dropout):
    """Return the gradients of a step of CLEP's loss by name, and the sizes of what was encoded at once."""
    trainable_groups(clap, config)
    clap.model.zero_grad()
    train_mode(clap, config)
    if not dropout:
        clap.model.eval()
    audio, sizes, encode = BatchAudio(clap, utterances, config, 0, ()), [], clap.encode_log_mel

    def counting(log_mels):
        sizes.append(len(log_mels))
        return encode(log_mels)

    clap.encode_log_mel = counting
    try:
        torch.manual_seed(0)
        features = audio.encode(BATCH, audio.load(0, BATCH))
        labels = torch.from_numpy((utterances.emotion == "sad").to_numpy()[BATCH].astype(int))
        captions = torch.nn.functional.normalize(torch.randn(2, features.shape[1]), dim=1)[labels]
        loss, _ = contrastive_loss(10 * features @ captions.T, targets(labels, "emotion"))
        loss.backward()
    finally:
        del clap.encode_log_mel
    return {name: p.grad for name, p in clap.model.named_parameters() if p.grad is not None}, sizes


@pytest.mark.parametrize("build_clap", ["micro", "HTSAT", "augmented"])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_are_those_of_the_whole_batch(micro_factory, utterances, monkeypatch, build_clap, dropout):
    clap = build_small_clap() if build_clap == "HTSAT" else micro_factory()
    config = replace(CONFIG, augment=build_clap == "augmented")
    chunked, sizes = gradients(clap, utterances, replace(config, chunk=3), dropout)
    assert sizes in ([3, 3, 2, 2, 3, 3], [3, 3, 2, 3, 3, 2])  # each chunk twice
    if dropout:  # the same masks, with the graph of the whole batch
        monkeypatch.setattr(batch_audio, "checkpoint", lambda function, *given, **_: function(*given))
        whole, _ = gradients(clap, utterances, replace(config, chunk=3), dropout)
    else:
        whole, sizes = gradients(clap, utterances, config, dropout)
        assert sizes == [8]
    assert set(chunked) == set(whole) and max(float(g.abs().max()) for g in whole.values()) > 0.01
    for name, gradient in whole.items():
        torch.testing.assert_close(
            chunked[name], gradient, atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_a_chunk_as_large_as_the_batch_is_the_batch(micro_factory, utterances):
    clap = micro_factory()
    found = [gradients(clap, utterances, replace(CONFIG, chunk=chunk), True) for chunk in (None, 8, 100)]
    assert [sizes for _, sizes in found] == [[8]] * 3
    assert all(torch.equal(found[0][0][name], gradient) for other, _ in found[1:] for name, gradient in other.items())


def test_what_waits_for_gradients_is_no_more_than_a_chunk(micro_factory, utterances):
    clap, kept = micro_factory(), {}
    for chunk in (None, 2):
        packed = []
        audio = BatchAudio(clap, utterances, replace(CONFIG, chunk=chunk), 0, ())
        with torch.autograd.graph.saved_tensors_hooks(lambda x, to=packed: to.append(x.nbytes) or x, lambda x: x):
            audio.encode(BATCH, audio.load(0, BATCH))
        kept[chunk] = sum(packed)
    assert kept[2] == len(BATCH) * 256 * 64 * 4 < kept[None] / 10  # the log-mels alone, as float32


def test_keys_hold_it_only_where_it_is_set():
    assert "chunk" not in plain(ClepConfig()) and "chunk" not in plain(build("open"))["clep"]
    assert plain(replace(ClepConfig(), chunk=4))["chunk"] == 4
    unset, sized = ClepConfig(), build("open", overrides={"clep.chunk": "4"}).clep
    assert digest({"clep": unset}) == digest({"clep": plain(unset)}) != digest({"clep": sized})
    assert plain(build("open"))["encoder"]["name"] is None  # others that are None stay
    assert build("open", overrides={"clep.chunk": "none"}).clep == unset
    with pytest.raises(ConfigError, match=r"clep\.chunk"):
        build("open", overrides={"clep.chunk": "0"})
