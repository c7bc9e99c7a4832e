"""The descriptions that MLflow's pages show of registered models and their versions."""

from collections.abc import Mapping

from clepdg.store.record import Record
from tasks.engine.node import Node

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
    "classifier": "Research on speech emotion. `clep-dg predict FILE`, or serve the champion as below.",
}
LIMITS = (
    "Acted or read emotions of few speakers and languages; not a measure of what a person feels. Not for decisions "
    "about people. Licences of the training corpora bind what is learnt from them."
)


SERVE = """\
    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000  # where `make up` says that MLflow answers
    mlflow models serve -m models:/{name}@champion -p 5001 --env-manager local
    curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \\
        -d "{{\\"dataframe_records\\": [{{\\"audio\\": \\"$(base64 -w 0 FILE.wav)\\"}}]}}"
"""
RUNS = {
    "source": "A corpus's files: downloaded, extracted, generated, or a folder that is listed, with checksums.",
    "index": "A corpus's utterance table; its artifacts show what can't be used, with reasons, and its quality.",
    "shard": "A corpus's audio as 16-bit FLAC at 16 kHz in tars.",
    "backbone": "The CLAP to start from.",
    "audio_embeddings": "Every utterance of a corpus, embedded by one model.",
    "evaluate": "All rows of a fold on its targets; predictions and cells of the table are its artifacts.",
    "report": "Tables and figures over all folds: report.html is an artifact.",
    **{stage: text.replace(", one version per stage key", "") for stage, text in WHAT.items()},
}


FLOW = {"mlflow.note.content": "One run of the flow: stages.json lists all its stages and the runs that computed them."}


def experiment_description(preset: str) -> str:
    """Return what an experiment's page says first."""
    demo = " Of the demo: synthetic speech; its scores say nothing about real voices." if preset == "demo" else ""
    return (
        "CLEP-DG: speech emotion recognition that generalises over corpora. One run for each run of the flow; below it "
        "one for each stage that it computed. Classifiers carry the test figures of their evaluation (uar, low, high, "
        "war): choose them by the tag stage, and compare." + demo
    )


def run_description(stage: str) -> str:
    """Return what the page of a stage's run says."""
    return RUNS[stage]


def model_description(stage: str, preset: str, name: str) -> str:
    """Return a registered model's description."""
    demo = (
        "\n\nOf the demo: learnt from synthetic speech; it says nothing about real voices." if preset == "demo" else ""
    )
    serve = f"\n\n**Serving.**\n\n{SERVE.format(name=name)}" if stage == "classifier" else ""
    return f"{WHAT[stage]}\n\n**Use.** {USE[stage]}{serve}\n\n**Limits.** {LIMITS}{demo}"


def version_description(node: Node, record: Record, tags: Mapping[str, str]) -> str:
    """Return a version's card: what it is, what it learnt from, under which licences, and its settings' place."""
    place = ", ".join(f"{name} {tags[name]}" for name in ("fold", "row", "of", "seed") if name in tags)
    figures = ", ".join(f"{name} {value}" for name, value in record.figures.items() if isinstance(value, int | float))
    return "\n\n".join(
        [
            f"{WHAT[record.stage]} This version: {place}.",
            f"**Data and licences.** {tags['licences']}. Differs from the whole corpora: "
            f"{tags['differs_from_whole_corpora']}.",
            f"**Figures of its training.** {figures or 'none'}",
            f"**Limits.** {LIMITS}",
            f"Stage key `{record.key}`, content digest `{record.digests['content']}`; settings: the params of its run.",
        ]
    )
