"""Configuration: frozen dataclasses with the method's defaults; presets and overrides are in clepdg.presets.

Units stand in the names; ranges are checked when a value is made. A stage's key holds the dataclasses that the stage
reads and nothing else, so a field belongs to the dataclass of the stage that reads it.
"""

import math
from dataclasses import dataclass, field
from typing import Final, Literal

from clepdg import prompts
from clepdg.emotions import EMOTIONS, LABEL_SETS
from clepdg.errors import ConfigError

Check = tuple[bool, str]  # is it valid; what would be


def require(owner: object, **checks: Check) -> None:
    """Check a dataclass of settings.

    Args:
        checks: setting -> whether its value is valid, and what would be.

    Raises:
        ConfigError: one is not, or is no finite number.
    """
    section = type(owner).__name__.removesuffix("Config").lower()
    for name, value in vars(owner).items():
        finite = not isinstance(value, float) or math.isfinite(value)
        valid, expected = checks.get(name, (True, "")) if finite else (False, "a finite number")
        if not valid:
            raise ConfigError(
                "A setting is out of range.",
                got=repr(value),
                expected=expected,
                where=f"{section}.{name}" if section else name,
            )


def seeds(given: tuple[int, ...]) -> Check:
    """Return whether these can be seeds of numpy's and torch's generators."""
    valid = bool(given) and len(set(given)) == len(given) and all(0 <= seed < 1 << 63 for seed in given)
    return valid, "whole numbers from 0 to below 2^63, none twice"


def phrases(given: tuple[str, ...]) -> Check:
    """Return whether these are phrases, to be put into templates."""
    valid = bool(given) and all(phrase.strip() and not {*"{}"} & {*phrase} for phrase in given)
    return valid, "at least one, none empty or with braces"


def holds(template: str, *fields: str) -> bool:
    """Tell whether a template has each of these fields once, and no other."""
    braces = template.count("{") == template.count("}") == len(fields)
    return braces and all(template.count(f"{{{field}}}") == 1 for field in fields)


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Synthetic corpora: how much speech to generate."""

    utterances: int = 60  # per corpus
    seed: int = 0

    def __post_init__(self) -> None:
        require(self, utterances=(self.utterances >= 16, "at least 16"), seed=seeds((self.seed,)))


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Which utterances are usable."""

    min_seconds: float = 0.2  # shorter is an error
    max_seconds: float = 60.0  # longer is an error
    silence_rms: float = 1e-4  # below: silent, an error. RAVDESS has speech at 6.5e-4
    clipped_share: float = 0.001  # share of samples at full scale above which "clipped" is noted

    def __post_init__(self) -> None:
        require(
            self,
            min_seconds=(self.min_seconds > 0, "above 0"),
            max_seconds=(self.max_seconds > self.min_seconds, "above index.min_seconds"),
        )


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How audio is stored: FLAC 16 bit in tars."""

    band_limit_hz: int | None = 8000  # audio is stored at twice this rate; None = native rate
    max_megabytes: float = 256.0  # a tar is closed when it is larger

    def __post_init__(self) -> None:
        require(
            self,
            band_limit_hz=(self.band_limit_hz is None or 1000 <= self.band_limit_hz <= 24000, "1000 to 24000, or none"),
            max_megabytes=(self.max_megabytes > 0, "above 0"),
        )


MICRO, MICRO_CONTEXT = "micro", "micro-context"
MADE_HERE = (MICRO, MICRO_CONTEXT)  # backbones that need no download


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which CLAP to start from: "micro", "micro-context", a folder, a Hugging Face name, or "laion:CHECKPOINT"."""

    name: str = "laion/clap-htsat-unfused"
    revision: str | None = "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a"  # of a hub name; None only for a local folder
    seed: int = 0  # micro's random weights

    def __post_init__(self) -> None:
        require(self, name=(bool(self.name), "a name or a folder"), seed=seeds((self.seed,)))


_ENVIRONMENTS = {*prompts.CONTEXT_OF} - {"clean"}


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pretraining of micro-context: source-training audio in environments, under captions that name them."""

    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 5e-4
    left_out: tuple[str, ...] = ("hum", "room-short")  # environments that it never hears
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            self,
            steps=(self.steps >= 1, "at least 1"),
            batch_size=(self.batch_size >= 2, "at least 2"),
            learning_rate=(self.learning_rate > 0, "above 0"),
            left_out=(set(self.left_out) <= _ENVIRONMENTS, f"some of {', '.join(sorted(_ENVIRONMENTS))}"),
            seed=seeds((self.seed,)),
        )


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Which speech encoder of transformers row `encoder` is a probe on; None: there is no such row."""

    name: str | None = None  # a local folder, or a Hugging Face name
    revision: str | None = None  # of a hub name

    def __post_init__(self) -> None:
        require(
            self,
            name=(self.name != "", "a name or a folder"),
            revision=(self.revision is None or self.name is not None, "none, since encoder.name is not set"),
        )


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """What changes bytes without changing the method."""

    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = 2  # torch threads on a CPU: sums differ in the last bit with another number

    def __post_init__(self) -> None:
        require(self, threads=(self.threads >= 1, "at least 1"))


@dataclass(frozen=True, kw_only=True)
class ClepConfig:
    """CLEP: contrastive fine-tuning on emotional speech."""

    target: Literal["emotion", "instance", "attribute", "soft"] = "emotion"
    soft_share: float = 0.1  # of target soft: how much goes to captions of emotions that the backbone finds similar
    soft_temperature: float = 0.1
    prototype_weight: float = 0.5
    epochs: int = 10
    steps_per_epoch: int = 200
    batch_size: int = 32
    learning_rate: float = 1e-5  # encoders
    projection_learning_rate: float = 1e-4
    logit_scale_learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup_share: float = 0.05
    clip_norm: float = 1.0
    train_audio_encoder: bool = True
    train_text_encoder: bool = False
    train_text_projection: bool = True
    lora_rank: int = 0  # above 0: adapters of this rank learn in place of the audio encoder's weights
    clap_share: float = 0.0  # of the backbone's weights in CLEP's, mixed after training (0.5: halfway)
    augment: bool = False  # training hears rooms and noises, of other kinds than the evaluation's
    without_emotion: str | None = None  # its words and utterances are kept from CLEP, to be added by its word alone
    from_scratch: bool = False  # sets the audio BatchNorm's statistics once from source-training audio
    templates: tuple[str, ...] = prompts.CAPTION_TEMPLATES
    ranks: int = 1  # processes that share a batch: sums differ in the last bits with another number

    def __post_init__(self) -> None:
        require(
            self,
            soft_share=(0 < self.soft_share < 1, "between 0 and 1"),
            soft_temperature=(self.soft_temperature > 0, "above 0"),
            prototype_weight=(self.prototype_weight >= 0, "0 or more"),
            epochs=(self.epochs >= 1, "at least 1"),
            steps_per_epoch=(self.steps_per_epoch >= 1, "at least 1"),
            batch_size=(self.batch_size >= 2, "at least 2"),
            learning_rate=(self.learning_rate > 0, "above 0"),
            projection_learning_rate=(self.projection_learning_rate >= 0, "0 or more"),
            logit_scale_learning_rate=(self.logit_scale_learning_rate >= 0, "0 or more"),
            weight_decay=(self.weight_decay >= 0, "0 or more"),
            clip_norm=(self.clip_norm > 0, "above 0"),
            warmup_share=(0 <= self.warmup_share < 1, "from 0 to below 1"),
            lora_rank=(0 <= self.lora_rank <= 64, "0 to 64"),
            clap_share=(0 <= self.clap_share < 1, "from 0 to below 1"),
            without_emotion=(self.without_emotion in (None, *EMOTIONS), f"none, or one of {', '.join(EMOTIONS)}"),
            templates=(
                len(self.templates) >= 8 and all(holds(t, "emotion") for t in self.templates),
                "at least 8, each with one {emotion}",
            ),
            ranks=(self.ranks >= 1, "at least 1"),
        )
        if self.batch_size % self.ranks:
            raise ConfigError(
                "CLEP's batch can't be shared out equally among its ranks.",
                got=f"clep.batch_size {self.batch_size}, clep.ranks {self.ranks}",
                expected="a batch_size that is a multiple of ranks",
                where="configuration",
            )


@dataclass(frozen=True, kw_only=True)
class AcptConfig:
    """ACPT: acoustic-context prompt tuning, from text alone."""

    method: Literal["joint", "faithful", "random", "vocabulary"] = "joint"  # random: the same start, no training;
    # vocabulary: words drawn from the backbone's vocabulary, no training
    contexts: int = 80  # K
    tokens: int = 4  # M, soft tokens per context; 1 in faithful
    epochs: int = 300  # joint: passes over the contexts; faithful: iterations per context
    batch_size: int = 16  # contexts per step of joint
    learning_rate: float = 0.01  # Adam in joint, SGD with momentum 0.9 in faithful
    temperature: float = 0.1  # tau of the content loss
    diversity_weight: float = 1.0
    content_weight: float = 1.0
    content_template: str = prompts.CONTENT_TEMPLATE
    context_template: str = prompts.CONTEXT_TEMPLATE
    joint_template: str = prompts.JOINT_TEMPLATE  # text embeddings join contexts and emotions in it as well

    def __post_init__(self) -> None:
        require(
            self,
            contexts=(self.contexts >= 2, "at least 2"),
            tokens=(1 <= self.tokens <= 16, "1 to 16"),
            epochs=(self.epochs >= 0, "0 or more"),
            batch_size=(self.batch_size >= 1, "at least 1"),
            learning_rate=(self.learning_rate > 0, "above 0"),
            temperature=(self.temperature > 0, "above 0"),
            diversity_weight=(self.diversity_weight >= 0, "0 or more"),
            content_weight=(self.content_weight >= 0, "0 or more"),
            content_template=(holds(self.content_template, "emotion"), "one {emotion}"),
            context_template=(holds(self.context_template, "context"), "one {context}"),
            joint_template=(holds(self.joint_template, "context", "emotion"), "one {context} and one {emotion}"),
        )


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Text embeddings: what the classifier learns from. A label set first enters here."""

    label_set: str = "4"
    content_templates: tuple[str, ...] = prompts.CAPTION_TEMPLATES  # the prompt ensemble
    handwritten_contexts: tuple[str, ...] = prompts.HANDWRITTEN_CONTEXTS
    nonacoustic_contexts: tuple[str, ...] = prompts.NONACOUSTIC_CONTEXTS
    redraws: int = 20  # sets of contexts that are redrawn: a row that redraws takes another one each pass, in turn

    def __post_init__(self) -> None:
        require(
            self,
            label_set=(self.label_set in LABEL_SETS, f"one of {', '.join(LABEL_SETS)}"),
            content_templates=(
                bool(self.content_templates) and all(holds(t, "emotion") for t in self.content_templates),
                "at least one, each with one {emotion}",
            ),
            handwritten_contexts=phrases(self.handwritten_contexts),
            nonacoustic_contexts=phrases(self.nonacoustic_contexts),
            redraws=(self.redraws >= 2, "at least 2"),
        )


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The classifier on text embeddings, applied to audio embeddings."""

    loss: Literal["arcface", "softmax"] = "arcface"
    steps: int = 1000  # every row gets the same number
    batch_size: int = 128
    learning_rate: float = 0.005
    momentum: float = 0.9
    arcface_scale: float = 5.0
    arcface_margin: float = 0.5  # radians
    centring: Literal["none", "source", "target"] = "source"
    noise: float = 0.0  # length of the Gaussian noise on centred text embeddings, drawn anew each step

    def __post_init__(self) -> None:
        require(
            self,
            steps=(self.steps >= 0, "0 or more"),
            batch_size=(self.batch_size >= 1, "at least 1"),
            learning_rate=(self.learning_rate > 0, "above 0"),
            noise=(self.noise >= 0, "0 or more"),
            momentum=(0 <= self.momentum < 1, "from 0 to below 1"),
            arcface_scale=(self.arcface_scale > 0, "above 0"),
            arcface_margin=(0 <= self.arcface_margin < 1.5, "radians from 0 to below 1.5"),
        )


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluation: which rows, and how intervals are drawn."""

    resamples: int = 2000
    confidence: float = 0.95
    conditions: tuple[str, ...] = ()  # beside clean: "white-10dB", "room-long", ...; "sweep": all of them
    noise_folder: str | None = None  # audio files of the noise "own"

    def __post_init__(self) -> None:
        require(
            self,
            resamples=(self.resamples >= 100, "at least 100"),
            confidence=(0.5 < self.confidence < 1, "between 0.5 and 1"),
            conditions=(len(set(self.conditions)) == len(self.conditions), "none twice"),
        )


PROTOCOLS: Final = ("supervised", "leave-one-corpus-out", "pairs")


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run: everything that decides what is computed."""

    preset: str
    corpora: tuple[str, ...]
    protocols: tuple[str, ...] = PROTOCOLS[:2]
    rows: tuple[str, ...] | None = None  # None: clepdg.protocols.CORE_ROWS; "all": every row
    clep_seeds: tuple[int, ...] = (0,)
    later_seeds: tuple[int, ...] = (0,)  # ACPT and classifier
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    shard: ShardConfig = field(default_factory=ShardConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    clep: ClepConfig = field(default_factory=ClepConfig)
    acpt: AcptConfig = field(default_factory=AcptConfig)
    text: TextConfig = field(default_factory=TextConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        require(
            self,
            corpora=(bool(self.corpora) and len(set(self.corpora)) == len(self.corpora), "at least one, none twice"),
            protocols=(bool(self.protocols) and set(self.protocols) <= {*PROTOCOLS}, f"some of {', '.join(PROTOCOLS)}"),
            clep_seeds=seeds(self.clep_seeds),
            later_seeds=seeds(self.later_seeds),
        )
