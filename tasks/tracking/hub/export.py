"""Export a registered classifier as a folder with a model card; upload it to the Hugging Face hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clepdg.config.folds import SUPERVISED
from clepdg.config.rows import ROWS
from clepdg.corpora.cards import load_card
from clepdg.errors import ClepError, ConfigError
from clepdg.store.record import Record
from clepdg.store.store import Store
from clepdg_tasks.engine import run_history
from clepdg_tasks.engine.run_history import split_id
from clepdg_tasks.host.settings import Settings
from clepdg_tasks.tracking.client import first_line
from clepdg_tasks.tracking.lineage import version_tags
from clepdg_tasks.tracking.model_cards import LIMITS
from clepdg_tasks.tracking.model_cards import number as whole
from clepdg_tasks.tracking.model_registry import find_version, load_classifier, model_name

if TYPE_CHECKING:
    from clepdg.method.emotion_classifier import EmotionClassifier

TEMPLATE: Final = Path(__file__).with_name("card.j2")
PAPER: Final = "https://arxiv.org/abs/2507.04048"


def check_export(folder: Path, push: str | None) -> None:
    """Check a folder and the name of a repository before work starts.

    Raises:
        ConfigError: the folder holds something, or no repository of the hub can have this name.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("The folder for the export is not empty.", where=folder, do="name a new folder")
    if push is None:
        return
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(push)
        named = push.count("/") == 1
    except HFValidationError:
        named = False
    if not named:
        expected = "USER/NAME, of letters, digits, - _ and ."
        raise ConfigError("The hub has no repository of this name.", got=push, expected=expected, where="--push")


def export(settings: Settings, preset: str, version: str, folder: Path, push: str | None = None) -> str:
    """Write a registered classifier with a model card; return a message.

    Args:
        version: its number or alias.
        folder: a new or empty one. clepdg.load_classifier reads it; where CLEP is a CLAP with LAION's front end,
            transformers' ClapModel, AutoProcessor and pipelines do too.
        push: USER/NAME of a repository of the Hugging Face hub, which is made, private, where there is none.

    Raises:
        ClepError: there is no such version, it can't be served, the folder can't be written, or the hub refuses.
    """
    found = find_version(settings, preset, version)
    tags, number = version_tags(found), str(found.version)
    model, store = load_classifier(settings, preset, number), settings.open_store()
    try:
        model.save(folder)
        card = _card(model, tags | {"version": number}, store, preset, push or folder.name)
        (folder / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise ConfigError("The export can't be written.", got=error, where=folder) from error
    said = f"version {number} of {model_name('classifier', preset)} is in {folder}"
    if push:
        said += f"\nuploaded to {_upload(folder, push)}"
    return said


def _upload(folder: Path, name: str) -> str:
    """Upload a folder to a repository of the hub; return its address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi()
    try:
        url = str(api.create_repo(name, private=True, exist_ok=True))
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="clep-dg export")
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:  # without a token: ValueError
        raise ClepError(
            "The hub does not take the model; the folder is written.",
            got=first_line(error)[:400],
            where=f"{api.endpoint}/{name}",
            do=f"log in with a token that may write (hf auth login), then: hf upload {name} {folder}",
        ) from error
    return url


def _card(model: "EmotionClassifier", tags: Mapping[str, str], store: Store, preset: str, name: str) -> str:
    """Return the model card of an exported version."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    run = run_history.read(store, tags.get("run", "-")) or {"config": {}, "stages": {}}
    cards = [load_card(corpus) for corpus in run["config"].get("corpora", [])]
    title = ROWS[tags["row"]].title
    names = ", ".join(card.title for card in cards)
    data = ModelCardData(
        language=sorted({card.language for card in cards}),
        license="other",
        license_name="licences-of-the-training-corpora",
        license_link="README.md",
        library_name="transformers" if _is_transformers(model) else "clepdg",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "clep-dg", *(["clap"] if _is_transformers(model) else [])],
        metrics=["recall"],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="audio-classification",
                task_name="Speech emotion recognition",
                dataset_type=", ".join(card.name for card in cards),
                dataset_name=f"test parts of {names}",
                metric_type="recall",
                metric_name="UAR (unweighted average recall)",
                metric_value=float(tags["uar"]),
            )
        ]
        if "uar" in tags
        else None,
    )
    found = ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        name=name,
        title=title[0].upper() + title[1:],
        labels=", ".join(model.head.labels),
        demo=preset == "demo",
        limits=LIMITS,
        transformers=_is_transformers(model),
        kind=type(model.clap).__name__,
        backbone=run["config"].get("backbone", {}).get("name", "unknown"),
        cards=cards,
        results=_results(tags, names),
        left_out=_left_out(store, run["stages"], tags["row"]),
        paper=PAPER,
        version=f"{model_name('classifier', preset)}, version {tags['version']}, run {tags.get('run', 'unknown')}",
        stage_key=tags["stage_key"],
    )
    return str(found) + "\n"


def _is_transformers(model: "EmotionClassifier") -> bool:
    from clepdg.models.clap import Clap
    from clepdg.models.feature_extractor import extractor_settings

    return type(model.clap) is Clap and extractor_settings(model.clap.front_end) is not None


def _results(tags: Mapping[str, str], names: str) -> list[tuple[str, str, str, str]]:
    """Return (data, UAR, interval, n) of the version's own test part."""
    if "uar" not in tags:
        return []
    return [(f"test parts of {names}", tags["uar"], tags.get("interval", "-"), tags.get("n", "-"))]


def _left_out(store: Store, stages: Mapping[str, Any], row: str) -> list[tuple[str, str, str, str]]:
    """Return (corpus, UAR, interval, n) of models trained without a corpus."""
    found = []
    for node_id, facts in sorted(stages.items()):
        stage, fold = split_id(node_id)
        record = store.lookup(stage, facts["key"]) if stage == "evaluate" and facts.get("key") else None
        own = record.figures.get("headline", {}).get(row, {}) if isinstance(record, Record) else {}
        if fold != SUPERVISED and "uar" in own:
            interval = f"[{own['low']:.3f}, {own['high']:.3f}]" if "low" in own and "high" in own else "-"
            found.append((fold.removeprefix("leave-out-"), f"{own['uar']:.3f}", interval, whole(own["n"])))
    return found
