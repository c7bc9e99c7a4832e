"""Check before work starts that a run's models are available."""

from typing import Final

from clepdg import prompts
from clepdg.config.model_pins import (
    DUAL,
    DUALS,
    LAION,
    ROBERTA,
    dual_parts,
    laion_file,
    local_folder,
    pinned_revision,
    repository,
)
from clepdg.config.rows import EGEMAPS
from clepdg.config.schema import MADE_HERE, Config
from clepdg.errors import BackboneError, ConfigError
from clepdg.models.files import (
    CLAP_FILES,
    ENCODER_FILES,
    TEXT_FILES,
    Choose,
    check_pickles,
    file_named,
    is_pickled,
    sha256,
    tokenizer_files,
    weight_files,
)

DUAL_FILES: Final = {"speech": ENCODER_FILES, "text": TEXT_FILES}  # of a dual backbone's two encoders, in their order


def check_backbone(config: Config, *, allow_unknown: bool = False) -> None:
    """Raise if the backbone is not available or a prompt has unknown words.

    Args:
        allow_unknown: accept pickled weights at unknown digests.

    Raises:
        BackboneError: the model is not available.
        ConfigError: a prompt has unknown words.
    """
    name, revision = config.backbone.name, config.backbone.revision
    if name in MADE_HERE:
        check_words(config)
    elif name.startswith(LAION):
        from clepdg.download import hub

        hub.check(repository(name), revision, file_named(laion_file(name)), allow_unknown=allow_unknown)
        hub.check(ROBERTA, pinned_revision(ROBERTA), tokenizer_files)
    elif name.startswith(DUALS):
        for (part, commit), (kind, choose) in zip(dual_parts(name), DUAL_FILES.items(), strict=True):
            try:
                check_model(part, commit, choose, allow_unknown)
            except BackboneError as error:
                expected = f"{DUAL}AUDIO+TEXT, the speech encoder first"
                raise BackboneError(f"The {kind} encoder can't be used.", got=error, expected=expected) from None
    else:
        check_model(name, revision, CLAP_FILES, allow_unknown)


def check_words(config: Config) -> None:
    """Raise if a text setting has words outside a micro backbone's vocabulary.

    Raises:
        ConfigError: it has.
    """
    known = {*prompts.vocabulary(), "{emotion}", "{context}"}
    texts = {
        "clep.templates": config.clep.templates,
        "acpt.content_template": (config.acpt.content_template,),
        "acpt.context_template": (config.acpt.context_template,),
        "acpt.joint_template": (config.acpt.joint_template,),
        "text.content_templates": config.text.content_templates,
        "text.handwritten_contexts": config.text.handwritten_contexts,
        "text.nonacoustic_contexts": config.text.nonacoustic_contexts,
    }
    for setting, chosen in texts.items():
        if unknown := prompts.unknown_words(chosen, known):
            raise ConfigError(
                "A prompt holds words that this backbone does not know.",
                got=unknown,
                where=setting,
                do="use words of the module clepdg.prompts, or a backbone that was pretrained on text",
            )


def check_encoder(config: Config, *, allow_unknown: bool = False) -> None:
    """Raise BackboneError if the chosen speech encoder is not available."""
    if config.encoder.name is not None:
        check_model(config.encoder.name, config.encoder.revision, ENCODER_FILES, allow_unknown)


def check_egemaps(config: Config) -> None:
    """Raise if row egemaps is chosen and openSMILE is not installed."""
    from clepdg.models import egemaps

    if EGEMAPS in (config.rows or ()):
        egemaps.require()


def check_model(name: str, revision: str | None, choose: Choose, allow_unknown: bool) -> None:
    """Raise if a model is neither a complete folder nor on the hub.

    Args:
        name: a folder, or a repository of the hub.
        revision: commit of the repository.
        choose: picks the needed files from a listing.
        allow_unknown: accept pickled weights at unknown digests.

    Raises:
        BackboneError: it is not available, or its weights are a pickle that is neither known nor allowed.
    """
    from clepdg.download import hub

    folder = local_folder(name)
    if folder is None:
        hub.check(name, revision, choose, allow_unknown=allow_unknown)
        return
    try:
        try:
            choose({path.name for path in folder.iterdir()})
        except BackboneError as error:
            raise BackboneError("The model's folder can't be used.", got=error, where=folder) from None
        files = weight_files(folder)
        if is_pickled(files) and not allow_unknown:
            check_pickles(folder, [sha256(folder / file) for file in files], allow=False)
    except OSError as error:
        raise BackboneError("The model's folder can't be read.", got=error, where=folder) from error
