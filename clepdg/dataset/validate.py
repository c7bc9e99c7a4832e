"""Validate an index against its card, by the figures of the index alone."""

import logging
from collections.abc import Mapping
from typing import Any

from clepdg.config.manifests import find
from clepdg.corpora.cards import SPLITS, Card
from clepdg.dataset.tables import QUARANTINE
from clepdg.errors import CorpusError, some

log = logging.getLogger("clepdg")


def check(figures: Mapping[str, Any], card: Card, *, allow_partial: bool, place: str = "") -> None:
    """Validate a corpus's figures against its card.

    Every run calls it, also where the index is reused.

    Args:
        allow_partial: warn instead of raising where the copy differs from the card.
        place: the folder of the index, whose quarantine lists every fault.

    Raises:
        CorpusError: no usable utterance, or none in one part of the split; and, unless allow_partial, more quarantined
            files than the card allows, another number of utterances, speakers or raw labels or another usual rate
            than the card's, other files than its table's, or missing exclusions or speakers of its split. One error
            names all.
    """
    where = f"the source of {card.name}" + (
        f"; every fault: {place}/{QUARANTINE}" if figures["quarantined"] and place else ""
    )
    if not figures["utterances"]:
        raise CorpusError(
            f"{card.name} holds no usable utterance.",
            got=_pointers(figures) or figures["reasons"] or "no audio file",
            expected=f"{card.expected.utterances or 'the'} utterances of {card.title}",
            where=where,
            do=_remedy(figures, card) or f"check that --source {card.name}=FOLDER is the corpus's folder",
        )
    always = [f"no utterance in {split}" for split in SPLITS if not figures["splits"][split]]
    if card.split.unit == "speaker" and (crossing := figures["crossing"]):
        always.append(f"speakers in more than one part of the split ({len(crossing)}): {', '.join(crossing[:5])}")
    missed = [f"the card excludes {entry}, which is not there (check the spelling)" for entry in figures["unmatched"]]
    if absent := figures["absent"]:
        missed.append(
            f"the card's split names speakers who are not there (check the spelling): {', '.join(some(absent))}"
        )
    faulty = _too_many_errors(figures, card)
    differences = [*faulty, *card_differences(figures, card), *missed]
    if allow_partial and missed:
        log.warning("%s: %s", card.name, "; ".join(missed))
    if always or (differences and not allow_partial):
        whole = f"get the whole corpus ({card.homepage})"
        if always:
            whole += (
                f", or correct {'exclude or ' if figures['excluded'] else ''}[split] in {find(card.name + '.toml')}"
            )
        elif not allow_partial:
            whole += ", or pass --allow-partial (a deployment's parameter allow_partial)"
        raise CorpusError(
            f"{card.name} differs from its card.",
            got=always if allow_partial else always + differences,
            where=where,
            do="; ".join(part for part in (_remedy(figures, card), whole) if part),
            children=_reasons(figures) if faulty else (),
        )


def _pointers(figures: Mapping[str, Any]) -> str:
    files = figures["utterances"] + figures["quarantined"]
    return f"{figures['pointers']} of {files} files are git lfs pointers, not audio" if figures["pointers"] else ""


def _remedy(figures: Mapping[str, Any], card: Card) -> str:
    """Return what to do about faults with a known cause, or ""."""
    unknown = sorted({*figures["found"]["raw_labels"]} - {*card.labels})
    steps = ["run git lfs pull in the corpus's clone"] if figures["pointers"] else []
    steps += [f"add {', '.join(unknown)} to [labels] in {find(card.name + '.toml')}"] if unknown else []
    return "; ".join(steps)


def _too_many_errors(figures: Mapping[str, Any], card: Card) -> list[str]:
    quarantined = figures["quarantined"]
    files = figures["utterances"] + quarantined
    if quarantined <= card.allowed_errors * files:
        return []
    pointers = f": {_pointers(figures)}" if figures["pointers"] else ""
    return [f"{quarantined} of {files} files can't be used (at most {card.allowed_errors:.1%}){pointers}"]


def _reasons(figures: Mapping[str, Any]) -> list[str]:
    """Return the first reasons of the quarantine, and how many more there are."""
    shown, more = figures["reasons"], figures["quarantined"] - len(figures["reasons"])
    return [] if figures["pointers"] else [*shown, *([f"and {more} more"] if more else [])]


def copy_differences(figures: Mapping[str, Any], card: Card) -> list[str]:
    """Return a summary of how a copy differs from its card.

    Single labels are listed only if nothing else differs. A synthetic corpus may have any size.
    """
    lines = [] if card.acoustics else card_differences(figures, card)
    return [line for line in lines if not line.startswith("raw label")] or lines


def card_differences(figures: Mapping[str, Any], card: Card) -> list[str]:
    """Return how a copy differs from its card.

    Quarantined and excluded utterances count as present.
    """
    found, expected = figures["found"], card.expected
    pairs = {
        "utterances": (found["utterances"], expected.utterances),
        "speakers": (found["speakers"], expected.speakers),
        "usual rate in Hz": (figures["sample_rate"], expected.sample_rate),
    }
    if expected.emotions:
        for label in sorted({*found["raw_labels"], *expected.emotions}):
            pairs[f"raw label {label}"] = (found["raw_labels"].get(label, 0), expected.emotions.get(label, 0))
    lines = [f"{name}: {got}, not {wanted}" for name, (got, wanted) in pairs.items() if wanted not in (None, got)]
    listed, altered = figures["published"]["listed"], figures["published"]["altered"]
    return lines + ([f"{altered} of {listed} files are not the published ones (sha256)"] if altered else [])
