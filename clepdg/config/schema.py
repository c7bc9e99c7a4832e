"""Settings of a run: frozen dataclasses with the method's defaults; clepdg.config.presets fills and overrides them.

Units stand in the names; types and ranges are checked when a value is made. A stage's key holds the dataclasses that
the stage reads and nothing else, so a field belongs to the dataclass of the stage that reads it.
"""

from dataclasses import field
from typing import Annotated, Final, Literal

from pydantic import Field

from clepdg import prompts
from clepdg.config.label_sets import DEFAULT, LabelSetting
from clepdg.config.validation import (
    IF_SET,
    AtLeast0,
    AtLeast1,
    AtLeast2,
    Name,
    NotNegative,
    Phrases,
    Positive,
    Seed,
    Seeds,
    Share,
    Texts,
    check,
    dataclass,
    emotion_templates,
    out_of_range,
    some_of,
    template,
    unique,
)
from clepdg.emotions import EMOTIONS
from clepdg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Size and seed of the synthetic corpora."""

    utterances: Annotated[int, Field(ge=20)] = 120  # per corpus, about; of 5 speakers or more
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Limits of usable utterances."""

    min_seconds: Positive = 0.2  # shorter is an error
    max_seconds: float = 60.0  # longer is an error
    silence_rms: float = 1e-4  # below: silent, an error. RAVDESS has speech at 6.5e-4
    clipped_share: float = 0.001  # share of samples at full scale above which "clipped" is noted

    def __post_init__(self) -> None:
        if not self.min_seconds < self.max_seconds <= 3600:
            raise out_of_range(IndexConfig, "max_seconds", self.max_seconds, "above index.min_seconds, at most 3600")


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """Storage of audio: FLAC 16 bit in tars."""

    band_limit_hz: Annotated[int, Field(ge=1000, le=24000)] | None = 8000  # half the stored rate; None = native rate
    max_megabytes: Positive = 256.0  # a tar is closed when it is larger


MICRO, MICRO_CONTEXT = "micro", "micro-context"
MADE_HERE = (MICRO, MICRO_CONTEXT)  # backbones that need no download


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The CLAP to start from, by the name that --backbone takes."""

    name: Name = "laion/clap-htsat-unfused"
    revision: str | None = "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a"  # of a hub name; None only for a local folder
    seed: Seed = 0  # of random weights: micro's, or those of dual's heads
    frames: Literal["active", "all"] = "active"  # of speech, which dual pools hidden states over


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Pretraining of micro-context, and of dual-context's heads.

    They learn from source-training audio in environments, but those left out, with captions that name them.
    """

    steps: AtLeast1 = 300
    batch_size: AtLeast2 = 32
    learning_rate: Positive = 5e-4
    utterances: AtLeast1 = 32  # dual-context: of each corpus, each in every environment
    left_out: Annotated[Texts, some_of(sorted({*prompts.CONTEXT_OF} - {"clean"}))] = ("hum", "room-short")
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The speech encoder of row `encoder`; None: there is no such row."""

    name: Name | None = None  # a local folder, or a Hugging Face name
    revision: str | None = None  # of a hub name

    def __post_init__(self) -> None:
        if self.revision is not None and self.name is None:
            raise out_of_range(EncoderConfig, "revision", self.revision, "none, since encoder.name is not set")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Settings that change numbers slightly, but not the method."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of CLEP's encoders; auto: bf16 on CUDA, fp32 elsewhere
    threads: AtLeast1 = 2  # torch threads on a CPU: sums differ in the last bit with another number


@dataclass(frozen=True, kw_only=True)
class ClepConfig:
    """CLEP: contrastive fine-tuning on emotional speech."""

    target: Literal["emotion", "instance", "attribute", "soft"] = "emotion"
    # of target soft: how much goes to captions of emotions that the backbone finds similar
    soft_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    soft_temperature: Positive = 0.1
    prototype_weight: NotNegative = 0.5
    epochs: AtLeast1 = 10
    steps_per_epoch: AtLeast1 = 200
    batch_size: AtLeast2 = 32
    chunk: AtLeast1 | None = field(default=None, metadata=IF_SET)  # utterances encoded at once; None: a rank's batch
    learning_rate: Positive = 1e-5  # encoders
    projection_learning_rate: NotNegative = 1e-4
    logit_scale_learning_rate: NotNegative = 1e-4
    weight_decay: NotNegative = 0.01
    warmup_share: Share = 0.05
    clip_norm: Positive = 1.0
    train_audio_encoder: bool = True
    train_text_encoder: bool = False
    train_text_projection: bool = True
    lora_rank: Annotated[int, Field(ge=0, le=64)] = 0  # above 0: adapters learn in place of the audio encoder's weights
    clap_share: Share = 0.0  # of the backbone's weights in CLEP's, mixed after training (0.5: halfway)
    augment: bool = False  # training audio gets rooms and noises, of other kinds than the evaluation's
    # an emotion that CLEP is trained without, to be added by its word alone
    without_emotion: Annotated[str, check(EMOTIONS.__contains__, f"none, or one of {', '.join(EMOTIONS)}")] | None = (
        None
    )
    # of a dual backbone's pooled states: what its audio head reads, and whether each source is standardised by itself
    layers: Literal["weighted", "last"] = "weighted"
    pooling: Literal["mean-std", "mean"] = "mean-std"
    standardise: Literal["none", "source"] = "none"
    from_scratch: bool = False  # the captions of different emotions are first separated, by the text encoder alone
    templates: Annotated[Texts, emotion_templates] = prompts.CAPTION_TEMPLATES
    ranks: AtLeast1 = 1  # processes that share a batch: sums differ in the last bits with another number

    def __post_init__(self) -> None:
        if self.target == "instance" and len(self.templates) < 8:  # it needs captions that differ
            raise out_of_range(ClepConfig, "templates", self.templates, "at least 8 where clep.target is instance")
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

    # random: the same start; vocabulary: words of the backbone's vocabulary; both without training
    method: Literal["joint", "faithful", "random", "vocabulary"] = "joint"
    contexts: AtLeast2 = 80  # K
    tokens: Annotated[int, Field(ge=1, le=16)] = 4  # M, soft tokens per context; 1 in faithful
    epochs: AtLeast0 = 300  # joint: most passes over the contexts; faithful: iterations per context
    plateau: Share = 0.01  # joint ends when ten epochs lower neither loss by this share of both at the start; 0: never
    batch_size: AtLeast1 = 16  # contexts per step of joint
    learning_rate: Positive = 0.01  # Adam in joint, SGD with momentum 0.9 in faithful
    temperature: Positive = 0.1  # tau of the content loss
    diversity_weight: NotNegative = 1.0
    content_weight: NotNegative = 1.0
    content_template: Annotated[str, template("emotion")] = prompts.CONTENT_TEMPLATE
    context_template: Annotated[str, template("context")] = prompts.CONTEXT_TEMPLATE
    joint_template: Annotated[str, template("context", "emotion")] = prompts.JOINT_TEMPLATE  # of text embeddings too


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Text embeddings, which the classifier learns from.

    They are the first stage that depends on the label set.
    """

    label_set: LabelSetting = DEFAULT
    content_templates: Annotated[Texts, emotion_templates] = prompts.CAPTION_TEMPLATES  # the prompt ensemble
    handwritten_contexts: Phrases = prompts.HANDWRITTEN_CONTEXTS
    nonacoustic_contexts: Phrases = prompts.NONACOUSTIC_CONTEXTS
    redraws: AtLeast2 = 20  # sets of contexts that are redrawn: a row that redraws takes another one each pass, in turn


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The classifier on text embeddings, applied to audio embeddings."""

    loss: Literal["arcface", "softmax"] = "arcface"
    steps: AtLeast0 = 1000  # every row gets the same number
    batch_size: AtLeast1 = 128
    learning_rate: Positive = 0.005
    momentum: Share = 0.9
    arcface_scale: Positive = 5.0
    arcface_margin: Annotated[float, check(lambda angle: 0 <= angle < 1.5, "radians from 0 to below 1.5")] = 0.5
    centring: Literal["none", "source", "target"] = "source"
    noise: NotNegative = 0.0  # length of the Gaussian noise on centred text embeddings, drawn anew each step


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluation: intervals and acoustic conditions."""

    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    # beside clean: "white-10dB", "room-long", ...; "sweep": all of them
    conditions: Annotated[Texts, check(unique, "none twice")] = ()
    noise_folder: str | None = None  # audio files of the noise "own"


PROTOCOLS: Final = ("supervised", "leave-one-corpus-out", "pairs")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of one run: all that its results depend on."""

    preset: str
    corpora: Annotated[Texts, check(lambda names: names and unique(names), "at least one, none twice")]
    protocols: Annotated[Texts, check(bool, f"some of {', '.join(PROTOCOLS)}"), some_of(PROTOCOLS)] = PROTOCOLS[:2]
    rows: Texts | None = None  # None: clepdg.config.rows.CORE_ROWS; "all": every row
    clep_seeds: Seeds = (0,)
    later_seeds: Seeds = (0,)  # ACPT and classifier
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
