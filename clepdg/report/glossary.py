"""The words of a report, in the words of docs/method.md#glossary."""

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from markupsafe import Markup

GLOSSARY: Final = {
    "ACPT": "acoustic context prompt tuning: learns contexts from text alone, as vectors in prompts",
    "centring": (
        "subtracting a mean from embeddings before they are compared: from text, the mean of its class means;"
        " from audio, the mean over source corpora of their class means (source), the mean of the target's "
        "test audio (target), or nothing (none)"
    ),
    "chance": "UAR of guessing: one over the number of classes",
    "CLAP": "contrastive language-audio pretraining: an audio and a text encoder with one joint embedding",
    "CLEP": "CLAP, fine-tuned on emotional speech with captions that name its emotion",
    "collapsed": "the row predicts one label for more than 90 % of the utterances in some seed",
    "condition": "clean, or a corruption of the test audio, such as pink-10dB",
    "conditional on one CLEP": (
        "one seed of CLEP was trained: the interval does not include the variation between training runs"
    ),
    "context": 'a phrase, or a learnt vector in its place, after "recorded in" in a prompt',
    "credits nothing": "a descriptive figure: no claim may rest on it, such as an interval that ignores speakers",
    "floor": "logistic regression on log-mel statistics: needs no encoder and no text",
    "fold": "which corpora are learnt from (sources) and which are evaluated (targets)",
    "interval without width": "low equals high, since each class is all right or all wrong: no sign of certainty",
    "left out": "no utterance of the corpus was trained on, selected on or calibrated on",
    "not decidable": "the credit rule lacks targets, rows, folds or conditions",
    "pooled": "all test utterances of the fold supervised, over all corpora",
    "random contexts": "contexts as ACPT starts, untrained: the difference to them is what ACPT's training adds",
    "speakers (effective)": "number of speakers, and that of equal speakers of the same spread: (Σ n)² / Σ n²",
    "supervised": "the training parts of all corpora are learnt from, and their test parts are evaluated",
    "test part (n)": "UAR on the test part of a corpus that was left out, and its number of utterances",
    "these corpora alone": "an interval over speakers and CLEP seeds, with the targets fixed",
    "transductive": "the row uses the target's own test audio, without labels, and is evaluated on test parts alone",
    "UAR, WAR": "unweighted average recall (macro recall); weighted average recall (accuracy)",
}
LINKED: Final = (  # where they occur in remarks and warnings; other words are too common to be links
    "collapsed",
    "conditional on one CLEP",
    "credits nothing",
    "interval without width",
    "not decidable",
    "transductive",
)


def anchor(word: str) -> str:
    """Return the id of a word's line in the page's glossary."""
    return "term-" + re.sub(r"[^a-z]+", "-", word.lower()).strip("-")


def linked(text: str) -> "Markup":
    """Escape a text, and link its words to the glossary."""
    from markupsafe import Markup, escape

    parts = re.split(f"({'|'.join(map(re.escape, LINKED))})", text)
    return Markup("").join(
        Markup('<a class="term" href="#{}">{}</a>').format(anchor(part), part) if part in LINKED else escape(part)
        for part in parts
    )
