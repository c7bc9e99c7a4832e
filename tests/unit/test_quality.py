"""Protects the quality report: its counts are those of the index, and equal corpora give equal bytes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from clepdg.config.schema import IndexConfig
from clepdg.corpora.cards import load_card
from clepdg.dataset import quality
from clepdg.dataset.index import build_index
from tests.unit import trees


def write(root: Path, out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    utterances, quarantine, figures = build_index(root, {}, load_card("iemocap"), IndexConfig())
    out.mkdir()
    quality.write_quality(out, "iemocap", utterances, quarantine, figures)
    return pd.read_csv(out / quality.TABLE), utterances


def test_the_table_counts_every_utterance_once_per_level(tmp_path: Path) -> None:
    table, utterances = write(trees.iemocap(tmp_path / "tree"), tmp_path / "out")
    whole, parts = table[table.split == "all"].iloc[0], table[(table.split != "all") & (table.speaker == "all")]
    speakers = table[table.speaker != "all"]
    assert whole.utterances == parts.utterances.sum() == speakers.utterances.sum() == len(utterances)
    assert whole["no emotion"] == utterances.emotion.isna().sum()
    assert whole.angry == (utterances.emotion == "angry").sum() == speakers.angry.sum()
    assert whole.rms_db_median == round(utterances.rms_db.median(), 2)
    assert whole.seconds_max == 0.7 and whole.rates == f"16000:{len(utterances)}"
    assert len(speakers) == 10


def test_equal_corpora_give_equal_bytes(tmp_path: Path) -> None:
    for side in ("a", "b"):
        write(trees.iemocap(tmp_path / side / "tree"), tmp_path / side / "out")
    for name in (quality.TABLE, quality.FAULTS, quality.PICTURE):
        assert (tmp_path / "a/out" / name).read_bytes() == (tmp_path / "b/out" / name).read_bytes()
    assert (tmp_path / "a/out" / quality.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_corpora_indexed_side_by_side_give_the_bytes_they_give_alone(tmp_path: Path) -> None:
    utterances, quarantine, figures = build_index(
        trees.iemocap(tmp_path / "tree"), {}, load_card("iemocap"), IndexConfig()
    )

    def draw(number: int) -> bytes:
        folder = tmp_path / str(number)
        folder.mkdir()
        quality.write_quality(folder, "iemocap", utterances, quarantine, figures)
        return (folder / quality.PICTURE).read_bytes()

    alone = draw(0)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(draw, range(1, 9))) == {alone}


def test_faults_are_counted_by_kind() -> None:
    quarantine = pd.DataFrame(
        {
            "reason": ["there is no such file"] * 2
            + ["too short: 0.1 s, at least 0.2 s", "the same bytes as a, which is x"]
        }
    )
    figures = {
        "alterations": {"of one length, 2 s": 9},
        "notes": {"stereo": 5},
        "excluded": 1,
        "unmatched": ["x/1"],
        "absent": ["3"],
        "published": {"listed": 9, "altered": 4},
    }
    assert quality.faults(quarantine, figures) == {
        "altered: of one length, 2 s": 9,
        "noted: stereo": 5,
        "excluded by the card": 1,
        "excluded by the card, but not there": 1,
        "speakers of the card's split who are not there": 1,
        "not the published file (of 9 listed)": 4,
        "quarantined: there is no such file": 2,
        "quarantined: too short": 1,
        "quarantined: the same bytes": 1,
    }


def test_a_corpus_of_nothing_but_faults_is_drawn_as_well(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    trees.text(root / "AudioData/DC/a01.wav", b"")
    utterances, quarantine, figures = build_index(root, {}, load_card("savee"), IndexConfig())
    quality.write_quality(tmp_path, "savee", utterances, quarantine, figures)
    assert pd.read_csv(tmp_path / quality.TABLE).utterances.tolist() == [0]
    kinds = pd.read_csv(tmp_path / quality.FAULTS)
    assert kinds.set_index("fault").files["quarantined: the file is empty (0 bytes)"] == 1
