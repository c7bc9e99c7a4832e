"""A registered classifier made anew for words of the user's, from text alone."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch

from clepdg import prompts
from clepdg.callbacks import Reporting
from clepdg.config.schema import ClassifierConfig, TextConfig
from clepdg.config.validation import are_phrases
from clepdg.errors import HAS_DOCS, ConfigError, StoreError
from clepdg.hashing import digest
from clepdg.method import acpt, classifier
from clepdg.method.emotion_classifier import EmotionClassifier
from clepdg.method.heads import Head, load_head
from clepdg.method.text_embeddings import build_text_embeddings, load_text_embeddings
from clepdg.models.clap import Clap
from clepdg.models.folder import load_model
from clepdg.store.record import Record
from clepdg.store.store import Store

WHERE: Final = "emotions"
NEW: Final = (
    "No audio taught these words, only the text encoder places them: %s. Probabilities are shares among the words"
    " given, not calibrated for them." + (" What to expect: docs/method.md#words-of-your-own" if HAS_DOCS else "")
)
log = logging.getLogger("clepdg")


def check_words(words: Sequence[str]) -> tuple[str, ...]:
    """Return words in their order.

    Raises:
        ConfigError: they are fewer than two, one comes twice, or one is empty or has braces.
    """
    found = tuple(word.strip() for word in words)
    if isinstance(words, str) or len(found) < 2 or len({*found}) < len(found) or not are_phrases(found):
        expected = "at least two words, none twice, empty or with braces"
        raise ConfigError("These are no emotions to choose from.", got=words, expected=expected, where=WHERE)
    return found


def fit_words(
    clap: Clap,
    words: Sequence[str],
    head: Head,
    text: Path,
    settings: Mapping[str, Any],
    contexts: Path | None,
    config: ClassifierConfig,
    seed: int,
    folder: Path,
) -> Head:
    """Fit a head (N, D) for N words, as the given one was for its labels.

    Text is centred by the mean of the given head's labels, since the head's mean of audio is over these.

    Args:
        head: the head to start from; its mean of audio and its temperature stay.
        text: folder of the text embeddings that it was learnt from.
        settings: of the stage that made them.
        contexts: folder of ACPT's contexts; None: those in words of the settings.
        config: of the classifier.
        folder: for checkpoints of the training.

    Raises:
        ConfigError: the contexts are drawn anew for every set of labels.
        BackboneError: the backbone does not know a word.
    """
    if settings["how"] != "given":
        raise ConfigError("This version's contexts can't be used for other words.", got=settings["how"], where=WHERE)
    ensemble = TextConfig(content_templates=tuple(settings["content_templates"]))
    given = acpt.load(contexts) if contexts else tuple(settings["contexts"])
    templates = settings["content_template"], settings["joint_template"]
    made = build_text_embeddings(clap, ensemble, given, *templates, names=tuple(words))
    x = made.embeddings
    if config.centring != "none":
        known = load_text_embeddings(text)
        means = classifier.class_means(known.embeddings, known.label_index, len(known.labels))
        x = x - means.mean(dim=0)
    own = replace(config, centring="none")  # done
    weight, _ = classifier.fit_text(x, made.label_index, len(words), own, seed, folder, Reporting())
    return replace(head, labels=tuple(words), weight=weight, bias=torch.zeros(len(words)))


def classify_words(
    store: Store, keys: Mapping[str, str], clep: Path, head: Path, words: tuple[str, ...], kept: Path
) -> EmotionClassifier:
    """Return a stored classifier made anew for words.

    Args:
        store: it holds what the classifier was made of.
        keys: stage name -> key, of the run that made it.
        clep: folder of its CLEP.
        head: folder of the output of stage classifier.
        kept: keeps the head for the next call with these words.

    Raises:
        StoreError: the store does not hold what it was made of.
    """
    place = kept / digest([head.name, words])
    if place.is_dir():
        clap, own = load_model(clep, audio_only=True), load_head(place)
    else:
        clap = load_model(clep)
        own = _fit(clap, store, keys, head, words)
        _keep(own, place)
    taught = store.lookup("clep", clep.name)
    emotions = taught.config.get("emotions", ()) if isinstance(taught, Record) else ()
    known = {word for emotion in emotions for word in prompts.EMOTION_WORDS[emotion]}
    if new := [word for word in words if word not in known]:
        log.warning(NEW, ", ".join(new))
    return EmotionClassifier(clap, own)


def _fit(clap: Clap, store: Store, keys: Mapping[str, str], head: Path, words: tuple[str, ...]) -> Head:
    """Fit a stored classifier's head for words."""
    learnt = store.lookup("classifier", head.name)
    if not isinstance(learnt, Record):
        raise StoreError("The store does not hold this classifier.", got=learnt, where=head)
    text, made = _made_of(store, keys, "text_embeddings", learnt.inputs["text"])
    contexts = _made_of(store, keys, "acpt", made.inputs["acpt"])[0] if "acpt" in made.inputs else None
    config = ClassifierConfig(**learnt.config["classifier"])
    with TemporaryDirectory(prefix="clepdg-") as place:
        parts = load_head(head), text, made.config, contexts, config, learnt.config["seed"], Path(place)
        return fit_words(clap, words, *parts)


def _keep(head: Head, place: Path) -> None:
    """Write a head at once, or not at all: it can be made again."""
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=place.parent) as scratch:
            (written := Path(scratch) / "head").mkdir()
            head.save(written)
            written.rename(place)


def _made_of(store: Store, keys: Mapping[str, str], stage: str, content: str) -> tuple[Path, Record]:
    """Return folder and record of a run's output with this content."""
    for record in (store.lookup(stage, key) for name, key in keys.items() if name.startswith(f"{stage}/")):
        if isinstance(record, Record) and record.digests["content"] == content:
            return store.local(stage, record.key), record
    raise StoreError("The store does not hold what this version was made of.", got=stage, where=store.url)
