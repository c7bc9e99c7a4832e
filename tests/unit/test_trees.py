"""Protects the reading of whole trees: corpora in their real layout, each known fault found and named."""

import csv
import math
import re
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from clepdg.config.schema import IndexConfig, ShardConfig
from clepdg.corpora import CORPORA
from clepdg.corpora.cards import Card, Expected, Split, load_card
from clepdg.dataset.index import build_index
from clepdg.dataset.shard_writer import write_shards
from clepdg.dataset.shards import stream
from clepdg.dataset.validate import check
from clepdg.download import fetch, source
from clepdg.errors import CorpusError
from tests.unit import trees


def build(root: Path, card: Card) -> tuple[pd.DataFrame, dict[str, str], dict[str, Any]]:
    utterances, quarantine, figures = build_index(root, {}, card, IndexConfig())
    assert len(utterances) + len(quarantine) + figures["excluded"] >= figures["found"]["utterances"]
    return utterances.set_index("utterance_id"), dict(zip(quarantine.path, quarantine.reason, strict=True)), figures


def counts(utterances: pd.DataFrame) -> dict[str, int]:
    return utterances.split.value_counts().to_dict()


def test_crema_d_names_pointers_silence_and_pairs_with_two_labels(tmp_path: Path) -> None:
    utterances, refused, figures = build(trees.crema_d(tmp_path), load_card("crema-d"))
    assert counts(utterances) == {"train": 19, "validation": 8, "test": 13}  # the broken mp3 harm nobody
    assert utterances.notes["crema-d/1040_ITH_SAD_X"] == ["misnamed"]
    reasons = {Path(path).stem: reason for path, reason in refused.items()}
    assert "git lfs pointer" in reasons.pop("1003_DFA_ANG_XX")
    assert "silent" in reasons.pop("1076_MTI_SAD_XX")
    pairs = {"1006_TIE_HAP": "1006_TIE_NEU", "1013_WSI_DIS": "1013_WSI_SAD", "1017_IWW_ANG": "1017_IWW_FEA"}
    for one, other in [*pairs.items(), *((b, a) for a, b in pairs.items())]:
        assert f"the same bytes as crema-d/{other}_XX, which is labelled {other[-3:]}" in reasons.pop(f"{one}_XX")
    assert not reasons and figures["found"]["utterances"] == 48


def test_ravdess_keeps_what_is_quiet_stereo_or_there_twice_with_one_label(tmp_path: Path) -> None:
    utterances, refused, figures = build(trees.ravdess(tmp_path), load_card("ravdess"))
    assert figures["notes"] == {"stereo": 5, "the same bytes": 1, "unusual peak": 1}
    assert utterances.notes["ravdess/03-01-03-01-02-02-07"] == ["the same bytes as ravdess/03-01-03-01-02-01-07"]
    quiet = utterances.loc["ravdess/03-01-04-01-02-01-09"]  # among files of noise, each as loud as the others
    assert [note.partition(":")[0] for note in quiet.notes] == ["unusual peak"] and quiet.rms_db == round(
        20 * math.log10(6.5e-4), 2
    )
    song = refused.pop("Actor_01/03-02-04-01-01-01-01.wav")
    assert "song" in song and len(refused) == len(utterances) == 48
    assert all("is the tree there twice?" in reason for reason in refused.values())
    assert all(path.startswith("audio_speech_actors_01-24/") for path in refused)


def test_tess_labels_are_the_files_whatever_a_mirror_calls_its_folders(tmp_path: Path) -> None:
    utterances, refused, figures = build(trees.tess(tmp_path), load_card("tess"))
    assert figures["raw_labels"] == {"angry": 20, "fear": 21, "neutral": 1, "ps": 2, "sad": 20}
    assert (utterances.speaker["tess/OA_bite_neutral"], figures["notes"]) == (
        "tess/OAF",
        {"misnamed": 1, "odd rate": 1, "unusual spectrum": 1},
    )
    assert utterances.notes["tess/OAF_food_fear"][0] == "odd rate"
    assert set(utterances[utterances.split == "test"].speaker) == {"tess/YAF"}
    words = utterances[utterances.speaker == "tess/OAF"].groupby("text").split.nunique()
    assert (words == 1).all() and figures["splits"]["validation"] > 0
    assert refused == {"again/OAF_Sad/OAF_back_sad.wav": refused["again/OAF_Sad/OAF_back_sad.wav"]}
    assert "is the tree there twice?" in refused["again/OAF_Sad/OAF_back_sad.wav"]


def test_savee_speaker_is_the_folder_and_two_letter_codes_are_their_own(tmp_path: Path) -> None:
    utterances, refused, figures = build(trees.savee(tmp_path), load_card("savee"))
    assert len(utterances) == 56 and set(utterances.speaker) == {"savee/DC", "savee/JE", "savee/JK", "savee/KL"}
    assert utterances.raw_label["savee/DC_sa01"] == "sadness" and utterances.raw_label["savee/DC_su01"] == "surprise"
    assert figures["raw_labels"] == dict.fromkeys(load_card("savee").labels, 8)
    assert counts(utterances) == {"train": 28, "validation": 14, "test": 14}
    assert "speaker" in refused.pop("AudioData/XX/a01.wav")
    assert "grammar" in refused.pop("AudioData/DC/a16.wav")
    assert not refused


def test_savee_flattened_gives_the_same_utterances(tmp_path: Path) -> None:
    for path in sorted(trees.savee(tmp_path / "tree").glob("AudioData/??/*.wav")):
        (tmp_path / "flat" / "ALL").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "flat" / "ALL" / f"{path.parent.name}_{path.name}")
    official, _, _ = build(tmp_path / "tree", load_card("savee"))
    flat, _, _ = build(tmp_path / "flat", load_card("savee"))
    assert flat.drop(columns="path").equals(official.drop(columns="path"))


def test_esd_reads_labels_and_texts_in_whatever_encoding(tmp_path: Path) -> None:
    utterances, refused, _ = build(trees.esd(tmp_path), load_card("esd"))
    assert len(utterances) == 31
    mandarin = utterances[utterances.language == "zh"]
    assert set(mandarin.speaker) == {"esd/0002", "esd/0005", "esd/0007"}
    assert set(mandarin.transcript.dropna()) == {"打远一看，它们的确很是美丽，"}
    assert set(utterances.raw_label) == set(load_card("esd").labels)
    assert utterances.loc["esd/0005_001407", ["raw_label", "text"]].tolist() == ["surprise", "zh007"]
    assert utterances.loc["esd/0013_000007", ["gender", "text", "split"]].tolist() == ["male", "en007", "test"]
    assert utterances.notes["esd/0002_000008"] == ["no line in the speaker's text file"]
    assert refused == {
        "0012/Sad/0012_000357.wav": "0012.txt says angry, its folder sad",
        "0016/Angry/0016_001751.wav": refused["0016/Angry/0016_001751.wav"],
    }
    assert "grammar" in refused["0016/Angry/0016_001751.wav"]


def test_esd_folder_that_contradicts_the_text_file_is_refused(tmp_path: Path) -> None:
    root = trees.esd(tmp_path)
    (root / "0016/Angry/0016_000357.wav").rename(root / "0016/Sad/0016_000357.wav")
    _, refused, _ = build(root, load_card("esd"))
    assert refused["0016/Sad/0016_000357.wav"] == "0016.txt says angry, its folder sad"


def test_iemocap_speaker_is_the_last_letter_and_sessions_are_its_split(tmp_path: Path) -> None:
    utterances, refused, figures = build(trees.iemocap(tmp_path), load_card("iemocap"))
    turn = utterances.loc["iemocap/Ses03M_script01_1b_F002"]
    assert (turn.speaker, turn.gender, turn.cluster) == ("iemocap/Ses03F", "female", "iemocap/Ses03F")
    assert (turn.raw_label, turn.transcript, turn.text) == ("sad", "Excuse me.", "script01_1b")
    assert figures["found"]["speakers"] == 10 and figures["found"]["utterances"] == 80
    by_split = utterances.groupby("split").cluster.agg(set)
    assert by_split["test"] == {"iemocap/Ses05F", "iemocap/Ses05M"}
    assert by_split["validation"] == {"iemocap/Ses04F", "iemocap/Ses04M"}
    nameless = utterances[utterances.raw_label.isin(["xxx", "oth"])]
    assert len(nameless) == 20 and nameless.emotion.isna().all()
    folder = "IEMOCAP_full_release/Session1/sentences/wav/Ses01F_impro01"
    assert refused == {
        f"{folder}/Ses01F_impro01_F002.wav": "there is no such file",
        f"{folder}/Ses01F_impro01_F099.wav": "the corpus's labels do not name it",
    }


def test_iemocap_without_labels_is_one_clear_error(tmp_path: Path) -> None:
    root = trees.iemocap(tmp_path)
    shutil.rmtree(root / "IEMOCAP_full_release/Session2/dialog/EmoEvaluation")
    with pytest.raises(CorpusError, match="has no labels"):
        build(root, load_card("iemocap"))


@pytest.mark.parametrize("older", [False, True])
def test_msp_podcast_takes_its_own_partition_and_leaves_out_two_of_its_tests(older: bool, tmp_path: Path) -> None:
    utterances, refused, figures = build(trees.msp_podcast(tmp_path, older=older), load_card("msp-podcast"))
    assert counts(utterances) == {"train": 12, "validation": 7, "test": 8}
    assert figures["excluded"] == 8 and figures["found"]["raw_labels"]["hidden"] == 4
    first, fourth = (
        utterances.loc["msp-podcast/MSP-PODCAST_0001_0000"],
        utterances.loc["msp-podcast/MSP-PODCAST_0001_0003"],
    )
    assert (first.speaker, first.gender, first.raw_label) == ("msp-podcast/Unknown", None, "A")
    assert (fourth.transcript, fourth.gender, fourth.emotion) == ("so that is that", "male", "surprised")
    folder = "Audio" if older else "Audios"
    assert refused == {
        f"{folder}/MSP-PODCAST_0002_0001.wav": "there is no such file",
        f"{folder}/MSP-PODCAST_0009_0001.wav": "the corpus's labels do not name it",
    }


def test_meld_keeps_its_parts_apart_and_names_what_is_missing_broken_or_unlabelled(tmp_path: Path) -> None:
    utterances, refused, figures = build(trees.meld(tmp_path), load_card("meld"))
    assert counts(utterances) == {"train": 7, "validation": 7, "test": 7}
    train, test = utterances.loc["meld/train_dia0_utt1"], utterances.loc["meld/test_dia0_utt1"]
    assert train.sha256 != test.sha256 and (train.split, test.split) == ("train", "test")
    assert (train.speaker, train.cluster, train.sample_rate) == ("meld/Ross", "meld/Ross", 48000)
    assert abs(train.num_samples / 48000 - 0.4) < 0.05
    assert figures["excluded"] == 3 and not figures["unmatched"]  # the clips that are cut minutes too long
    assert "meld/Joey" in figures["crossing"]
    reasons = {Path(path).name: reason for path, reason in refused.items()}
    assert "truncated" in reasons.pop("dia125_utt3.mp4")
    assert "too short" in reasons.pop("dia1_utt0.mp4")
    assert reasons == {
        "dia110_utt7.mp4": "there is no such file",
        "dia66_utt9.mp4": "dev_sent_emo.csv does not name it",
        "final_videos_testdia101_utt0.mp4": "test_sent_emo.csv does not name it",
    }


def test_meld_clips_that_are_cut_too_long_are_found_by_length_too_but_for_one(tmp_path: Path) -> None:
    root = trees.meld(tmp_path)
    clips = {"output_repeated_splits_test/dia220_utt0.mp4": 235, "train_splits/dia309_utt0.mp4": 41}
    for name, seconds in clips.items():
        trees.put(root / "MELD.Raw" / name, 8000, seconds=seconds)
    card = load_card("meld")
    utterances, refused, _ = build(root, replace(card, exclude=()))
    assert "too long: 235." in refused["MELD.Raw/output_repeated_splits_test/dia220_utt0.mp4"]
    assert round(utterances.num_samples["meld/train_dia309_utt0"] / 8000) == 41  # only the card knows it
    utterances, refused, _ = build(root, card)
    assert not {"meld/test_dia220_utt0", "meld/train_dia309_utt0"} & {*utterances.index}
    assert not {f"MELD.Raw/{name}" for name in clips} & {*refused}


def test_meld_as_it_is_published_is_unpacked_twice(tmp_path: Path) -> None:
    archive = trees.meld_archive(trees.meld(tmp_path / "made"), tmp_path / "MELD.Raw.tar.gz")
    fetch.fetch(load_card("meld"), str(archive), tmp_path / "out")
    unpacked, refused, _ = build(source.root(tmp_path / "out"), load_card("meld"))
    made, made_refused, _ = build(tmp_path / "made", load_card("meld"))
    assert unpacked.drop(columns="path").equals(made.drop(columns="path"))
    assert sorted(refused.values()) == sorted(made_refused.values())


ANY = Card(
    name="my-corpus",
    title="mine",
    grammar="table",
    language="en",
    licence="mine",
    citation="none",
    homepage="none",
    labels={"cross": "angry", "glad": "happy"},
    split=Split(unit="official"),
    expected=Expected(),
)


def test_any_folder_with_a_table_is_a_corpus(tmp_path: Path) -> None:
    utterances, refused, figures = build(trees.any_corpus(tmp_path), ANY)
    assert counts(utterances) == {"train": 4, "validation": 4, "test": 4}
    assert utterances.emotion["my-corpus/eve_take_1"] == "happy"
    assert refused == {
        "ann/gone.wav": "there is no such file",
        "stray.wav": "utterances.csv does not name it",
        "utterances.csv line 15": "../secret.wav leads out of the corpus's folder",
        "ann/take.0.wav": "utterances.csv line 16: no speaker",
    }
    check(figures, ANY, allow_partial=True)
    with pytest.raises(CorpusError, match="4 of 16 files can't be used"):
        check(figures, ANY, allow_partial=False)


def test_speakers_that_cross_a_split_by_speaker_are_refused(tmp_path: Path) -> None:
    root = trees.any_corpus(tmp_path)
    crossed = (root / "utterances.csv").read_text().replace("take.3.wav,bob,", "take.3.wav,ann,")
    (root / "utterances.csv").write_text(crossed)
    card = replace(ANY, split=replace(ANY.split, unit="speaker"))
    _, _, figures = build(root, card)
    with pytest.raises(CorpusError, match=r"speakers in more than one part of the split \(1\): my-corpus/ann"):
        check(figures, card, allow_partial=True)
    check(figures, ANY, allow_partial=True)


def test_a_line_that_is_there_twice_counts_once_and_not_at_all_where_labels_differ(tmp_path: Path) -> None:
    root = trees.any_corpus(tmp_path)
    lines = (root / "utterances.csv").read_text().splitlines()
    again = [lines[1], lines[2].replace("glad", "cross")]
    (root / "utterances.csv").write_text("\n".join([*lines, *again]) + "\n")
    utterances, refused, _ = build(root, ANY)
    assert "my-corpus/ann_take_0" in utterances.index and "my-corpus/ann_take_1" not in utterances.index
    assert refused["ann/take.1.wav"] == "named twice, as cross and glad"


def table_of(root: Path, *paths: str, **columns: str) -> Path:
    """Make a corpus of these files; each sounds like none other."""
    for path in paths:
        trees.put(root / path, 16000, sounds_like=path)
    row = {"speaker": "ann", "label": "glad", "split": "train"} | columns
    trees.table(root / "utterances.csv", [{"path": path, **row} for path in paths])
    return root


ALIKE = ("a/b.wav", "a_b.wav", "clip 1.wav", "clip_1.wav", "s.wav", "s.flac", "😀.wav", "😡.wav")


def test_files_whose_names_come_out_alike_are_told_apart_and_the_others_keep_theirs(tmp_path: Path) -> None:
    utterances, refused, _ = build(table_of(tmp_path, *ALIKE, "other one.wav"), ANY)
    assert not refused and set(utterances.path) == {*ALIKE, "other one.wav"}
    assert utterances.path["my-corpus/other_one"] == "other one.wav"
    assert all(re.fullmatch(r"my-corpus/\w+_[0-9a-f]{8}", key) for key in utterances.index.drop("my-corpus/other_one"))
    trees.table(tmp_path / "utterances.csv", reversed(list(csv.DictReader((tmp_path / "utterances.csv").open()))))
    again, _, _ = build(tmp_path, ANY)
    assert again.path.to_dict() == utterances.path.to_dict()


def test_a_file_that_is_named_in_two_ways_is_named_twice(tmp_path: Path) -> None:
    rows = [{"path": path, "speaker": "ann", "label": "glad", "split": "train"} for path in ("a.wav", "./a.wav")]
    trees.table(trees.put(tmp_path / "a.wav", 16000).with_name("utterances.csv"), rows)
    utterances, refused, _ = build(tmp_path, ANY)
    assert list(utterances.index) == ["my-corpus/a"] and refused == {"a.wav": "named twice, as glad"}


def test_long_names_reach_the_shards(tmp_path: Path) -> None:
    long = [f"{'a very long name ' * 12}{number}.wav" for number in range(3)] + [f"{'é' * 80}.wav", f"{'n' * 95}.wav"]
    utterances, refused, _ = build(table_of(tmp_path / "tree", *long), ANY)
    assert not refused and len(utterances) == len(long)
    assert utterances.path[f"my-corpus/{'n' * 95}"] == long[-1]
    (tmp_path / "shards").mkdir()
    write_shards(tmp_path / "shards", tmp_path / "tree", utterances.reset_index(), ShardConfig())
    assert {key for key, _, _ in stream(tmp_path / "shards")} == set(utterances.index)


def test_an_accent_is_the_same_in_both_its_spellings(tmp_path: Path) -> None:
    root = table_of(tmp_path, unicodedata.normalize("NFD", "zoë/café.wav"))
    table = unicodedata.normalize("NFC", (root / "utterances.csv").read_text())
    (root / "utterances.csv").write_text(table)
    utterances, refused, _ = build(root, ANY)
    assert list(utterances.index) == ["my-corpus/zoë_café"] and not refused


@pytest.mark.parametrize(
    ("line", "path", "reason"),
    [
        ("a.wav,ann,,train", "a.wav", "utterances.csv line 2: no label"),
        (",ann,glad,train", "utterances.csv line 2", "no path"),
        (".,ann,glad,train", ".", "not readable: it is not a file"),
        ("/,ann,glad,train", "utterances.csv line 2", "/ leads out of the corpus's folder"),
        ("a\0.wav,ann,glad,train", "a\0.wav", "not readable: embedded null byte"),
        (f"{'a' * 300}.wav,ann,glad,train", f"{'a' * 300}.wav", "not readable: File name too long"),
    ],
)
def test_a_line_that_can_t_be_used_is_one_finding(line: str, path: str, reason: str, tmp_path: Path) -> None:
    trees.text(tmp_path / "utterances.csv", f"path,speaker,label,split\n{line}\n")
    if path == "a.wav":
        trees.put(tmp_path / path, 16000)
    _, refused, _ = build(tmp_path, ANY)
    assert refused == {path: reason}


def test_an_unknown_split_and_label_are_named(tmp_path: Path) -> None:
    root = trees.any_corpus(tmp_path)
    changed = (root / "utterances.csv").read_text()
    changed = changed.replace("ann,cross,train", "ann,cross,dev").replace("bob,cross", "bob,livid")
    (root / "utterances.csv").write_text(changed)
    _, refused, _ = build(root, ANY)
    assert refused["ann/take.0.wav"] == "the card's split does not know the part dev, only train, validation, test"
    assert refused["bob/take.0.wav"] == "the card's label map does not know the raw label livid"


def test_faults_are_lines_of_the_error_also_where_a_part_is_allowed(tmp_path: Path) -> None:
    root = trees.any_corpus(tmp_path)
    (root / "utterances.csv").write_text((root / "utterances.csv").read_text().replace(",train,", ",dev,"))
    _, _, figures = build(root, ANY)
    with pytest.raises(CorpusError) as caught:
        check(figures, ANY, allow_partial=True)
    lines = [child.what for child in caught.value.children]
    assert lines[0] == "ann/gone.wav: the card's split does not know the part dev, only train, validation, test"
    assert len(lines) == 6 and lines[5] == "and 3 more"


@pytest.mark.parametrize("grammar", ["iemocap", "meld", "msp-podcast", "table"])
def test_a_folder_that_is_not_the_corpus_is_one_clear_error(grammar: str, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(CorpusError, match=r"(?s)not the folder of.*holiday.jpg"):
        list(CORPORA[grammar](tmp_path))


def test_a_table_without_its_columns_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "utterances.csv").write_text("file,who,emotion\na.wav,x,y\n")
    with pytest.raises(CorpusError, match="lacks columns"):
        list(CORPORA["table"](tmp_path))


@pytest.mark.parametrize(
    ("corpus", "files", "suffix"),
    [
        ("meld", "MELD.Raw/*/dia0_utt*.mp4", ".wav"),
        ("iemocap", "*/Session1/sentences/wav/*/Ses*.wav", ".flac"),
        ("msp-podcast", "Audios/*_0002.wav", ".flac"),
    ],
)
def test_of_two_files_with_one_stem_the_other_is_refused_with_its_reason(
    corpus: str, files: str, suffix: str, tmp_path: Path
) -> None:
    root = getattr(trees, corpus.replace("-", "_"))(tmp_path)
    before, _, _ = build(root, load_card(corpus))
    firsts = [path for path in sorted(root.glob(files)) if not path.name.startswith("._")]
    for path in firsts:
        trees.put(path.with_suffix(suffix), 16000)
    utterances, refused, _ = build(root, load_card(corpus))
    assert utterances.index.equals(before.index) and utterances.sha256.equals(before.sha256)
    for path in firsts:
        place = path.relative_to(root)
        assert refused[place.with_suffix(suffix).as_posix()] == f"the same name as {place.as_posix()}"


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("Session1/sentences/wav/Ses01M_script01_1b", "lies in Ses01M_script01_1b, is named Ses01F_impro01"),
        ("Session2/sentences/wav/Ses01F_impro01", "lies in Session2, is named Ses01"),
        ("Session1/sentences/wav/Ses01F_impro01/again", "the same name as"),
    ],
)
def test_iemocap_turn_in_another_place_displaces_none(folder: str, reason: str, tmp_path: Path) -> None:
    root = trees.iemocap(tmp_path)
    before, _, _ = build(root, load_card("iemocap"))
    stray = root / "IEMOCAP_full_release" / folder / "Ses01F_impro01_F000.wav"
    trees.put(stray, 16000, sounds_like="another")
    utterances, refused, _ = build(root, load_card("iemocap"))
    assert utterances.sha256.equals(before.sha256)
    assert refused[stray.relative_to(root).as_posix()].startswith(reason)


def test_a_corpus_that_is_there_twice_is_read_once(tmp_path: Path) -> None:
    before, refused, _ = build(trees.iemocap(tmp_path), load_card("iemocap"))
    shutil.copytree(tmp_path / "IEMOCAP_full_release", tmp_path / "copy")
    utterances, again, _ = build(tmp_path, load_card("iemocap"))
    assert utterances.sha256.equals(before.sha256)
    assert len(again) == len(refused) + len(utterances) + 2
    assert sum("is the tree there twice?" in reason for reason in again.values()) == len(utterances) + 1


@pytest.mark.parametrize("table", ["Labels", "labels", "Label", "label", "."])
def test_msp_podcast_as_older_releases_lay_it_out(table: str, tmp_path: Path) -> None:
    root = trees.msp_podcast(tmp_path, older=True)
    for path in (root / "Labels/labels_concensus.csv", root / "Partition.txt"):
        path.write_text(path.read_text().replace("Development", "Validation"))
    (root / "Labels").rename(root / "aside")
    (root / table).mkdir(exist_ok=True)
    (root / "aside/labels_concensus.csv").rename(root / table / "labels_concensus.csv")
    (root / "aside").rmdir()
    (root / "Audio").rename(root / "audio")
    utterances, refused, _ = build(root, load_card("msp-podcast"))
    assert counts(utterances) == {"train": 12, "validation": 7, "test": 8}
    assert refused["audio/MSP-PODCAST_0009_0001.wav"] == "the corpus's labels do not name it"


SAID = {
    "tabs": (b"%s\tIt's nine.\t%s\r\n", "It's nine."),
    "spaces": (b"%s It's  nine. %s\n", "It's nine."),
    "windows": (b"%s\tIt\x92s nine, I don\x92t.\t%s\n", "It’s nine, I don’t."),
    "hard spaces": (b"%s\tIt's\xa0 nine.\t%s\n", "It's nine."),
    "odd bytes": (b"%s\t\xff\x80\t%s \n", "ÿ€"),
}


@pytest.mark.parametrize("way", SAID)
def test_esd_keeps_its_texts_however_they_were_written(way: str, tmp_path: Path) -> None:
    line, said = SAID[way]
    lines = b""
    for name, emotion in (("0016_000007", "Neutral"), ("0016_000357", "Angry")):
        trees.put(tmp_path / "0016" / emotion / f"{name}.wav", 16000)
        lines += line % (name.encode(), emotion.encode())
    trees.text(tmp_path / "0016/0016.txt", lines)
    utterances, refused, _ = build(tmp_path, load_card("esd"))
    assert not refused and list(utterances.transcript) == [said, said]
    assert list(utterances.raw_label) == ["neutral", "angry"] and not any(utterances.notes)


def test_esd_emotion_that_can_t_be_read_is_the_folders(tmp_path: Path) -> None:
    trees.put(tmp_path / "0016/Angry/0016_000357.wav", 16000)
    trees.text(tmp_path / "0016/0016.txt", b"0016_000357\tIt's nine.\tAn\xffry\n")
    utterances, refused, _ = build(tmp_path, load_card("esd"))
    assert not refused and utterances.raw_label.tolist() == ["angry"]
    assert utterances.notes.tolist() == [["no emotion in the speaker's text file"]]


def test_a_table_made_on_windows_is_read(tmp_path: Path) -> None:
    root = table_of(tmp_path, "ann/a 1.wav", "bob/zoë.wav")
    text = (root / "utterances.csv").read_text().replace("/", "\\").replace("\n", "\r\n")
    (root / "utterances.csv").write_bytes(text.encode("cp1252"))
    utterances, refused, _ = build(root, ANY)
    assert not refused and list(utterances.index) == ["my-corpus/ann_a_1", "my-corpus/bob_zoë"]


@pytest.mark.parametrize("path", ["C:\\calls\\a.wav", "\\\\server\\calls\\a.wav", "\\a.wav"])
def test_a_path_of_another_computer_leads_out(path: str, tmp_path: Path) -> None:
    trees.table(tmp_path / "utterances.csv", [{"path": path, "speaker": "ann", "label": "glad", "split": "train"}])
    _, refused, _ = build(tmp_path, ANY)
    assert "leads out of the corpus's folder" in refused["utterances.csv line 2"]


def renamed(root: Path, *names: str) -> Path:
    """Make a corpus of a.wav, whose table has these names."""
    table_of(root, "a.wav")
    rows = [{"path": name, "speaker": "ann", "label": "glad", "split": "train"} for name in names]
    trees.table(root / "utterances.csv", rows)
    return root


def test_a_name_in_another_case_is_the_only_file_like_it(tmp_path: Path) -> None:
    utterances, refused, _ = build(renamed(tmp_path, "A.WAV"), ANY)
    assert list(utterances.path) == ["a.wav"] and not refused


def test_a_name_in_another_case_displaces_none(tmp_path: Path) -> None:
    utterances, refused, _ = build(renamed(tmp_path, "A.wav", "a.wav"), ANY)
    assert list(utterances.path) == ["a.wav"]
    assert refused == {"A.wav": "utterances.csv line 2: there is no such file; a.wav differs in upper and lower case"}
    trees.put(tmp_path / "a.WAV", 16000)
    utterances, refused, _ = build(renamed(tmp_path, "A.wav"), ANY)
    assert utterances.empty and "differs in upper and lower case" in refused["A.wav"]


def test_a_table_without_the_column_split_is_one_clear_error(tmp_path: Path) -> None:
    root = table_of(tmp_path, "a.wav", "b.wav")
    (root / "utterances.csv").write_text("path,speaker,label\na.wav,ann,glad\nb.wav,ann,cross\n")
    with pytest.raises(CorpusError, match=r"(?s)no column split.*train, validation, test.*unit = .speaker.") as caught:
        build(root, ANY)
    assert not caught.value.children
