"""Nodes of a fold's stages, with the settings that they read and the outputs that they depend on.

Names are made of tags: "leave-out-tess.c0" (fold and CLEP's seed), "leave-out-tess.frozen-text.c0" (a variant of CLEP),
"leave-out-tess.c0.acpt.l0" (contexts and the later seed). Nothing reads them back: a node has its tags beside its name.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from clepdg.audio import corruptions, noise
from clepdg.audio.corruptions import CLEAN, Condition
from clepdg.config.folds import PAIR, Fold, kind
from clepdg.config.rows import ACPT_VARIANTS, CLEP_VARIANTS, CONTEXTS, ENCODER, MAIN, Row
from clepdg.config.schema import ClassifierConfig, Config
from clepdg.corpora import cards
from clepdg.download import folders
from clepdg.emotions import EMOTIONS, LABEL_SETS, alike
from clepdg.hashing import digest
from clepdg_flows.graph.models import STATISTICS, Model, backbone_name
from clepdg_tasks.engine.node import Node
from clepdg_tasks.stages import classifier as training
from clepdg_tasks.stages import embeddings, models

CLEP = "clep"


class Head(NamedTuple):
    """Head of a row for one pair of seeds, and the name of its audio model."""

    row: str
    seed: str
    model: str


def fold_emotions(fold: Fold, without: str | None = None) -> tuple[str, ...]:
    """Return the emotions that the cards of a fold's sources name.

    Args:
        without: an emotion that a row adds by its word alone: it and the emotions that share its label are left out.
    """
    named = {emotion for corpus in fold.sources for emotion in cards.load_card(corpus).emotions}
    excluded = alike(without) if without else ()
    return tuple(emotion for emotion in EMOTIONS if emotion in named and emotion not in excluded)


def clep_model(fold: Fold, variant: str, seed: int) -> Model:
    """Return a fold's CLEP, or a variant of it."""
    name = ".".join(part for part in (fold.name, variant, f"c{seed}") if part)
    return Model(name, f"clep/{name}", name, fold=fold.name, variant=variant, seed=f"c{seed}")


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
    emotions = fold_emotions(fold, settings.without_emotion)
    node = Node(
        stage="clep",
        name=trainee.name,
        compute=models.compute_clep,
        config={"clep": trained, "compute": config.compute, "emotions": emotions, "seed": seed},
        inputs={
            "backbone": f"backbone/{backbone_name(config, fold)}",
            **{f"shard/{corpus}": f"shard/{corpus}#learning" for corpus in fold.sources},
            **{f"index/{corpus}": f"index/{corpus}#learning" for corpus in fold.sources},
        },
        ranks=trained.ranks,
        tags=trainee.tags,
    )
    if not settings.clap_share:
        return [node]
    interpolated = Node(
        stage="clep",
        name=whole.name,
        compute=models.compute_interpolation,
        config={"clap_share": settings.clap_share, "compute": config.compute},
        inputs={"backbone": f"backbone/{backbone_name(config, fold)}", "clep": node.id},
        tags=whole.tags,
    )
    return [node, interpolated]


def acpt(config: Config, fold: Fold, model: Model, kind: str, seed: int) -> Node:
    """Return the node of a CLEP's context vectors by a variant of ACPT."""
    without = CLEP_VARIANTS[model.variant](config.clep).without_emotion
    return Node(
        stage="acpt",
        name=f"{model.name}.{kind}.l{seed}",
        compute=models.compute_acpt,
        config={
            "acpt": replace(config.acpt, **ACPT_VARIANTS[kind]),
            "compute": config.compute,
            "emotions": fold_emotions(fold, without),
            "seed": seed,
        },
        inputs={"clep": str(model.node_id)},
        tags={**model.tags, "contexts": kind, "seed": f"{model.seed}.l{seed}"},
    )


def text_name(model: Model, row: Row, seed: int | None) -> str:
    """Return the name of a row's text embeddings."""
    return f"{model.text_name}.{_contexts_name(row)}" + (f".l{seed}" if CONTEXTS[row.contexts].acpt else "")


def _contexts_name(row: Row) -> str:
    return row.contexts + ("-one-prompt" if row.one_prompt else "")


def text_embeddings(config: Config, model: Model, row: Row, seed: int | None) -> Node:
    """Return the node of the label set's text embeddings for a row."""
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
        inputs={
            "model": str(model.node_id),
            **({"acpt": f"acpt/{model.name}.{contexts.acpt}.l{seed}"} if contexts.acpt else {}),
        },
        tags={
            **model.tags,
            "model": model.text_name,
            "contexts": _contexts_name(row),
            **({"seed": f"{model.seed}.l{seed}"} if contexts.acpt else {}),
        },
    )


def audio_embeddings(
    config: Config, model: Model, corpus: str, condition: Condition | None = None, fold: Fold | None = None
) -> Node:
    """Return the node of a corpus's audio embeddings by a model.

    All rows and folds with that model share it. In a condition other than clean only the test part
    is embedded. A babble's talkers are of the fold's sources.
    """
    name = condition.name if condition else CLEAN
    settings: dict[str, Any] = {"condition": name, "compute": config.compute}
    shard = shard_name(corpus, full_band=model.full_band)
    fold = _talkers(fold, condition)
    inputs = {"shard": f"shard/{shard}", **({"model": model.node_id} if model.node_id else {})}
    state: dict[str, str] = {}
    if fold:
        inputs |= {f"talkers/{source}": f"shard/{source}#learning" for source in fold.sources}
    if condition and condition.noise == noise.OWN:
        settings["noise_folder"] = config.evaluate.noise_folder
        state = {"noise": digest(folders.listing(Path(str(config.evaluate.noise_folder)).expanduser()))}
    return Node(
        stage="audio_embeddings",
        name=audio_name(model, corpus, condition, fold),
        compute=embeddings.compute_audio_embeddings,
        config={**settings, **({"model": model.name} if model.name in (*STATISTICS, ENCODER) else {})},
        inputs=inputs,
        state=state,
        tags={**({"fold": fold.name} if fold else {}), **model.tags, "corpus": corpus, "condition": name},
    )


def shard_name(corpus: str, *, full_band: bool = False) -> str:
    """Return the name of a corpus's shards, band-limited or full-band."""
    return f"{corpus}.full-band" if full_band else corpus


def audio_name(model: Model, corpus: str, condition: Condition | None = None, fold: Fold | None = None) -> str:
    """Return the name of a corpus's audio embeddings, with a babble's fold."""
    fold = _talkers(fold, condition)
    of_fold = f"{fold.name}." if fold and not model.fold else ""
    return f"{of_fold}{model.name}.{corpus}" + (f".{condition.name}" if condition else "")


def _talkers(fold: Fold | None, condition: Condition | None) -> Fold | None:
    """Return the fold if a condition mixes in its sources' speech, else None."""
    return fold if condition and condition.uses_babble else None


def conditions_of(config: Config, fold: Fold) -> list[Condition]:
    """Return the corruptions under which a fold is evaluated: none for pairs."""
    return [] if kind(fold.name) == PAIR else corruptions.conditions(config.evaluate.conditions)


def is_evaluated(model: Model, condition: Condition | None) -> bool:
    """Return whether a model is evaluated under a condition.

    Corruptions are made at 16 kHz, which leaves no full band.
    """
    return condition is None or not model.full_band


def new_label(config: Config, row: Row) -> str | None:
    """Return the label that a row adds by its word alone; None: it adds none."""
    without = CLEP_VARIANTS[row.variant](config.clep).without_emotion
    learns_words = row.model == CLEP and row.head in ("text", "prompts")
    return LABEL_SETS[config.text.label_set].get(without or "") if learns_words else None


def classifier(config: Config, fold: Fold, row: Row, head: Head, model: Model, later: int | None) -> Node:
    """Return the node of a row's head.

    It learns from the sources' train and validation parts; a ceiling's, from those of the target.
    """
    settings: dict[str, Any] = {"head": row.head, "label_set": config.text.label_set}
    text: dict[str, str] = {}
    if row.head in ("prompts", "text"):
        chosen = row.classifier_config(config.classifier)
        if row.head == "prompts":  # no steps: of all settings it reads the centring alone
            chosen = ClassifierConfig(steps=0, centring=chosen.centring)
        settings |= {"classifier": chosen, "seed": later or 0}
        text = {"text": f"text_embeddings/{text_name(model, row, later)}"}
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
        tags={"model": head.model, "fold": fold.name, "row": head.row, "seed": head.seed},
    )
