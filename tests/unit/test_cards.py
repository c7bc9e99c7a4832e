"""Protects the cards: each agrees with itself, with its grammar and with the canonical emotions."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from clepdg.config import manifests
from clepdg.config.presets import PRESETS
from clepdg.corpora import CORPORA, cards, crema_d, emodb, esd, ravdess, savee
from clepdg.corpora.cards import Split, corpus_names, load_card
from clepdg.corpora.parsing import Utterance
from clepdg.download import file_lists
from clepdg.errors import ConfigError

REAL = ("ravdess", "crema-d", "tess", "emodb", "meld", "iemocap", "msp-podcast", "savee", "esd")
SPEAKERS = {
    "ravdess": {f"{actor:02d}" for actor in range(1, 25)},
    "tess": {"OAF", "YAF"},
    "emodb": set(emodb.GENDERS),
    "crema-d": {str(actor) for actor in range(1001, 1092)},
    "iemocap": {f"Ses0{session}{letter}" for session in range(1, 6) for letter in "FM"},
    "savee": set(savee.SPEAKERS),
    "esd": {f"{speaker:04d}" for speaker in range(1, 21)},
}
RAW_LABELS = {
    "ravdess": set(ravdess.LABELS.values()),
    "tess": {"angry", "disgust", "fear", "happy", "neutral", "ps", "sad"},
    "emodb": set(emodb.LABELS.values()),
    "crema-d": {"ANG", "DIS", "FEA", "HAP", "NEU", "SAD"},
    "meld": {"neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear"},
    "iemocap": {"neu", "ang", "sad", "hap", "exc", "fru", "sur", "fea", "dis", "oth", "xxx"},
    "msp-podcast": {*"ASHUFDCNOX", "hidden"},
    "savee": set(savee.LABELS.values()),
    "esd": set(esd.LABELS.values()),
}
NAMELESS = {"iemocap": {"oth", "xxx"}, "msp-podcast": {"O", "X", "hidden"}}  # labels that name no emotion


def test_every_corpus_of_a_preset_has_a_card() -> None:
    assert {*REAL} | {f"synthetic-{n}" for n in range(1, 6)} <= set(corpus_names())
    assert {name for preset in PRESETS.values() for name in preset().corpora} <= set(corpus_names())


@pytest.mark.parametrize("name", corpus_names())
def test_a_card_agrees_with_itself_and_its_grammar(name: str) -> None:
    card = load_card(name)
    assert card.grammar in CORPORA
    assert set(card.labels) <= RAW_LABELS.get(card.grammar, set(card.labels))
    if card.expected.emotions:
        assert set(card.expected.emotions) == set(card.labels)
        assert sum(card.expected.emotions.values()) == card.expected.utterances
    assert not set(card.split.test) & set(card.split.validation)
    if card.split.unit == "official":
        assert {"train", "validation", "test"} <= set(card.split.parts.values())
    else:
        assert {*card.split.test, *card.split.validation} <= SPEAKERS.get(
            card.grammar, {*card.split.test, *card.split.validation}
        )
        assert card.split.validation or card.split.validation_text_share > 0
    assert card.licence and card.citation and card.title


@pytest.mark.parametrize("name", REAL)
def test_a_real_card_maps_every_label_and_marks_its_evidence(name: str) -> None:
    card = load_card(name)
    assert set(card.labels) == RAW_LABELS[name]
    assert {label for label, emotion in card.labels.items() if not emotion} == NAMELESS.get(name, set())
    if name in SPEAKERS:
        assert card.expected.speakers == len(SPEAKERS[name])
    assert card.faults and all(re.search(r"\[(S|M|mem)\]", fault) for fault in card.faults)
    assert card.sources or card.apply


def test_labels_that_other_corpora_lack_keep_their_emotion() -> None:
    assert load_card("ravdess").labels["calm"] == "calm"
    assert load_card("emodb").labels["boredom"] == "bored"
    assert load_card("tess").labels["ps"] == "surprised"


def test_the_actresses_and_actors_of_crema_d_are_as_many_as_it_says() -> None:
    assert len(crema_d.FEMALE) == 43
    assert crema_d.FEMALE < SPEAKERS["crema-d"]


def test_crema_d_is_taken_file_by_file_under_gits_sums() -> None:
    card = load_card("crema-d")
    files = file_lists.list_address(card, card.sources[0])
    assert len(files) == card.expected.utterances == 7442
    assert sum(file.address.bytes or 0 for file in files) == 605_899_936
    assert all(re.fullmatch(r"[0-9a-f]{64}", file.address.sha256 or "") for file in files)
    assert all(isinstance(crema_d.parse(file.path), Utterance) for file in files)


def test_a_checksum_has_the_length_of_its_kind() -> None:
    for name in REAL:
        for address in load_card(name).sources:
            assert address.md5 is None or re.fullmatch(r"[0-9a-f]{32}", address.md5)
            assert address.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", address.sha256)


def test_a_split_by_text_keeps_a_text_in_one_part_and_near_its_share() -> None:
    split = Split(unit="text", test=("YAF",), validation_text_share=0.2)
    words = [f"word{n}" for n in range(2000)]
    share = sum(split.part("OAF", word) == "validation" for word in words) / len(words)
    assert share == pytest.approx(0.2, abs=0.03)
    assert {split.part("YAF", word) for word in words} == {"test"}


@pytest.fixture
def own_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(manifests, "MANIFESTS", tmp_path)
    cards._read.cache_clear()
    yield tmp_path
    cards._read.cache_clear()


GOOD = (manifests.MANIFESTS / "emodb.toml").read_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD.replace('language = "de"', 'langauge = "de"'), r"langauge is not known: did you mean language\?"),
        (GOOD.replace('grammar = "emodb"\n', ""), "grammar is missing"),
        (GOOD.replace("[split]", "[parts]"), "(?s)split is missing.*parts is not known"),
        (GOOD.replace('boredom = "bored"', 'boredom = "boring"'), "labels.boredom = 'boring': should be one of angry"),
        (f'exclude = "emodb/03"\n{GOOD}', "exclude = 'emodb/03': should be a valid array"),
        (f"exclude = [3]\n{GOOD}", "exclude = 3: should be a valid string"),
        (f'exclude = ["03"]\n{GOOD}', r"(?s)of another corpus.*got: 03.*emodb/<utterance> or emodb/<speaker>"),
        (re.sub(r"test = \[.*\]", 'test = "03"', GOOD), "split.test = '03': should be a valid array"),
        (
            GOOD.replace('unit = "speaker"', 'unit = "speakers"'),
            "split.unit = 'speakers': should be 'speaker', 'text' or",
        ),
        (GOOD.replace("utterances = 535", 'utterances = "535"'), "utterances = '535': should be a valid integer"),
        (GOOD.replace("utterances = 535", "utterances = true"), "utterances = True: should be a valid integer"),
        (GOOD.replace("utterances = 535", "utterances = -1"), "utterances = -1: should be greater than or equal to 0"),
        (re.sub(r"(?s)\[split\].*?\n\n", "", f'split = "speaker"\n{GOOD}'), "split = 'speaker': should be a table"),
        (GOOD.replace('grammar = "emodb"', 'grammar = "emobd"'), r"'emobd': should be one of ravdess, .*__init__\.py"),
        (
            GOOD.replace("utterances = 535", "utterance = 535"),
            r"expected.utterance is not known: did you mean utterances\?",
        ),
        (GOOD.replace('name = "emodb"', 'name = "emo"'), "(?s)not that of its file.*got: emo.*expected: emodb"),
        (GOOD.replace("validation = [", 'validation = ["03", "08", "09", "10", "11", '), "both validation and test"),
        (
            GOOD.replace("[split]", '[split]\nparts = { dev = "dev" }'),
            "split.parts.dev = 'dev': should be train, valid",
        ),
        (f'{GOOD}\nmd5 = "12345"', "sources.md5 = '12345': should be 32 hexadecimal digits"),
        (f'{GOOD}\nurll = "x"', r"sources.urll is not known: did you mean url\?"),
        (f'{GOOD}\nrecorded = "x"', "(?s)unknown field.*sources.recorded"),
        (f'{GOOD}\nfiles = "gone.csv"', "(?s)table of files is missing.*got: gone.csv"),
        (f"allowed_errors = 1.1\n{GOOD}", "allowed_errors = 1.1: should be less than or equal to 1"),
        (f"allowed_errors = -0.1\n{GOOD}", "allowed_errors = -0.1: should be greater than or equal to 0"),
        (f"allowed_errors = nan\n{GOOD}", "allowed_errors = nan: should be a finite number"),
        (
            f"licence = 2020-01-01\n{re.sub('licence = .*', '', GOOD)}",
            "licence = .*2020-01-01.*: should be a valid string",
        ),
        *(
            (GOOD.replace("[split]", f"[split]\nvalidation_text_share = {share}"), "split.validation_text_share = ")
            for share in ("1.0", "nan", "-0.5", "inf", '"0.5"')
        ),
    ],
)
def test_a_card_with_a_mistake_is_refused_by_name(text: str, says: str, own_manifests: Path) -> None:
    assert text != GOOD
    (own_manifests / "emodb.toml").write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        load_card("emodb")
    said = str(caught.value)
    assert f"where: {own_manifests / 'emodb.toml'}" in said
    assert not re.search(r"typing\.|__init__\(|\| None|NoneType|<class", said), said


def test_all_mistakes_of_a_card_are_one_error(own_manifests: Path) -> None:
    text = GOOD.replace('language = "de"', "language = 3").replace("utterances = 535", "utterance = 535")
    (own_manifests / "emodb.toml").write_text(f"allowed_errors = 2\n{text}")
    with pytest.raises(ConfigError) as caught:
        load_card("emodb")
    assert all(part in str(caught.value) for part in ("language = 3", "expected.utterance", "allowed_errors = 2"))


def test_an_unknown_corpus_is_answered_with_the_nearest_or_all_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean iemocap\? docs/corpora.md lists all"):
        load_card("iemocap-2")
    with pytest.raises(ConfigError, match="crema-d, .*emodb, .*esd, .*iemocap"):
        load_card("qqq")


def test_a_checksum_is_known_by_its_form() -> None:
    assert cards.is_sum("md5", "0" * 32) and cards.is_sum("sha256", "aF" * 32)
    assert not any(cards.is_sum("md5", wrong) for wrong in ("", "0" * 31, "0" * 64, "g" * 32, "0" * 32 + "\n"))


def test_a_card_that_is_not_toml_is_one_clear_error(tmp_path, monkeypatch):
    from clepdg.corpora import cards
    from clepdg.errors import ConfigError

    (tmp_path / "broken.toml").write_text("[labels")
    monkeypatch.setattr(manifests, "MANIFESTS", tmp_path)
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        cards.load_card("broken")
