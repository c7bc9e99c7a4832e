"""Count what the preset `open` computes, stage by stage, and cost it with measured rates."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from clepdg import prompts
from clepdg.callbacks import DEFAULT_CHECKPOINTING
from clepdg.config.presets import build
from clepdg.config.schema import Config
from clepdg.corpora.cards import Card, load_card
from clepdg.emotions import EMOTIONS, LABEL_SETS, labels
from clepdg_flows.graph.models import STATISTICS
from clepdg_flows.graph.pipeline import graph

MELD_VALIDATION: Final = 1109  # of MELD's official parts no card says the size; Poria et al., 2019
NOT_COUNTED: Final = (
    "downloads, unpacking, MELD's mp4 (taken for 48 kHz WAV), evaluate, report, Prefect, MLflow, starts of processes"
)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Work of one run: how often each measured unit occurs in the graph."""

    utterances: int
    by_rate: Mapping[int, int]  # Hz of the sources -> utterances
    clep: int  # trainings
    clep_steps: int
    epochs: int
    validated: int  # utterances, over all trainings and epochs
    embedded: int  # utterances by a CLAP
    statistics: int  # utterances by log-mel statistics
    acpt_epochs: Mapping[int, int]  # emotions -> epochs of joint training
    described: int  # acpt stages; each describes its contexts
    prompts: int
    text_heads: int
    probes: int
    learning: int  # labelled training utterances of the largest fold
    loads: int  # CLAPs read from the store


def validation(card: Card) -> int:
    """Return the utterances of a corpus's validation part, as far as its card tells."""
    total, split = card.expected.utterances or 0, card.split
    if split.unit == "official":
        return MELD_VALIDATION
    named = total / (card.expected.speakers or 1)
    rest = total - named * (len(split.test) + len(split.validation))
    return round(named * len(split.validation) + rest * split.validation_text_share)


def test(card: Card) -> int:
    """Return the utterances of a corpus's test part, as far as its card tells."""
    total, split = card.expected.utterances or 0, card.split
    return 0 if split.unit == "official" else round(total * len(split.test) / (card.expected.speakers or 1))


def count(config: Config) -> Counts:
    """Count the work in the graph of a configuration."""
    cards = {corpus: load_card(corpus) for corpus in config.corpora}
    sizes = {corpus: card.expected.utterances or 0 for corpus, card in cards.items()}
    by_rate: dict[int, int] = {}
    for corpus, card in cards.items():
        by_rate[card.expected.sample_rate or 0] = by_rate.get(card.expected.sample_rate or 0, 0) + sizes[corpus]
    nodes = graph(config, {}, states=dict.fromkeys(config.corpora, "not asked for"))
    trained = [node for node in nodes if node.stage == "clep" and "clep" in node.config]
    validated = sum(
        n.config["clep"].epochs * validation(cards[ref.name])
        for n in trained
        for ref in n.inputs.values()
        if ref.stage == "shard"
    )
    embedded = {"statistics": 0, "clap": 0}
    for node in nodes:
        if node.stage == "audio_embeddings":
            of = "statistics" if node.config.get("model") in STATISTICS else "clap"
            embedded[of] += sizes[node.tags["corpus"]]
    acpt = [node for node in nodes if node.stage == "acpt"]
    acpt_epochs: dict[int, int] = {}
    for node in acpt:
        if node.config["acpt"].method == "joint":
            n = len(node.config["emotions"])
            acpt_epochs[n] = acpt_epochs.get(n, 0) + node.config["acpt"].epochs
    texts = [node for node in nodes if node.stage == "text_embeddings"]
    n = len(labels(config.text.label_set))
    rows = 0
    for node in texts:
        k = config.acpt.contexts if "acpt" in node.inputs else len(node.config["contexts"])
        rows += n * len(node.config["content_templates"]) + k * n + n
    effect = len(EMOTIONS) * (1 + len(prompts.HANDWRITTEN_CONTEXTS))  # of the backbone and of every CLEP
    heads = [node.config["head"] for node in nodes if node.stage == "classifier"]
    mapping = LABEL_SETS[config.text.label_set]
    learning = 0
    for corpus, card in cards.items():
        labelled = sum(k for raw, k in card.expected.emotions.items() if card.labels.get(raw) in mapping)
        learning += round(labelled * (1 - (validation(card) + test(card)) / sizes[corpus]))
    return Counts(
        utterances=sum(sizes.values()),
        by_rate=by_rate,
        clep=len(trained),
        clep_steps=sum(n.config["clep"].epochs * n.config["clep"].steps_per_epoch for n in trained),
        epochs=sum(n.config["clep"].epochs for n in trained),
        validated=validated,
        embedded=embedded["clap"],
        statistics=embedded["statistics"],
        acpt_epochs=acpt_epochs,
        described=len(acpt),
        prompts=rows + effect * (1 + len(trained)),
        text_heads=heads.count("text"),
        probes=heads.count("logistic"),
        learning=learning,
        loads=1 + len(trained) + len(acpt) + len(texts) + sum(n.stage == "audio_embeddings" for n in nodes),
    )


Line = tuple[str, str, float, float | None]  # stage, unit rate, count, hours; None: the rate was not measured


def lines(counts: Counts, rates: Mapping[str, Any], precision: str = "fp32") -> list[Line]:
    """Cost the counts; rates are units per second, or seconds per unit where the name ends in `_seconds`."""

    def cost(stage: str, name: str, unit: str, number: float) -> Line:
        rate = rates.get(name)
        if not rate:
            return stage, "not measured", number, None
        slow = name.endswith("_seconds")
        shown = f"{rate:.4g} s/{unit}" if slow else f"{rate:.4g} {unit}s/s"
        return stage, shown, number, (number * rate if slow else number / rate) / 3600

    def near(hertz: int) -> str:
        return "shard_48000" if hertz > 16000 else "shard_16000"

    steps = cost("clep: steps", f"clep_{precision}", "step", counts.clep_steps)
    seconds = DEFAULT_CHECKPOINTING.checkpoint_seconds
    saved = counts.epochs + 3 * (steps[3] or 0) * 3600 / seconds  # Adam's state is twice the weights
    return [
        cost("index, one core", "probe", "utterance", counts.utterances),
        *(cost(f"shard {hz} Hz, one core", near(hz), "utterance", k) for hz, k in sorted(counts.by_rate.items())),
        steps,
        cost("clep: validation", "validation", "utterance", counts.validated),
        cost("clep: saving", "best_seconds", "best", saved),
        cost("clep: model out, digest", "save_seconds", "model", counts.clep + 1),
        *(
            cost(f"acpt: {n} emotions", f"acpt_epoch_{n}_seconds", "epoch", k)
            for n, k in sorted(counts.acpt_epochs.items())
        ),
        cost("acpt: start, description", "acpt_describe_seconds", "stage", counts.described),
        cost("text_embeddings", "prompts", "prompt", counts.prompts),
        cost("audio_embeddings", "embed", "utterance", counts.embedded),
        cost("audio_embeddings log-mel", "log_mel_statistics", "utterance", counts.statistics),
        cost("classifier: text", "text_head_seconds", "head", counts.text_heads),
        cost("classifier: probe", "probe_head_seconds", "head", counts.probes),
        cost("loading models", "load_seconds", "model", counts.loads),
    ]


def table(rows: list[Line]) -> str:
    """Return the lines as text, with their sum."""
    head = f"{'stage':28}{'unit rate':>26}{'count':>12}{'hours':>9}"
    body = [f"{s:28}{r:>26}{c:>12,.0f}{'?' if h is None else f'{h:.3f}':>9}" for s, r, c, h in rows]
    total = sum(h or 0.0 for *_, h in rows)
    return "\n".join([head, *body, f"{'total':66}{total:>9.3f}"])


def open_run() -> tuple[Config, Counts]:
    """Return the preset `open` and its counts."""
    config = build("open")
    return config, count(config)
