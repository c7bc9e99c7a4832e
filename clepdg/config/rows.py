"""Rows of the results table: the methods that are compared, and the variants of CLEP and ACPT they use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal

from clepdg.config.schema import ClassifierConfig, ClepConfig
from clepdg.emotions import EMOTIONS, labels
from clepdg.errors import ConfigError, unknown_name
from clepdg.prompts import CAPTION_TEMPLATES

MAIN: Final = ""  # CLEP as the configuration says
# Rows whose contexts are compared with corruptions; those in words have names, and are compared in other models too.
IN_WORDS: Final = "text-hand-written"
BEFORE: Final = "backbone"  # no row: the same contexts, in the space of the backbone
AS_VECTORS: Final = ("text-random", "text-acpt")


def _instance(config: ClepConfig) -> ClepConfig:
    """Return the settings with target instance, whose captions must differ."""
    templates = config.templates if len(config.templates) >= 8 else CAPTION_TEMPLATES
    return replace(config, target="instance", templates=templates)


CLEP_VARIANTS: Final[Mapping[str, Callable[[ClepConfig], ClepConfig]]] = {
    MAIN: replace,
    # What CLEP does to contexts: the text side stays as it was, or comes halfway back (Wortsman et al., CVPR 2022).
    "frozen-text": partial(replace, train_text_encoder=False, train_text_projection=False),
    "interpolated": partial(replace, clap_share=0.5),
    "instance": _instance,
    "attribute": partial(replace, target="attribute"),
    "soft": partial(replace, target="soft"),
    "plain": partial(replace, prototype_weight=0.0),
    "projections-only": partial(replace, train_audio_encoder=False, train_text_encoder=False),
    "lora": partial(replace, lora_rank=8),
    "augmented": partial(replace, augment=True),
    "last-layer": partial(replace, layers="last"),
    "mean-pooled": partial(replace, pooling="mean"),
    "source-standardised": partial(replace, standardise="source"),
    **{f"without-{emotion}": partial(replace, without_emotion=emotion) for emotion in EMOTIONS},
}


def trains_audio(config: ClepConfig) -> bool:
    """Return whether CLEP changes the audio encoder."""
    return config.train_audio_encoder or config.lora_rank > 0


# Contexts that the code of ACPT computes: settings of AcptConfig that differ.
ACPT_VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "acpt": {},
    "acpt-no-diversity": {"diversity_weight": 0.0},
    "acpt-no-content": {"content_weight": 0.0},
    "random": {"method": "random"},
    "vocabulary": {"method": "vocabulary"},
}


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """Source of a row's contexts.

    Attributes:
        words: the setting of TextConfig that lists them in words.
        acpt: the name in ACPT_VARIANTS of the stage that computes them as vectors.
        how: "given": as they are; "noise": in their place, noise at the same distance from the content embeddings;
            "redrawn": sets drawn from their distribution, another one each pass of the classifier.
    """

    words: str | None = None
    acpt: str | None = None
    how: Literal["given", "noise", "redrawn"] = "given"


CONTEXTS: Final[Mapping[str, Contexts]] = {
    "none": Contexts(),
    "hand-written": Contexts(words="handwritten_contexts"),
    "non-acoustic": Contexts(words="nonacoustic_contexts"),
    **{name: Contexts(acpt=name) for name in ACPT_VARIANTS},
    "noise": Contexts(acpt="acpt", how="noise"),
    "acpt-redrawn": Contexts(acpt="acpt", how="redrawn"),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method of the results table.

    Attributes:
        model: the model of the audio embeddings: "clep", or one that is the same in all folds.
        head: majority label, logistic regression on audio, class prompts, or a classifier trained on text.
        variant: a name of CLEP_VARIANTS.
        contexts: the contexts in its text embeddings, a name of CONTEXTS.
        one_prompt: use the first content template instead of the ensemble of all.
        classifier: settings of ClassifierConfig that differ.
        ceiling: its head is learnt from the target's own labelled training part. Only in folds that leave it out.
        target_standardised: the target's pooled states are standardised by those of its own test part, without labels.
    """

    title: str
    model: str
    head: Literal["majority", "logistic", "prompts", "text"]
    variant: str = MAIN
    contexts: str = "none"
    one_prompt: bool = False
    classifier: Mapping[str, Any] = field(default_factory=dict)
    ceiling: bool = False
    target_standardised: bool = False

    def classifier_config(self, config: ClassifierConfig) -> ClassifierConfig:
        """Return the settings of the row's classifier.

        Class prompts are a classifier of 0 steps.
        """
        return replace(config, **{**({"steps": 0} if self.head == "prompts" else {}), **self.classifier})


_UNCENTRED: Final[Mapping[str, Any]] = {"centring": "none"}
_row = partial(Row, model="clep", head="text")
_acpt = partial(_row, contexts="acpt")
_FLOORS: Final[Mapping[str, Row]] = {
    "majority": Row(title="majority", model="log-mel", head="majority"),
    "log-mel": Row(title="floor: log-mel statistics + logistic regression", model="log-mel", head="logistic"),
}
BACKBONE: Final = "backbone"
FULL_BAND: Final = "backbone-full-band"  # the backbone on audio at its native rate
EGEMAPS: Final = "egemaps"
ENCODER: Final = "encoder"
STATES: Final = "states"  # a dual backbone's pooled states
ON_REQUEST: Final[Mapping[str, Row]] = {  # one needs a licence, the other a setting
    EGEMAPS: Row(title="eGeMAPS functionals + logistic regression", model=EGEMAPS, head="logistic"),
    ENCODER: Row(title="linear probe on a speech encoder", model=ENCODER, head="logistic"),
}
CORE_ROWS: Final[Mapping[str, Row]] = {
    **_FLOORS,
    "clap-zero-shot": Row(title="CLAP zero-shot", model=BACKBONE, head="prompts", classifier=_UNCENTRED),
    "clep-zero-shot": Row(title="CLEP zero-shot", model="clep", head="prompts", classifier=_UNCENTRED),
    "clep-zero-shot-centred": Row(title="CLEP zero-shot, centred", model="clep", head="prompts"),
    "clap-probe": Row(title="linear probe on CLAP audio", model=BACKBONE, head="logistic"),
    "clep-probe": Row(title="linear probe on CLEP audio", model="clep", head="logistic"),
    "text-none": _row(title="text classifier, no contexts"),
    "text-random": _row(title="text classifier, random contexts", contexts="random"),
    "text-vocabulary": _row(title="text classifier, random words as contexts", contexts="vocabulary"),
    "text-non-acoustic": _row(title="text classifier, non-acoustic contexts", contexts="non-acoustic"),
    "text-hand-written": _row(title="text classifier, hand-written contexts", contexts="hand-written"),
    "text-noise": _row(title="text classifier, noise for contexts", contexts="noise"),
    "text-acpt": _acpt(title="text classifier, ACPT contexts"),
}
MAIN_ROW: Final = "text-acpt"
_prompts = partial(_row, head="prompts", classifier=_UNCENTRED)
DUAL_CORE_ROWS: Final[Mapping[str, Row]] = {
    "encoder-probe": Row(title="linear probe on the speech encoder's pooled states", model=STATES, head="logistic"),
    "clep-zero-shot-target-standardised": _prompts(
        title="CLEP zero-shot, standardised on the target", target_standardised=True
    ),
    "text-acpt-target-standardised": _acpt(title="ACPT, standardised on the target", target_standardised=True),
}
DUAL_ROWS: Final[
    Mapping[str, Row]
] = {  # for a dual backbone alone; each of the last differs in one from CLEP zero-shot
    **DUAL_CORE_ROWS,
    "clep-zero-shot-source-standardised": _prompts(
        title="CLEP zero-shot, each source standardised by itself", variant="source-standardised"
    ),
    "clep-zero-shot-last-layer": _prompts(title="CLEP zero-shot, last layer alone", variant="last-layer"),
    "clep-zero-shot-mean-pooled": _prompts(title="CLEP zero-shot, means over time alone", variant="mean-pooled"),
    "clep-zero-shot-lora": _prompts(title="CLEP zero-shot, CLEP by LoRA", variant="lora"),
}
NEW_EMOTIONS: Final = labels("4")  # each is left out of CLEP in a row of its own
TEXT_NOISE: Final = 0.5  # length of the row's noise: it turns a text embedding by about 27 degrees
ALL: Final = "all"

# One factor at a time: each of the others differs in one from a core row, from the main row unless its title says so.
ROWS: Final[Mapping[str, Row]] = {
    **_FLOORS,
    **ON_REQUEST,
    **CORE_ROWS,
    **DUAL_ROWS,
    "clap-zero-shot-one": Row(
        title="CLAP zero-shot, one prompt", model=BACKBONE, head="prompts", one_prompt=True, classifier=_UNCENTRED
    ),
    "clap-zero-shot-full-band": Row(
        title="CLAP zero-shot, no band limit", model=FULL_BAND, head="prompts", classifier=_UNCENTRED
    ),
    "acpt-no-diversity": _row(title="ACPT without diversity loss", contexts="acpt-no-diversity"),
    "acpt-no-content": _row(title="ACPT without content loss", contexts="acpt-no-content"),
    "text-acpt-softmax": _acpt(title="ACPT, softmax for ArcFace", classifier={"loss": "softmax"}),
    "text-acpt-untrained": _acpt(title="ACPT, class means untrained (W0)", classifier={"steps": 0}),
    "text-acpt-uncentred": _acpt(title="ACPT, no centring", classifier=_UNCENTRED),
    "text-acpt-target-centred": _acpt(title="ACPT, centred on the target", classifier={"centring": "target"}),
    "text-acpt-noisy": _acpt(title="ACPT, noise on text embeddings", classifier={"noise": TEXT_NOISE}),
    "text-acpt-one-prompt": _acpt(title="ACPT, one content prompt", one_prompt=True),
    "text-acpt-redrawn": _row(title="ACPT, contexts redrawn each pass", contexts="acpt-redrawn"),
    "clep-augmented-none": _row(title="CLEP with noise augmentation, no contexts", variant="augmented"),
    "clep-frozen-text": _acpt(title="ACPT, CLEP's text side frozen", variant="frozen-text"),
    "clep-interpolated": _acpt(title="ACPT, halfway between CLAP and CLEP", variant="interpolated"),
    "clep-instance": _acpt(title="ACPT, CLEP's targets: instance", variant="instance"),
    "clep-attribute": _acpt(title="ACPT, CLEP's targets: attribute", variant="attribute"),
    "clep-soft": _acpt(title="ACPT, CLEP's targets: soft", variant="soft"),
    "clep-plain": _acpt(title="ACPT, CLEP without prototypes", variant="plain"),
    "clep-projections-only": _acpt(title="ACPT, CLEP's projections alone trained", variant="projections-only"),
    "clep-lora": _acpt(title="ACPT, CLEP by LoRA", variant="lora"),
    **{
        f"new-{emotion}": _acpt(title=f"ACPT, {emotion} added by its word alone", variant=f"without-{emotion}")
        for emotion in NEW_EMOTIONS
    },
    "target-probe": Row(
        title="ceiling: probe learnt from the target's own labels", model="clep", head="logistic", ceiling=True
    ),
}


def rows(names: tuple[str, ...] | None, encoder: str | None = None, *, dual: bool = False) -> dict[str, Row]:
    """Return the wanted rows in the table's order.

    Args:
        names: rows, or "all"; None: the core rows.
        encoder: the speech encoder of row `encoder`, which is a core row if there is one. Row `egemaps` is included
            only if it is named.
        dual: the backbone is a dual one, which has rows of its own.

    Raises:
        ConfigError: a row does not exist, has no encoder, or needs a dual backbone.
    """
    given = {ENCODER} if encoder else set()
    if names is None:
        core = {*CORE_ROWS} | given | ({*DUAL_CORE_ROWS} if dual else set())
        return {name: row for name, row in ROWS.items() if name in core}
    unknown = sorted(set(names) - {*ROWS, ALL})
    if unknown or not names:
        raise unknown_name("row", unknown or "(nothing)", (ALL, *ROWS), "docs/method.md#rows")
    if ENCODER in names and not encoder:
        raise ConfigError(
            "Row encoder needs a speech encoder.", where="encoder.name", do="set encoder.name to a folder or a name"
        )
    if (lacking := sorted({*names} & {*DUAL_ROWS})) and not dual:
        raise ConfigError("These rows need a dual backbone.", got=lacking, do="choose one: --backbone dual:AUDIO+TEXT")
    left = {*ON_REQUEST} - given | (set() if dual else {*DUAL_ROWS})
    every = {*ROWS} - left if ALL in names else set()
    return {name: row for name, row in ROWS.items() if name in {*names} | every}
