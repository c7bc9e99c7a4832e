"""Protects users of transformers: a saved CLEP gives this library's embeddings in their classes and pipelines."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from clepdg.audio.frontend import LAION_FRONT_END, MICRO_FRONT_END
from clepdg.models.clap import Clap, load_clap
from clepdg.models.feature_extractor import extractor_settings
from tests.rehearsal.clap import make_clap

TEXTS = ["this is an angry voice", "happy speech"]


@pytest.fixture(scope="module")
def clap(tmp_path_factory) -> Clap:
    """Return a CLAP as laion/clap-htsat-unfused, small and with random weights."""
    return load_clap(make_clap(tmp_path_factory.mktemp("published"), tiny=True), allow_unknown=True)


@pytest.fixture(scope="module")
def folder(clap, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "a clep"
    clap.save(folder)
    return folder


@pytest.fixture
def speech(tone):
    return [tone(seconds, 48000).astype(np.float32) for seconds in (1.3, 4.0, 10.0)]


def features(output) -> torch.Tensor:
    return torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1)


@pytest.mark.parametrize("processor", ["ClapProcessor", "AutoProcessor"])
@torch.no_grad()
def test_transformers_gives_the_same_embeddings(clap, folder, speech, processor):
    import transformers

    model = transformers.ClapModel.from_pretrained(folder).eval()
    prepare = getattr(transformers, processor).from_pretrained(folder)
    heard = prepare(audio=speech, sampling_rate=48000, return_tensors="pt")
    ours = clap.encode_waveforms([(each, 48000) for each in speech])
    assert_close(features(model.get_audio_features(**heard)), ours, rtol=0, atol=1e-6)
    read = prepare(text=TEXTS, padding=True, return_tensors="pt")
    assert_close(features(model.get_text_features(**read)), clap.encode_text(TEXTS), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_pipeline_gives_the_same_shares(clap, folder, speech):
    from transformers import pipeline

    classify = pipeline("zero-shot-audio-classification", model=str(folder))
    found = {
        each["label"]: each["score"] for each in classify(speech[0], candidate_labels=TEXTS, hypothesis_template="{}")
    }
    cosine = clap.encode_waveforms([(speech[0], 48000)]) @ clap.encode_text(TEXTS).T
    ours = (clap.logit_scale.exp() * cosine).softmax(-1)[0]
    assert_close(torch.tensor([found[text] for text in TEXTS]), ours, rtol=0, atol=1e-5)


def test_equal_models_have_equal_bytes(clap, folder, tmp_path):
    load_clap(folder).save(tmp_path)
    for path in sorted(folder.iterdir()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    "front_end",
    [
        MICRO_FRONT_END,
        replace(LAION_FRONT_END, normalise=True),
        replace(LAION_FRONT_END, fill="repeat"),
        replace(LAION_FRONT_END, seconds=2.5),
        replace(LAION_FRONT_END, frames=1000),
    ],
)
def test_a_front_end_that_their_class_lacks_is_not_said_to_be_theirs(clap, tmp_path, front_end):
    assert extractor_settings(front_end) is None
    Clap(clap.model, clap.tokenizer, front_end).save(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    assert json.loads((tmp_path / "front_end.json").read_text())["fill"] == front_end.fill
