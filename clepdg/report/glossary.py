"""The words of a report, in the words of docs/method.md#glossary."""

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from markupsafe import Markup

GLOSSARY: Final = {
    "ACPT": "acoustic context prompt tuning: learns contexts from text alone, as vectors in prompts",
    "best rival": (
        "of the credit rule's rivals (no contexts, random ones, hand-written ones, noise for contexts, centred "
        "zero-shot) the one that ACPT's row is least ahead of; other rows are controls or other methods"
    ),
    "centring": (
        "subtracting a mean from embeddings before they are compared: from text, the mean of its class means; from"
        " audio, the mean over source corpora of their class means (source), the mean of the target's test audio "
        "(target), or nothing (none)"
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
    "credit rule": (
        "ACPT is credited if its row is above every rival on clean audio and over 25 corruptions, over the left-out"
        " corpora, at a level of .05 for both together"
    ),
    "credits nothing": "a descriptive figure: no claim may rest on it, such as an interval that ignores speakers",
    "ECE": "expected calibration error: how far probabilities are from how often predictions are right",
    "floor": "logistic regression on log-mel statistics: needs no encoder and no text",
    "fold": "which corpora are learnt from (sources) and which are evaluated (targets)",
    "interval without width": "low equals high, since each class is all right or all wrong: no sign of certainty",
    "largest share": "the share of predictions that the most frequent label gets, in the worst seed",
    "left out": "no utterance of the corpus was trained on, selected on or calibrated on",
    "linear probe": "logistic regression on audio embeddings, learnt from the sources' labels",
    "NLL": "mean negative log-likelihood of the true label: lower is better",
    "not decidable": "the credit rule lacks targets, rows, folds or conditions",
    "not testable": "the backbone's text was never pretrained, so that its words for contexts mean nothing",
    "pooled": "all test utterances of the fold supervised, over all corpora",
    "pooled states": "mean and deviation over active speech of each layer of the speech encoder, before heads and CLEP",
    "random contexts": "contexts as ACPT starts, untrained: the difference to them is what ACPT's training adds",
    "seed": "of CLEP: one of its trainings; of later stages: one draw of ACPT, classifiers and probes",
    "speakers (effective)": "number of speakers, and that of equal speakers of the same spread: (Σ n)² / Σ n²",
    "standardised": "embeddings of the speech encoder, shifted and scaled to mean 0 and deviation 1",
    "supervised": "the training parts of all corpora are learnt from, and their test parts are evaluated",
    "test part (n)": "UAR on the test part of a corpus that was left out, and its number of utterances",
    "these corpora alone": "an interval over speakers and CLEP seeds, with the targets fixed",
    "transductive": "the row uses the target's own test audio, without labels, and is evaluated on test parts alone",
    "UAR, WAR": "unweighted average recall (macro recall); weighted average recall (accuracy)",
    "untrained heads": "the dual backbone as it starts, before CLEP",
    "zero-shot": "an utterance gets the label whose prompts are nearest to its audio",
}
LINKED: Final = (  # where they occur in remarks and warnings; other words are too common to be links
    "best rival",
    "credit rule",
    "collapsed",
    "conditional on one CLEP",
    "credits nothing",
    "interval without width",
    "not decidable",
    "not testable",
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
