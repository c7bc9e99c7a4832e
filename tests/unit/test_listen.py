"""Protects the errors that a report plays: which they are, how much of them, and that licences are kept."""

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from clepdg.audio.excerpts import as_data_uri, excerpt
from clepdg.audio.io import Waveform
from clepdg.corpora.cards import corpus_names, load_card
from clepdg.report.sections.listen import add_audio, choose, listen, method, shown_folds

LABELS = ("angry", "sad")
FOLD = "leave-out-tess"
ROWS = {"log-mel": "floor", "clep-zero-shot": "CLEP zero-shot"}
CARD = {"title": "T", "licence": "L <1>", "citation": "C", "homepage": "https://tess", "licence_allows_sharing": True}


def line(number: int, speaker: str, true: str, angry: float, **others: Any) -> dict[str, Any]:
    found = {
        "utterance_id": f"tess/{number}",
        "corpus": "tess",
        "speaker": f"tess/{speaker}",
        "split": "test",
        "fold": FOLD,
        "row": "clep-zero-shot",
        "condition": "clean",
        "seed": "c0",
        "true": true,
        "predicted": "angry" if angry > 0.5 else "sad",
        "p_angry": angry,
        "p_sad": 1 - angry,
    }
    return found | others


PREDICTIONS = pd.DataFrame(
    [
        line(1, "a", "angry", 0.9),
        line(2, "b", "angry", 0.8),
        line(3, "a", "angry", 0.01),
        line(4, "a", "angry", 0.02),
        line(5, "b", "angry", 0.3),
        line(6, "b", "sad", 0.1),
        line(7, "a", "sad", 0.0, seed="c1"),
        line(8, "a", "sad", 0.0, condition="white-10dB"),
        line(9, "a", "sad", 0.0, row="log-mel"),
        line(10, "a", "sad", 0.0, fold="supervised"),
    ]
)
NAMES = {"supervised": LABELS, FOLD: LABELS}


def noise(seconds: float, rate: int = 16000) -> Waveform:
    return (0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate))).astype(np.float32)


def read(corpus: str, utterance_id: str) -> tuple[Waveform, int]:
    return noise(1.0), 16000


def test_the_surest_mistakes_come_first_of_different_speakers_where_there_are() -> None:
    found = [(each.true, each.predicted, each.utterance_id) for each in choose(PREDICTIONS, NAMES, "clep-zero-shot")]
    assert found == [
        ("angry", "sad", "tess/3"),  # of speaker a; tess/4 is surer than tess/5, but of the same speaker
        ("angry", "sad", "tess/5"),
        ("angry", "angry", "tess/1"),
        ("sad", "sad", "tess/6"),  # other seeds, conditions, rows and folds are left out
    ]


def test_the_method_is_the_main_one_if_the_run_has_it() -> None:
    assert method({**ROWS, "text-acpt": "ACPT"}) == "text-acpt"
    assert method(ROWS) == "clep-zero-shot"
    assert method({"log-mel": "floor"}) == "log-mel"


@pytest.mark.parametrize(
    ("folds", "shown"),
    [
        (["supervised", "leave-out-a", "leave-out-b"], ["leave-out-a", "leave-out-b"]),
        (["supervised", "from-a-to-b"], ["from-a-to-b"]),
        (["supervised"], ["supervised"]),
        ([], []),
    ],
)
def test_folds_that_leave_a_corpus_out_are_shown_else_what_there_is(folds: list[str], shown: list[str]) -> None:
    assert shown_folds(folds) == shown


def test_the_section_plays_excerpts_with_their_licence_and_escapes_texts() -> None:
    section = listen(PREDICTIONS, NAMES, ROWS, {"tess": CARD}, {"tess/3": "say <b>"}, read)
    assert section is not None
    assert section.html.count('<audio controls preload="none" src="data:audio/mpeg;base64,') == 4
    assert "“say &lt;b&gt;”" in section.html and "L &lt;1&gt;" in section.html and "https://tess" in section.html
    assert listen(PREDICTIONS, NAMES, ROWS, {"tess": CARD}, {"tess/3": "say <b>"}, read) == section
    assert listen(PREDICTIONS[:0], {}, ROWS, {}, {}, read) is None


def test_no_audio_is_read_of_a_corpus_whose_licence_does_not_allow_it() -> None:
    def refuse(corpus: str, utterance_id: str) -> tuple[Waveform, int]:
        raise AssertionError(utterance_id)

    section = listen(PREDICTIONS, NAMES, ROWS, {"tess": {**CARD, "licence_allows_sharing": False}}, {}, refuse)
    assert section is not None
    assert "<audio" not in section.html and "tess/3" in section.html
    assert "does not say that its licence allows to share excerpts" in section.html


def test_a_page_of_bounded_size_plays_a_mistake_of_every_class_first() -> None:
    examples = list(choose(PREDICTIONS, NAMES, "clep-zero-shot"))
    size = len(as_data_uri(excerpt(*read("", ""))))
    assert [bool(each.audio) for each in add_audio(examples, {"tess"}, read, 2 * size)] == [True, False, True, False]
    assert [bool(each.audio) for each in add_audio(examples, {"tess"}, read, size - 1)] == [False] * 4


def test_an_excerpt_is_the_active_part_of_at_most_4_s() -> None:
    silence = np.zeros(16000, np.float32)
    found = excerpt(np.concatenate([silence, noise(1.0), silence]), 16000)
    assert 16000 <= len(found) <= 16000 + 2 * 6 * 320
    loud = 4 * noise(2.0)
    long = np.concatenate([noise(5.0), loud, noise(5.0)])
    found = excerpt(long, 16000)
    assert len(found) == 4 * 16000
    assert np.square(found).sum() >= np.square(loud).sum()
    assert len(excerpt(noise(0.005), 16000)) == 80


def test_an_excerpt_is_mp3_with_the_same_bytes_each_time() -> None:
    uri = as_data_uri(noise(2.0))
    assert uri == as_data_uri(noise(2.0))
    kind, _, data = uri.partition(";base64,")
    decoded, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
    assert kind == "data:audio/mpeg" and rate == 16000 and abs(len(decoded) / rate - 2.0) < 0.2
    assert len(uri) < 25_000


def test_only_these_cards_allow_to_share_excerpts() -> None:
    allowed = {name for name in corpus_names() if load_card(name).licence_allows_sharing}
    assert allowed == {"ravdess", "crema-d", "tess", *(f"synthetic-{n}" for n in range(1, 6))}
