"""The report's section of errors to listen to: the surest mistakes and the surest hits of one method."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from clepdg.audio.excerpts import as_data_uri, excerpt
from clepdg.audio.io import Waveform
from clepdg.config.conditions import CLEAN
from clepdg.config.folds import LEAVE_OUT, PAIR, SUPERVISED, kind
from clepdg.config.rows import MAIN_ROW
from clepdg.evaluation.predictions import probability_columns
from clepdg.report.section import Section, render
from clepdg.report.tables import figure

if TYPE_CHECKING:
    import pandas as pd

MISTAKES, HITS = 2, 1  # of a class
MOST_TARGETS: Final = 8
AUDIO_BYTES: Final = 2_500_000  # of all excerpts, as they stand in the page
SECOND: Final = "clep-zero-shot"  # the method where a run lacks the main row
Read = Callable[[str, str], tuple[Waveform, int]]  # (corpus, utterance id) -> waveform (T,), rate in Hz


@dataclass(frozen=True, kw_only=True)
class Example:
    """One utterance with its prediction.

    Attributes:
        target: fold and corpus, in words.
        text: what is spoken; "" where unknown.
        probabilities: label -> probability, in the order of the label set.
        audio: a data URI; "": not heard.
    """

    target: str
    corpus: str
    utterance_id: str
    speaker: str
    true: str
    predicted: str
    probabilities: Mapping[str, float]
    text: str = ""
    audio: str = ""

    @property
    def right(self) -> bool:
        """Return whether the prediction is the truth."""
        return self.true == self.predicted

    @property
    def in_words(self) -> str:
        """Return what the page shows beside its player."""
        said = f"“{self.text}”" if self.text else self.utterance_id
        shares = ", ".join(f"{label} {figure(share)}" for label, share in self.probabilities.items())
        return f"{said}, speaker {self.speaker}, true {self.true}, predicted {self.predicted}; {shares}"


def listen(
    predictions: "pd.DataFrame",
    labels: Mapping[str, tuple[str, ...]],
    rows: Mapping[str, str],
    cards: Mapping[str, Mapping[str, Any]],
    texts: Mapping[str, str],
    read: Read,
) -> Section | None:
    """Return the section; None where there are no predictions to show.

    Args:
        predictions: of all folds.
        labels: fold -> its label set.
        rows: row -> title.
        cards: corpus -> "title", "licence", "licence_allows_sharing", "citation" and "homepage" of its card.
        texts: utterance id -> what is spoken, where known.
        read: reads an utterance of a corpus whose licence allows it.
    """
    row = method(rows)
    chosen = [replace(each, text=texts.get(each.utterance_id, "")) for each in choose(predictions, labels, row)]
    if not chosen:
        return None
    heard = add_audio(chosen, {corpus for corpus, card in cards.items() if card["licence_allows_sharing"]}, read)
    targets = []
    for target, group in groupby(heard, key=lambda each: each.target):
        own = list(group)
        card = cards[own[0].corpus]
        targets.append(
            {
                "title": target,
                "classes": [(true, list(each)) for true, each in groupby(own, key=lambda each: each.true)],
                "missed": sum(not each.right for each in own),
                "card": card,
                "heard": any(each.audio for each in own),
                "whole": all(each.audio for each in own),
            }
        )
    return Section(
        id="listen",
        title="Errors to listen to",
        html=render("listen", method=rows[row], targets=targets, left_out=_left_out(predictions, labels)),
    )


def method(rows: Mapping[str, str]) -> str:
    """Return the row whose errors are shown: the main one, if the run has it."""
    return next((row for row in (MAIN_ROW, SECOND) if row in rows), [*rows][-1])


def shown_folds(labels: Iterable[str]) -> list[str]:
    """Return the folds that leave a corpus out, else what there is."""
    for wanted in (LEAVE_OUT, PAIR, SUPERVISED):
        if own := [fold for fold in labels if kind(fold) == wanted]:
            return own
    return []


def choose(predictions: "pd.DataFrame", labels: Mapping[str, tuple[str, ...]], row: str) -> Iterator[Example]:
    """Yield the surest mistakes, then hits, of each target and class.

    Of the first seed, on clean audio; of different speakers where there are. Equal probabilities are in the order of
    the ids.
    """
    own = predictions[(predictions["row"] == row) & (predictions["condition"] == CLEAN)]
    shown = 0
    for fold in shown_folds(labels):
        part = own[own["fold"] == fold]
        for corpus in sorted({*map(str, part["corpus"])}):
            if (shown := shown + 1) > MOST_TARGETS:
                return
            of_target = part[part["corpus"] == corpus]
            of_seed = of_target[of_target["seed"] == min(map(str, of_target["seed"].unique()))]
            target = f"{fold}: {corpus}" if kind(fold) == SUPERVISED else fold
            lines = [_example(line, target, labels[fold]) for line in of_seed.to_dict("records")]
            lines.sort(key=lambda each: (-each.probabilities[each.predicted], each.utterance_id))
            for label in labels[fold]:
                of_label = [each for each in lines if each.true == label]
                yield from _of_different_speakers([each for each in of_label if not each.right], MISTAKES)
                yield from _of_different_speakers([each for each in of_label if each.right], HITS)


def _example(line: Mapping[Any, Any], target: str, labels: tuple[str, ...]) -> Example:
    columns = zip(labels, probability_columns(labels), strict=True)
    return Example(
        target=target,
        corpus=str(line["corpus"]),
        utterance_id=str(line["utterance_id"]),
        speaker=str(line["speaker"]).partition("/")[2] or str(line["speaker"]),
        true=str(line["true"]),
        predicted=str(line["predicted"]),
        probabilities={label: float(line[column]) for label, column in columns},
    )


def _of_different_speakers(ranked: Sequence[Example], count: int) -> list[Example]:
    """Return the first of each speaker, then others, by their ranks."""
    speakers, first, others = set[str](), list[Example](), list[Example]()
    for each in ranked:
        (others if each.speaker in speakers else first).append(each)
        speakers.add(each.speaker)
    return sorted((first + others)[:count], key=ranked.index)


def add_audio(examples: Sequence[Example], shared: set[str], read: Read, most: int = AUDIO_BYTES) -> list[Example]:
    """Add excerpts to examples, as many as the page has room for.

    First one mistake of every class, then the hits, then the others.

    Args:
        shared: corpora whose licence allows to share excerpts.
        most: bytes of all data URIs.
    """
    found, room = list(examples), most
    seen = set[tuple[str, str, bool]]()
    order = list[tuple[int, int]]()
    for number, each in enumerate(examples):
        key = (each.target, each.true, each.right)
        order.append((2 if key in seen else int(each.right), number))
        seen.add(key)
    known: dict[str, str] = {}  # an utterance may be shown twice, in several folds
    for _, number in sorted(order):
        each = examples[number]
        if each.corpus not in shared:
            continue
        if each.utterance_id not in known:
            known[each.utterance_id] = as_data_uri(excerpt(*read(each.corpus, each.utterance_id)))
        if (room := room - len(known[each.utterance_id])) < 0:
            break
        found[number] = replace(each, audio=known[each.utterance_id])
    return found


def _left_out(predictions: "pd.DataFrame", labels: Mapping[str, tuple[str, ...]]) -> int:
    """Return how many targets are too many to be shown."""
    folds = shown_folds(labels)
    found = predictions[predictions["fold"].isin(folds)].drop_duplicates(["fold", "corpus"])
    return max(0, len(found) - MOST_TARGETS)
