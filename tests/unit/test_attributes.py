"""Protects what captions say beside the emotion: pitch of tones, thirds within groups, and what is true of whom."""

import numpy as np
import pandas as pd
import pytest

from clepdg import prompts
from clepdg.method import caption_attributes


@pytest.mark.parametrize("hertz", [75.0, 110.0, 160.0, 230.0, 330.0, 450.0])
def test_pitch_of_tones_of_every_make(hertz):
    time = np.arange(16000) / 16000
    rng = np.random.default_rng(0)
    voice = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, 8))
    without_fundamental = voice - np.sin(2 * np.pi * hertz * time)
    for wave in (np.sin(2 * np.pi * hertz * time), voice, without_fundamental, voice + rng.normal(0, 0.3, len(time))):
        assert caption_attributes.pitch_hz(wave.astype(np.float32), 16000) == pytest.approx(hertz, rel=0.01)


def test_pitch_is_that_of_the_voiced_frames():
    time = np.arange(8000) / 16000
    tone = np.sin(2 * np.pi * 180 * time)
    hiss = np.random.default_rng(0).normal(0, 0.5, 12000)
    assert caption_attributes.pitch_hz(np.concatenate([hiss, tone]).astype(np.float32), 16000) == pytest.approx(
        180, rel=0.01
    )


@pytest.mark.parametrize("wave", [np.zeros(16000), np.random.default_rng(0).normal(0, 0.3, 16000), np.ones(100)])
def test_what_is_not_voiced_has_no_pitch(wave):
    assert caption_attributes.pitch_hz(wave.astype(np.float32), 16000) is None


def test_thirds_are_those_of_the_group():
    values = [100.0, 200.0, 110.0, 210.0, 120.0, 220.0, None, 5.0]
    groups = ["male", "female"] * 3 + ["male", None]
    found = caption_attributes.thirds(values, groups, ("low", "medium", "high"))
    assert found[:6] == ["low", "low", "medium", "medium", "high", "high"]
    assert found[6] is None
    assert found[7] in ("low", "medium", "high")  # of its own group of one


def test_equal_values_share_a_third():
    assert set(caption_attributes.thirds([3.0] * 5, [None] * 5, ("low", "medium", "high"))) == {"low"}


def test_describe_takes_pace_from_transcripts_and_leaves_out_what_is_unknown(monkeypatch):
    monkeypatch.setattr(caption_attributes, "read_waveform", lambda *where: (np.zeros(16000, np.float32), 16000))
    train = pd.DataFrame(
        {
            "gender": ["female", None, "male"],
            "transcript": ["ab", "a b c d!", None],
            "num_samples": [48000] * 3,
            "sample_rate": [48000] * 3,
            **{name: [""] * 3 for name in ("folder", "tar", "offset", "bytes")},
        }
    )
    assert caption_attributes.measure_attributes(train) == [
        {"gender": "female", "pace": "slow"},
        {"pace": "fast"},
        {"gender": "male"},
    ]


def test_pitch_is_low_or_high_for_a_voice_of_that_gender(monkeypatch):
    """The lowest of the women's voices is above the highest of the men's."""
    time = np.arange(16000) / 16000
    monkeypatch.setattr(
        caption_attributes, "read_waveform", lambda folder, tar, hertz, size: (np.sin(2 * np.pi * hertz * time), 16000)
    )
    hertz = {"male": [90, 110, 130], "female": [180, 220, 260]}
    rows = [{"gender": gender, "offset": pitch} for gender, pitches in hertz.items() for pitch in pitches]
    facts = {"transcript": None, "num_samples": 16000, "sample_rate": 16000, "folder": "", "tar": "", "bytes": 0}
    described = caption_attributes.measure_attributes(pd.DataFrame(rows).assign(**facts))
    assert [known["pitch"] for known in described] == ["low", "medium", "high"] * 2


def test_captions_say_what_is_so_and_are_true_of_whom_it_is_so():
    known = [
        {"gender": "female", "pitch": "high"},
        {"gender": "female", "pitch": "low"},
        {"gender": "female"},
        {},
    ]
    texts = ["a", "b", "c", "d"]
    seen = set()
    for seed in range(40):
        captions, true = caption_attributes.draw_captions(texts, known, np.random.default_rng(seed))
        for j, caption in enumerate(captions):
            text, *phrases = caption.split(", ")
            assert text == texts[j]
            said = {n: v for n, v in known[j].items() if prompts.ATTRIBUTE_PHRASES[n][v] in phrases}
            assert len(said) == len(phrases)
            seen.add((j, tuple(said)))
            for i, own in enumerate(known):
                assert bool(true[i, j]) == all(own.get(name) == value for name, value in said.items())
        assert true.diagonal().all()
    assert len(seen) == 4 + 4 + 2 + 1  # every choice of attributes comes up


def test_every_phrase_is_in_micros_word_list():
    words = set(prompts.vocabulary())
    for phrases in prompts.ATTRIBUTE_PHRASES.values():
        assert {word for phrase in phrases.values() for word in phrase.split()} <= words


def test_no_template_context_or_phrase_holds_a_word_of_an_emotion():
    """An emotion that is left out would otherwise be met in the others' captions."""
    emotional = {word for group in prompts.EMOTION_WORDS.values() for word in group}
    texts = [
        *prompts.CAPTION_TEMPLATES,
        *prompts.HANDWRITTEN_CONTEXTS,
        *prompts.NONACOUSTIC_CONTEXTS,
        *(phrase for phrases in prompts.ATTRIBUTE_PHRASES.values() for phrase in phrases.values()),
    ]
    assert not {word for text in texts for word in prompts.words(text)} & emotional
    every = [word for group in prompts.EMOTION_WORDS.values() for word in group]
    assert len(every) == len(set(every))
