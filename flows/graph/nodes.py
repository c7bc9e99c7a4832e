"""The stages of a fold, each as a node: what it reads of the configuration, and what it depends on.

Names say what a node is of: "leave-out-tess.c0" (fold and CLEP's seed), "leave-out-tess.frozen-text.c0" (of a variant
of CLEP), and below it "leave-out-tess.c0.acpt.l0" (contexts and the later seed).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from clepdg.audio import corruptions, noise
from clepdg.audio.corruptions import CLEAN, Condition
from clepdg.config.folds import PAIR, Fold, kind
from clepdg.config.rows import ACPT_VARIANTS, BACKBONE, CLEP_VARIANTS, CONTEXTS, ENCODER, FULL_BAND, MAIN, Row
from clepdg.config.schema import ClassifierConfig, Config
from clepdg.corpora import cards
from clepdg.download import folders
from clepdg.emotions import EMOTIONS, LABEL_SETS, alike
from clepdg.hashing import digest
from flows.graph.models import STATISTICS, backbone_name
from tasks.engine.node import Node
from tasks.stages import classifier as training
from tasks.stages import embeddings, models

CLEP = "clep"


class Head(NamedTuple):
    """A row's head for one pair of seeds, and the model whose audio embeddings it is applied to."""

    row: str
    seed: str
    model: str


def fold_emotions(fold: Fold, without: str | None = None) -> tuple[str, ...]:
    """Return the canonical emotions that the cards of a fold's sources name: never from target files.

    Args:
        without: an emotion that is to be added by its word alone: neither it nor what shares its label is there.
    """
    named = {emotion for corpus in fold.sources for emotion in cards.load_card(corpus).emotions}
    excluded = alike(without) if without else ()
    return tuple(emotion for emotion in EMOTIONS if emotion in named and emotion not in excluded)


def clep_name(fold: Fold, variant: str, seed: int) -> str:
    """Return the name of a CLEP: "leave-out-tess.c0", and of a variant "leave-out-tess.frozen-text.c0"."""
    return ".".join(part for part in (fold.name, variant, f"c{seed}") if part)


def clep(config: Config, fold: Fold, variant: str, seed: int) -> list[Node]:
    """CLEP of a fold: reads train and validation of the sources, and nothing of a target that is left out.

    Where its weights are mixed with the backbone's, the CLEP that is mixed comes before it.
    """
    settings = CLEP_VARIANTS[variant](config.clep)
    trained = replace(settings, clap_share=0.0)
    name = clep_name(fold, variant, seed)
    if settings.clap_share:
        pure = MAIN if trained == config.clep else "-".join(part for part in (variant, "trained") if part)
        name = clep_name(fold, pure, seed)
    emotions = fold_emotions(fold, settings.without_emotion)
    node = Node(
        stage="clep",
        name=name,
        compute=models.compute_clep,
        config={"clep": trained, "compute": config.compute, "emotions": emotions, "seed": seed},
        inputs={
            "backbone": f"backbone/{backbone_name(config, fold)}",
            **{f"shard/{corpus}": f"shard/{corpus}#learning" for corpus in fold.sources},
            **{f"index/{corpus}": f"index/{corpus}#learning" for corpus in fold.sources},
        },
        ranks=trained.ranks,
    )
    if not settings.clap_share:
        return [node]
    mixed = Node(
        stage="clep",
        name=clep_name(fold, variant, seed),
        compute=models.compute_interpolation,
        config={"clap_share": settings.clap_share, "compute": config.compute},
        inputs={"backbone": f"backbone/{backbone_name(config, fold)}", "clep": node.id},
    )
    return [node, mixed]


def acpt(config: Config, fold: Fold, variant: str, model: str, kind: str, seed: int) -> Node:
    """Context vectors of a fold's CLEP: learnt, or made without training, as a variant of ACPT says."""
    without = CLEP_VARIANTS[variant](config.clep).without_emotion
    return Node(
        stage="acpt",
        name=f"{model}.{kind}.l{seed}",
        compute=models.compute_acpt,
        config={
            "acpt": replace(config.acpt, **ACPT_VARIANTS[kind]),
            "compute": config.compute,
            "emotions": fold_emotions(fold, without),
            "seed": seed,
        },
        inputs={"clep": f"clep/{model}"},
    )


def text_name(model: str, row: Row, seed: int | None) -> str:
    """Return the name of a row's text embeddings: model, contexts, and the later seed where it changes them."""
    kind = row.contexts + ("-one-prompt" if row.one_prompt else "")
    model = f"{model.removesuffix(FULL_BAND)}{BACKBONE}" if model.endswith(FULL_BAND) else model  # the same words
    return f"{model}.{kind}" + (f".l{seed}" if CONTEXTS[row.contexts].acpt else "")


def text_embeddings(config: Config, model: str, model_id: str, row: Row, seed: int | None) -> Node:
    """The label set's words, embedded by a model with one kind of contexts."""
    contexts, text = CONTEXTS[row.contexts], config.text
    settings: dict[str, Any] = {
        "label_set": text.label_set,
        "content_templates": text.content_templates[:1] if row.one_prompt else text.content_templates,
        "content_template": config.acpt.content_template,
        "joint_template": config.acpt.joint_template,
        "how": contexts.how,
        "contexts": getattr(text, contexts.words) if contexts.words else (),
        "compute": config.compute,
    }
    if contexts.how == "noise":
        settings |= {"seed": seed}
    if contexts.how == "redrawn":
        settings |= {"redraws": text.redraws, "seed": seed}
    return Node(
        stage="text_embeddings",
        name=text_name(model, row, seed),
        compute=embeddings.compute_text_embeddings,
        config=settings,
        inputs={"model": model_id, **({"acpt": f"acpt/{model}.{contexts.acpt}.l{seed}"} if contexts.acpt else {})},
    )


def audio_embeddings(
    config: Config,
    model: str,
    model_id: str | None,
    corpus: str,
    heard: Condition | None = None,
    fold: Fold | None = None,
) -> Node:
    """Every utterance of a corpus, embedded by a model: shared by all rows, and by all folds with that model.

    In a condition other than clean only the test part is heard. A babble's talkers are of the fold's sources.
    """
    condition = heard.name if heard else CLEAN
    settings: dict[str, Any] = {"condition": condition, "compute": config.compute}
    shard = shard_name(corpus, full_band=model.endswith(FULL_BAND))
    inputs = {"shard": f"shard/{shard}", **({"model": model_id} if model_id else {})}
    state: dict[str, str] = {}
    if fold:
        inputs |= {f"talkers/{source}": f"shard/{source}#learning" for source in fold.sources}
    if heard and heard.noise == noise.OWN:
        settings["noise_folder"] = config.evaluate.noise_folder
        state = {"noise": digest(folders.listing(Path(str(config.evaluate.noise_folder)).expanduser()))}
    return Node(
        stage="audio_embeddings",
        name=audio_name(model, corpus, heard, fold),
        compute=embeddings.compute_audio_embeddings,
        config={**settings, **({"model": model} if model in (*STATISTICS, ENCODER) else {})},
        inputs=inputs,
        state=state,
    )


def shard_name(corpus: str, *, full_band: bool = False) -> str:
    """Return the name of a corpus's shards, at the configured rate or at the native one."""
    return f"{corpus}.full-band" if full_band else corpus


def audio_name(model: str, corpus: str, heard: Condition | None = None, fold: Fold | None = None) -> str:
    """Return the name of a corpus's embeddings by a model, in a condition, for a fold where it decides the babble."""
    of_fold = f"{fold.name}." if fold and not model.startswith(fold.name) else ""
    return f"{of_fold}{model}.{corpus}" + (f".{heard.name}" if heard else "")


def conditions_of(config: Config, fold: Fold) -> list[Condition]:
    """Return the corruptions in which a fold is heard: pairs are heard clean."""
    return [] if kind(fold.name) == PAIR else corruptions.conditions(config.evaluate.conditions)


def hears(model: str, heard: Condition | None) -> bool:
    """Tell whether a model hears a condition: corruptions are made at 16 kHz, where no full band is left."""
    return heard is None or not model.endswith(FULL_BAND)


def talkers(fold: Fold, heard: Condition) -> Fold | None:
    """Return the fold, where a condition is made of what its sources' speakers say."""
    return fold if heard.uses_babble else None


def new_label(config: Config, row: Row) -> str | None:
    """Return the label that a row adds by its word alone, if it does."""
    without = CLEP_VARIANTS[row.variant](config.clep).without_emotion
    learns_words = row.model == CLEP and row.head in ("text", "prompts")
    return LABEL_SETS[config.text.label_set].get(without or "") if learns_words else None


def classifier(config: Config, fold: Fold, row: Row, head: Head, later: int | None) -> Node:
    """The head of one row: sees the sources' train and validation parts alone; a ceiling, the target's."""
    settings: dict[str, Any] = {"head": row.head, "label_set": config.text.label_set}
    text: dict[str, str] = {}
    if row.head in ("prompts", "text"):
        chosen = row.classifier_config(config.classifier)
        if row.head == "prompts":  # no steps: of all settings it reads the centring alone
            chosen = ClassifierConfig(steps=0, centring=chosen.centring)
        settings |= {"classifier": chosen, "seed": later or 0}
        text = {"text": f"text_embeddings/{text_name(head.model, row, later)}"}
        if CONTEXTS[row.contexts].how == "redrawn":
            settings |= {"redraws": config.text.redraws}
        if new := new_label(config, row):
            settings |= {"new_label": new}
    corpora = fold.targets if row.ceiling else fold.sources
    return Node(
        stage="classifier",
        name=f"{fold.name}.{head.row}.{head.seed}",
        compute=training.compute_classifier,
        config=settings,
        inputs={
            **text,
            **{f"audio/{corpus}": f"audio_embeddings/{head.model}.{corpus}" for corpus in corpora},
            **{f"index/{corpus}": f"index/{corpus}#learning" for corpus in corpora},
        },
    )
