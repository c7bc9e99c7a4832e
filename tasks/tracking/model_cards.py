"""Write the descriptions that MLflow shows of models, versions and runs."""

from collections.abc import Mapping

from clepdg.store.record import Record

WHAT = {
    "clep": "CLAP fine-tuned on emotional speech by a contrastive loss (CLEP), one version per stage key.",
    "acpt": "Acoustic context vectors learnt from text only (ACPT), for one CLEP.",
    "text_embeddings": "Text embeddings of a label set's emotions, with and without acoustic contexts, by one CLEP.",
    "classifier": "Speech emotion classifier: a head on CLEP's audio embeddings, trained on text or audio embeddings.",
}
USE = {
    "clep": "Research on speech emotion: zero-shot classification, and the next stages of clep-dg.",
    "acpt": "The next stages of clep-dg.",
    "text_embeddings": "The next stages of clep-dg.",
    "classifier": "Research on speech emotion. Run `clep-dg predict FILE`, or serve the champion as below.",
}
LIMITS = (
    "The training data are acted or read emotions of few speakers and languages. The model does not measure what "
    "people feel, and must not be used for decisions about them. The licences of the training corpora apply to it."
)


SERVE = """\
    export MLFLOW_TRACKING_URI=http://127.0.0.1:5000  # the address that `make up` prints
    export MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false
    mlflow models serve -m models:/{name}@champion -p 5001 --env-manager local
    printf '{{"dataframe_records": [{{"audio": "%s"}}]}}' "$(base64 < FILE.wav)" |
        curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d @-
"""
RUNS = {
    "source": "A corpus's files with checksums: downloaded and extracted, generated, or from a folder.",
    "index": "A corpus's table of utterances; artifacts list unusable files with reasons, and show audio quality.",
    "shard": "A corpus's audio as 16-bit FLAC at 16 kHz in tar files.",
    "backbone": "The pretrained CLAP.",
    "features": "A frozen speech encoder's hidden states of a corpus's utterances, pooled over time.",
    "audio_embeddings": "Audio embeddings of a corpus's utterances by one model.",
    "evaluate": "Evaluation of all rows of a fold; predictions and cells of the table are artifacts.",
    "report": "Tables and figures over all folds: report.html is an artifact.",
    **{stage: text.replace(", one version per stage key", "") for stage, text in WHAT.items()},
}


FLOW = {"mlflow.note.content": "A run of the flow; stages.json lists its stages and the runs that computed them."}


FIGURES = ("UAR ", "**UAR ")  # starts of a card with figures; lists of versions show the first letters unformatted


def experiment_description(preset: str) -> str:
    """Return the description of a preset's experiment."""
    demo = " This is the demo on synthetic speech; scores say nothing about real voices." if preset == "demo" else ""
    return (
        "CLEP-DG: speech emotion recognition that generalises across corpora. Each run of the flow is a run here, with "
        "a nested run per computed stage; its metrics are means over targets (left_out_uar, supervised_uar). Runs of "
        "classifiers have uar, uar_low and uar_high: filter by the tag stage to compare them." + demo
    )


def run_description(stage: str) -> str:
    """Return the description of a stage's run."""
    return RUNS[stage]


def model_description(stage: str, preset: str, name: str) -> str:
    """Return a registered model's description."""
    demo = (
        "\n\nThis demo model is trained on synthetic speech; do not use it for real voices." if preset == "demo" else ""
    )
    serve = f"\n\n**Serving.**\n\n{SERVE.format(name=name)}" if stage == "classifier" else ""
    return f"{WHAT[stage]}\n\n**Use.** {USE[stage]}{serve}\n\n**Limits.** {LIMITS}{demo}"


def version_description(record: Record, place: Mapping[str, str], licences: str, differs: str) -> str:
    """Return a model version's card: content, data, licences, figures, limits.

    Args:
        place: model, fold, row, contexts and seed, as far as the output has them.
        licences: of the training corpora.
        differs: how these differ from their cards.
    """
    where = ", ".join(f"{name} {place[name]}" for name in ("row", "contexts", "fold", "model", "seed") if name in place)
    figures = ", ".join(f"{name} {number(value)}" for name, value in record.figures.items() if is_number(value))
    return "\n\n".join(
        [
            f"{WHAT[record.stage]} This version: {where}.",
            f"**Data and licences.** {licences}. Differences from the complete corpora: {differs}.",
            f"**Training metrics.** {figures or 'none'}",
            f"**Limits.** {LIMITS}",
            f"Stage key `{record.key}`, content digest `{record.digests['content']}`; settings: params of the run.",
        ]
    )


def with_figures(description: str, figures: Mapping[str, str], data: str) -> str:
    """Return a version's card that begins with its test figures.

    Args:
        description: a card, with or without figures.
        figures: uar, interval, war and n.
        data: the test utterances, in words.
    """
    kept = [part for part in description.split("\n\n") if not part.startswith(FIGURES)]
    given = f"UAR {figures['uar']} {figures['interval']}, WAR {figures['war']}, on {figures['n']} {data}."
    return "\n\n".join([given, *kept])


def is_number(value: object) -> bool:
    """Return whether a figure is one number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: float) -> str:
    """Return a figure as text: integers whole, others to 3 decimals."""
    return str(int(value)) if float(value).is_integer() else f"{value:.3f}"
