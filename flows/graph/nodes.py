"""Nodes of a fold's stages, with the settings that they read and the outputs that they depend on."""

from dataclasses import replace
from typing import Any

from clepdg.config.folds import Fold
from clepdg.config.label_sets import of_targets
from clepdg.config.rows import ACPT_VARIANTS, CLEP_VARIANTS, CONTEXTS, MAIN, Row
from clepdg.config.schema import ClassifierConfig, Config
from clepdg.corpora import cards
from clepdg.emotions import EMOTIONS, alike, label_of
from clepdg_flows.graph.models import Model, backbone_ref, is_dual, of_corpora
from clepdg_flows.graph.refs import (
    Head,
    acpt_ref,
    audio_ref,
    contexts_name,
    head_ref,
    text_ref,
)
from clepdg_tasks.engine.node import Node, Ref
from clepdg_tasks.stages import classifier as training
from clepdg_tasks.stages import embeddings, models

CLEP = "clep"


def fold_emotions(config: Config, fold: Fold, without: str | None = None) -> tuple[str, ...]:
    """Return the emotions that the cards of a fold's sources name.

    Args:
        without: an emotion that a row adds by its word alone: it and the emotions that share its label are left out.
    """
    named = {emotion for corpus in fold.sources for emotion in cards.load_card(corpus).emotions}
    excluded = alike(without, of_targets(config.text.label_set, fold.targets)) if without else ()
    return tuple(emotion for emotion in EMOTIONS if emotion in named and emotion not in excluded)


def clep_model(fold: Fold, variant: str, seed: int) -> Model:
    """Return a fold's CLEP, or a variant of it."""
    name = ".".join(part for part in (fold.name, variant, f"c{seed}") if part)
    ref, seed_name = Ref("clep", name), f"c{seed}"
    return Model(name, ref, name, fold=fold.name, variant=variant, seed=seed_name, trained_on=fold.sources)


def standardised(model: Model) -> Model:
    """Return a fold's CLEP whose targets are standardised on themselves."""
    return replace(model, name=f"{model.name}.target-standardised", target_standardised=True)


def clep(config: Config, fold: Fold, variant: str, seed: int) -> list[Node]:
    """Return the nodes of a fold's CLEP.

    It learns from the sources' train and validation parts alone. If its weights are interpolated with the
    backbone's, the node of the CLEP to interpolate comes first.
    """
    settings = CLEP_VARIANTS[variant](config.clep)
    trained = replace(settings, clap_share=0.0)
    whole = trainee = clep_model(fold, variant, seed)
    if settings.clap_share:
        pure = MAIN if trained == config.clep else "-".join(part for part in (variant, "trained") if part)
        trainee = clep_model(fold, pure, seed)
    emotions = fold_emotions(config, fold, settings.without_emotion)
    node = Node(
        stage="clep",
        name=trainee.name,
        compute=models.compute_clep,
        config={"clep": trained, "compute": config.compute, "emotions": emotions, "seed": seed},
        inputs={
            "backbone": backbone_ref(config, fold),
            **of_corpora("shard", fold.sources, "learning"),
            **(of_corpora("features", fold.sources, "learning") if is_dual(config) else {}),
            **of_corpora("index", fold.sources, "learning"),
        },
        ranks=trained.ranks,
        tags=trainee.tags,
        trained_on=trainee.trained_on,
    )
    if not settings.clap_share:
        return [node]
    interpolated = Node(
        stage="clep",
        name=whole.name,
        compute=models.compute_interpolation,
        config={"clap_share": settings.clap_share, "compute": config.compute},
        inputs={"backbone": backbone_ref(config, fold), "clep": node.ref},
        tags=whole.tags,
        trained_on=whole.trained_on,
    )
    return [node, interpolated]


def acpt(config: Config, fold: Fold, model: Model, kind: str, seed: int) -> Node:
    """Return the node of a CLEP's context vectors by a variant of ACPT."""
    without = CLEP_VARIANTS[model.variant](config.clep).without_emotion
    return Node(
        stage="acpt",
        name=acpt_ref(model, kind, seed).name,
        compute=models.compute_acpt,
        config={
            "acpt": replace(config.acpt, **ACPT_VARIANTS[kind]),
            "compute": config.compute,
            "emotions": fold_emotions(config, fold, without),
            "seed": seed,
        },
        inputs={"clep": Ref("clep", model.name)},
        tags={**model.tags, "contexts": kind, "seed": f"{model.seed}.l{seed}"},
        trained_on=model.trained_on,
    )


def text_embeddings(config: Config, fold: Fold, model: Model, row: Row, seed: int | None) -> Node:
    """Return the node of the fold's label set's text embeddings for a row."""
    contexts, text = CONTEXTS[row.contexts], config.text
    settings: dict[str, Any] = {
        "label_set": of_targets(text.label_set, fold.targets),
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
        name=text_ref(model, row, seed).name,
        compute=embeddings.compute_text_embeddings,
        config=settings,
        inputs={**model.inputs, **({"acpt": acpt_ref(model, contexts.acpt, seed)} if contexts.acpt else {})},
        tags={
            **model.tags,
            "model": model.text_name,
            "contexts": contexts_name(row),
            **({"seed": f"{model.seed}.l{seed}"} if contexts.acpt else {}),
        },
        trained_on=model.trained_on,
    )


def new_label(config: Config, fold: Fold, row: Row) -> str | None:
    """Return the label that a row adds by its word alone; None: it adds none."""
    without = CLEP_VARIANTS[row.variant](config.clep).without_emotion
    learns_words = row.model == CLEP and row.head in ("text", "prompts")
    own = label_of(of_targets(config.text.label_set, fold.targets))
    return own.get(without or "") if learns_words else None


def classifier(config: Config, fold: Fold, row: Row, head: Head, model: Model, later: int | None) -> Node:
    """Return the node of a row's head.

    It learns from the sources' train and validation parts; a ceiling's, from those of the target.
    """
    settings: dict[str, Any] = {"head": row.head, "label_set": of_targets(config.text.label_set, fold.targets)}
    text: dict[str, Ref] = {}
    if row.head in ("prompts", "text"):
        chosen = row.classifier_config(config.classifier)
        if row.head == "prompts":  # no steps: of all settings it reads the centring alone
            chosen = ClassifierConfig(steps=0, centring=chosen.centring)
        settings |= {"classifier": chosen, "seed": later or 0}
        text = {"text": text_ref(model, row, later)}
        if CONTEXTS[row.contexts].how == "redrawn":
            settings |= {"redraws": config.text.redraws}
        if new := new_label(config, fold, row):
            settings |= {"new_label": new}
    corpora = fold.targets if row.ceiling else fold.sources
    return Node(
        stage="classifier",
        name=head_ref(fold, head).name,
        compute=training.compute_classifier,
        config=settings,
        inputs={
            **text,
            **{f"audio/{corpus}": audio_ref(model, corpus) for corpus in corpora},
            **of_corpora("index", corpora, "learning"),
        },
        tags={"model": head.model, "fold": fold.name, "row": head.row, "seed": head.seed},
        trained_on=tuple(sorted({*model.trained_on, *corpora})),
    )
