"""Build a run's configuration from a preset and dotted overrides of its settings."""

import contextlib
import dataclasses
import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

from clepdg import prompts
from clepdg.config.label_sets import OwnLabels
from clepdg.config.model_pins import DUAL, DUALS, LAION, local_folder, pinned_revision
from clepdg.config.schema import MICRO, MICRO_CONTEXT, AcptConfig, BackboneConfig, ClepConfig, Config
from clepdg.config.validation import items_of, unknown
from clepdg.errors import ConfigError, unknown_name


def faithful_acpt() -> AcptConfig:
    """Return ACPT as in public re-implementations of PromptStyler.

    Contexts are trained one after another.
    """
    return AcptConfig(method="faithful", tokens=1, epochs=100, learning_rate=0.002, temperature=1.0)


def micro(config: Config) -> Config:
    """Return the configuration with backbone micro, trained from scratch."""
    return replace(
        config,
        backbone=BackboneConfig(name=MICRO, revision=None),
        clep=replace(
            config.clep,
            epochs=5,
            steps_per_epoch=50,
            learning_rate=5e-4,
            projection_learning_rate=5e-4,
            warmup_share=0.1,
            from_scratch=True,
        ),
        acpt=replace(config.acpt, contexts=16),
    )


def micro_context(config: Config) -> Config:
    """Return the configuration with backbone micro-context.

    It is the positive control: micro is pretrained on environments, then its text encoder is frozen.
    """
    trained = micro(config)
    return replace(
        trained,
        backbone=BackboneConfig(name=MICRO_CONTEXT, revision=None),
        clep=replace(trained.clep, from_scratch=False),
    )


def dual(config: Config) -> Config:
    """Return the configuration with CLEP's settings for a dual backbone.

    Frozen encoders: heads learn from pooled states that are computed once.
    """
    return replace(
        config,
        clep=replace(
            config.clep,
            epochs=8,
            steps_per_epoch=50,
            batch_size=64,
            train_audio_encoder=False,
            projection_learning_rate=1e-3,
            logit_scale_learning_rate=1e-3,
            weight_decay=0.05,
        ),
        acpt=replace(config.acpt, contexts=16, epochs=100),
    )


def dual_context(config: Config) -> Config:
    """Return the configuration with CLEP's settings for backbone dual-context.

    It is the positive control: heads are pretrained on environments, then the text side is frozen.
    """
    trained = dual(config)
    return replace(
        trained,
        pretrain=replace(trained.pretrain, learning_rate=1e-3),
        clep=replace(trained.clep, train_text_projection=False),
    )


OF_DUAL: Final = {"backbone.frames", "clep.layers", "clep.pooling", "clep.standardise"}  # other backbones ignore them
SPEECH: Final = f"{DUAL}openai/whisper-base+sentence-transformers/all-MiniLM-L6-v2"
MADE: dict[str, Callable[[Config], Config]] = {MICRO: micro, MICRO_CONTEXT: micro_context}


def demo() -> Config:
    """Return a run of minutes on a CPU, without network.

    It has five synthetic corpora, backbone micro, 4 emotions and both protocols.
    """
    config = micro(Config(preset="demo", corpora=tuple(f"synthetic-{n}" for n in range(1, 6))))
    return replace(
        config,
        clep=replace(config.clep, epochs=3, learning_rate=1e-3, projection_learning_rate=1e-3),
        acpt=replace(config.acpt, epochs=30),
        classifier=replace(config.classifier, steps=300),
        compute=replace(config.compute, threads=1),  # small products: a fold for each core is faster
    )


def open_corpora() -> Config:
    """Return the run on freely downloadable corpora with LAION's CLAP."""
    return Config(preset="open", corpora=("ravdess", "crema-d", "tess", "emodb", "meld"))


def speech() -> Config:
    """Return the run on the same corpora with encoders of speech and of text.

    Both are small and stay frozen: it runs on a CPU.
    """
    return dual(replace(open_corpora(), preset="speech", backbone=BackboneConfig(name=SPEECH, revision=None)))


PAPER_LABELS: Final = OwnLabels(  # what these corpora are evaluated in elsewhere
    name="paper",
    targets={"iemocap": "4", "meld": "7", "ravdess": "8", "tess": "7", "savee": "7", "crema-d": "6"},
)


def paper() -> Config:
    """Return a run to set beside published figures, with LAION's CLAP.

    Its corpora and its template are those of a later paper by CLEP-DG's first author: which five corpora CLEP-DG used
    is not known here. Each left-out corpus is evaluated in its own label set.
    """
    template = prompts.SOUND_TEMPLATE
    config = Config(preset="paper", corpora=("iemocap", "meld", "ravdess", "tess", "savee", "crema-d"))
    return replace(
        config,
        clep=replace(config.clep, templates=(template,)),
        acpt=replace(config.acpt, content_template=template, joint_template=f"{template}, recorded in {{context}}"),
        text=replace(config.text, content_templates=(template,), label_set=PAPER_LABELS),
    )


PRESETS: dict[str, Callable[[], Config]] = {"demo": demo, "open": open_corpora, "speech": speech, "paper": paper}


def build(
    preset: str,
    *,
    backbone: str | None = None,
    corpora: tuple[str, ...] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Return a preset's configuration with overrides applied.

    Args:
        backbone: "micro", "micro-context", a local folder, a Hugging Face name (with "@COMMIT", but for names that are
            pinned here), "laion:" and the name of a checkpoint of LAION's, or "dual:AUDIO+TEXT"; None: the preset's.
        overrides: {"clep.epochs": 15, ...}; text is converted to the field's type.

    Raises:
        ConfigError: a preset or setting is unknown (the valid ones are listed), or a value is not valid.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS, "docs/reference.md#options")
    config = PRESETS[preset]()
    if backbone is not None and config.backbone.name.startswith(DUAL) and not backbone.startswith(DUAL):
        config = replace(config, clep=ClepConfig(), acpt=AcptConfig())  # the preset's are dual's
    if backbone in MADE:
        config = config if config.backbone.name == backbone else MADE[backbone](config)
    elif backbone is not None:
        if config.backbone.name == MICRO:
            raise ConfigError(
                "This preset is made for backbone micro.", got=backbone, expected=list(MADE), where=preset
            )
        if backbone.startswith(DUALS):
            config = (dual if backbone.startswith(DUAL) else dual_context)(config)
        kind, colon, _ = backbone.partition(":")
        if colon and local_folder(backbone) is None and f"{kind}:" not in (*DUALS, LAION):
            raise unknown_name("kind of backbone", f"{kind}:", (*DUALS, LAION), "docs/backbones.md")
        whole = backbone.startswith(DUALS) or local_folder(backbone)
        name, _, revision = (backbone, "", "") if whole else backbone.partition("@")
        config = replace(config, backbone=BackboneConfig(name=name, revision=revision or pinned_revision(name)))
    if corpora is not None:
        config = replace(config, corpora=tuple(corpora))
    for name, value in (overrides or {}).items():
        config = _override(config, name.split("."), value, name)
    if idle := sorted({*(overrides or {})} & OF_DUAL) if not config.backbone.name.startswith(DUALS) else []:
        do = f"leave them out, or give --backbone {DUAL}AUDIO+TEXT"
        raise ConfigError("Only a dual backbone has these settings.", got=idle, where=config.backbone.name, do=do)
    return config


def _override(node: Any, path: list[str], value: Any, name: str) -> Any:
    hints = typing.get_type_hints(type(node))
    head, rest = path[0], path[1:]
    nested = head in hints and is_dataclass(hints[head])
    if head not in hints or head == "preset" or bool(rest) != nested:
        raise unknown(name, option_names())
    if nested:
        return replace(node, **{head: _override(getattr(node, head), rest, value, name)})
    return replace(node, **{head: _read(value, hints[head])})


def option_names(kind: type = Config, prefix: str = "") -> tuple[str, ...]:
    """Return the dotted names of all settings that can be overridden."""
    names: list[str] = []
    hints = typing.get_type_hints(kind)
    for item in fields(kind):
        if dataclasses.is_dataclass(hints[item.name]):
            names += option_names(typing.cast(type, hints[item.name]), f"{prefix}{item.name}.")
        elif item.name != "preset":
            names.append(prefix + item.name)
    return tuple(names)


def _read(value: Any, hint: Any) -> Any:
    """Convert text to a field's type.

    A value of another type stays as it is; the schema then refuses it.
    """
    options = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        items = items_of(value) if isinstance(value, str) else value
        return tuple(_read(item, options[0]) for item in items) if isinstance(items, list | tuple) else value
    if type(None) in options:  # X | None
        return None if value in (None, "none", "None", "null") else _read(value, options[0])
    if hint is bool and isinstance(value, str):
        return {"true": True, "false": False}.get(value, value)
    return _number(value, hint) if hint in (int, float) and not isinstance(value, bool) else value


def _number(value: Any, kind: type) -> Any:
    """Convert a value to a number; a value that is none stays as it is.

    1e3 is a whole number, 1.5 is not; nan is no number.
    """
    if kind is int:
        with contextlib.suppress(TypeError, ValueError):
            return int(value) if isinstance(value, str) else operator.index(value)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(value)
        if number == number and (kind is float or number.is_integer()):
            return kind(number)
    return value
