"""Parse MELD, the Multimodal EmotionLines Dataset.

13,708 utterances of 1,433 dialogues in seven emotions, cut from the series Friends as mp4 (48 kHz AAC), with laughter
and music. Its own split: train, dev, test. The main cast speaks in all three: nothing on MELD is speaker-independent.
Its clusters are its speakers: the same six speak most of all dialogues, so dialogues are not independent.

Address:  https://affective-meld.github.io, https://github.com/declare-lab/MELD (MELD.Raw.tar.gz, about 10 GB)
Licence:  GPL-3.0 file in the repository; the series itself is its owner's
Citation: Poria S, Hazarika D, Majumder N, Naik G, Cambria E, Mihalcea R (2019). MELD: A Multimodal Multi-Party Dataset
          for Emotion Recognition in Conversations. ACL.

Tree: MELD.Raw holds train.tar.gz, dev.tar.gz and test.tar.gz, with folders train_splits, dev_splits_complete and
      output_repeated_splits_test, and a table <part>_sent_emo.csv for each
Name: dia125_utt3.mp4: dialogue and utterance; they repeat in other parts, so a name here starts with its part.
Some clips are missing or broken, some have no label, some are cut minutes too long (the card says which).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clepdg.corpora.parsing import (
    Finding,
    Utterance,
    add_unlisted,
    audio_files,
    find_nearest,
    fold,
    one_per_name,
    read_rows,
    relative,
)

FOLDERS: Final = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
COLUMNS: Final = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")


def utterances(root: Path) -> Iterator[Utterance | Finding]:
    """Yield the utterances and findings of a MELD tree, part by part.

    Raises:
        CorpusError: a part's folder or table is missing, or a table lacks a column.
    """
    for part, name in FOLDERS.items():
        folder, *_ = find_nearest(root, name, needed_by="MELD")
        table, *_ = find_nearest(root, f"{part}_sent_emo.csv", needed_by="MELD")
        found = [relative(root, folder / path) for path in audio_files(folder)]
        audio, twins = one_per_name({path: fold(Path(path).stem) for path in found}, _nearest_mp4)
        listed = [_utterance(row, part, audio, relative(root, folder)) for row in read_rows(table, COLUMNS)]
        yield from add_unlisted(listed, found, twins, table=f"{table.name} does not name it")


def _nearest_mp4(path: str) -> tuple[bool, int]:
    return not path.lower().endswith(".mp4"), path.count("/")


def _utterance(row: dict[str, str], part: str, audio: dict[str, str], folder: str) -> Utterance:
    stem = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
    return Utterance(
        path=audio.get(stem) or f"{folder}/{stem}.mp4",
        name=f"{part}_{stem}",
        speaker=row["Speaker"],
        gender=None,
        language="en",
        raw_label=row["Emotion"],
        text=f"{part}_{stem}",
        transcript=row["Utterance"],
        part=part,
    )
