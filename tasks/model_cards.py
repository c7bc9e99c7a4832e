"""The descriptions that MLflow's pages show of registered models and their versions."""

from collections.abc import Mapping

from clepdg.store import Record
from tasks.stages import Node

WHAT = {
    "clep": "CLAP fine-tuned on emotional speech by a contrastive loss (CLEP), one version per stage key.",
    "acpt": "Acoustic context vectors learnt from text alone (ACPT), for one CLEP.",
    "text_embeddings": "A label set's words, alone and with acoustic contexts, embedded by one CLEP.",
    "classifier": "Emotion from speech: a head learnt from text (or audio) embeddings over CLEP's audio embeddings.",
}
USE = {
    "clep": "Research on speech emotion: zero-shot classification, and the stages of clep-dg that follow.",
    "acpt": "The stages of clep-dg that follow.",
    "text_embeddings": "The stages of clep-dg that follow.",
    "classifier": "Research on speech emotion. `clep-dg predict FILE`, or `mlflow models serve`.",
}
LIMITS = (
    "Acted or read emotions of few speakers and languages; not a measure of what a person feels. Not for decisions "
    "about people. Licences of the training corpora bind what is learnt from them."
)


def model_description(stage: str, preset: str) -> str:
    """Return a registered model's description."""
    demo = (
        "\n\nOf the demo: learnt from synthetic speech; it says nothing about real voices." if preset == "demo" else ""
    )
    return f"{WHAT[stage]}\n\n**Use.** {USE[stage]}\n\n**Limits.** {LIMITS}{demo}"


def version_description(node: Node, record: Record, tags: Mapping[str, str]) -> str:
    """Return a version's card: what it is, what it learnt from, under which licences, and its settings' place."""
    place = ", ".join(f"{name} {tags[name]}" for name in ("fold", "row", "of", "seed") if name in tags)
    figures = ", ".join(f"{name} {value}" for name, value in record.figures.items() if isinstance(value, int | float))
    return "\n\n".join(
        [
            f"{WHAT[record.stage]} This version: {place}.",
            f"**Data and licences.** {tags['licences']}",
            f"**Figures of its training.** {figures or 'none'}",
            f"**Limits.** {LIMITS}",
            f"Stage key `{record.key}`, content digest `{record.digests['content']}`; settings: the params of its run.",
        ]
    )
