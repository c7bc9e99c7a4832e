"""Texts of the report about a run: titles of rows, facts, and a caption with the limits of its numbers."""

from pathlib import Path
from typing import Any

from clepdg.config.label_sets import OwnLabels, key_of, name_of, of_targets
from clepdg.config.rows import CLEP_VARIANTS, ENCODER, Row
from clepdg.config.schema import MICRO, MICRO_CONTEXT, Config
from clepdg.corpora.cards import load_card
from clepdg.emotions import labels
from clepdg.errors import counted
from clepdg_flows.graph.models import BACKBONES, backbone_by_fold, is_dual

PRETRAINING = {MICRO: " (no pretraining)", MICRO_CONTEXT: " (pretrained on environments alone)"}


def title(config: Config, row: Row) -> str:
    """Return a row's title in the tables of this run."""
    micro = config.backbone.name == MICRO
    text = row.title
    if row.model == ENCODER:
        text = text.replace("a speech encoder", f"speech encoder {Path(str(config.encoder.name)).name}")
    if micro and row.model in BACKBONES:
        text = text.replace("CLAP zero-shot", "untrained encoder, zero-shot").replace("CLAP", "the untrained encoder's")
    if config.backbone.name == MICRO_CONTEXT and row.model in BACKBONES:
        text = text.replace("CLAP zero-shot", "encoder of environments, zero-shot")
        text = text.replace("CLAP", "the encoder of environments'")
    if is_dual(config) and backbone_by_fold(config) and row.model in BACKBONES:
        text = text.replace("CLAP zero-shot", "heads of environments, zero-shot")
        text = text.replace("CLAP", "the heads of environments'")
    if is_dual(config) and row.model in BACKBONES:
        text = text.replace("CLAP zero-shot", "untrained heads, zero-shot").replace("CLAP", "the untrained heads'")
    emotionless = config.backbone.name in (MICRO, MICRO_CONTEXT)  # its words for emotions mean nothing before CLEP
    if emotionless and CLEP_VARIANTS[row.variant](config.clep).without_emotion:
        text += " (not testable: no pretrained words for emotions)"
    centred = row.head in ("prompts", "text") and row.classifier_config(config.classifier).centring == "target"
    return text + (" (transductive)" if centred or row.target_standardised else "")


def untestable(config: Config) -> str | None:
    """Return why ACPT's credit can't be tested with this backbone, or None."""
    return "no pretrained text" if config.backbone.name == MICRO else None


def _label_sets(config: Config) -> dict[str, Any]:
    """Return the labels of the results, a line a target where they differ."""
    own = config.text.label_set
    targets = [(corpus,) for corpus in config.corpora] + [config.corpora]
    found = {key_of(each): (name_of(own, each), ", ".join(labels(of_targets(own, each)))) for each in targets}
    if isinstance(own, OwnLabels) and own.targets:
        return {"label sets": {target: {"name": name, "labels": words} for target, (name, words) in found.items()}}
    name, words = found[key_of(config.corpora)]
    return {"label set": words if own == name else f"{name}: {words}"}


def facts(config: Config) -> dict[str, Any]:
    """Return facts about the run, and a caption with its numbers' limits."""
    micro = config.backbone.name == MICRO
    synthetic = [corpus for corpus in config.corpora if load_card(corpus).acoustics]
    real = [corpus for corpus in config.corpora if corpus not in synthetic]
    captions = [f"Real speech: {', '.join(real)}."] if real else []
    if synthetic:
        captions.append(
            f"Synthetic speech ({', '.join(synthetic)}): its scores show that every stage works and that its parts fit"
            " together; they say nothing about real emotional speech."
        )
    caption = " ".join(captions)
    if micro:
        caption += (
            " Backbone micro is a random model with no pretraining: its words have no meaning before CLEP, so hand-"
            "written contexts are random ones here, and ACPT's credit is not testable (no pretrained text)."
        )
    if config.backbone.name == MICRO_CONTEXT:
        caption += (
            " Backbone micro-context is micro, pretrained in each fold on its sources' audio in generated environments"
            " under captions that name them: it tests the mechanism of contexts, not whether text alone is enough."
        )
    if is_dual(config) and backbone_by_fold(config):
        caption += (
            " Backbone dual-context is dual, whose heads are pretrained in each fold on its sources' audio in generated"
            " environments under captions that name them: it tests the mechanism of contexts with words that mean"
            " something, not whether text alone is enough."
        )
    if isinstance(config.text.label_set, OwnLabels) and config.text.label_set.targets:
        caption += (
            " Targets have label sets of their own: their UARs have different chance levels, and a mean over targets is"
            " one over different tasks."
        )
    encoder, at = config.encoder, f" at {config.backbone.revision}"
    seeds = f"{counted(len(config.clep_seeds), 'seed')} of CLEP, {len(config.later_seeds)} of later stages"
    return {
        "caption": caption,
        "preset": config.preset,
        "backbone": config.backbone.name + PRETRAINING.get(config.backbone.name, "" if is_dual(config) else at),
        **({"standardisation": config.clep.standardise} if is_dual(config) else {}),
        **({"speech encoder": f"{encoder.name} at {encoder.revision}"} if encoder.name else {}),
        **_label_sets(config),
        "seeds": seeds,
        "centring": config.classifier.centring
        + (" (uses labelled source audio)" if config.classifier.centring == "source" else ""),
        "audio": ", ".join(("clean", *config.evaluate.conditions)),
        "intervals": f"{config.evaluate.confidence:.0%}, t over speakers and CLEP seeds",
    }
