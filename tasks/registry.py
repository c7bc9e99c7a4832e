"""MLflow: one run per computed stage under the flow's parent run, and the registered models.

The only file that speaks to MLflow. After MLflow accepted an output, mlflow.json is written beside it, so that an
up-to-date run never imports mlflow, and what was missed while a server was down is made up by the next run.
"""

import json
import logging
import subprocess
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from clepdg.cards import load_card
from clepdg.errors import ClepError, ConfigError
from clepdg.protocols import MAIN_ROW, SUPERVISED
from clepdg.store import Record, Store, write_json
from tasks.settings import PROJECT, Settings
from tasks.stages import Node

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("clepdg")

MARKER = "mlflow.json"
MODELS = {
    "clep": "clep-dg-clep",
    "acpt": "clep-dg-acpt",
    "text_embeddings": "clep-dg-text-embeddings",
    "classifier": "clep-dg-classifier",
}
CHAMPION = "champion"


def tracking_url(settings: Settings, preset: str) -> str:
    """Return MLflow's address; without a server each of demo and the rest has an SQLite file of its own."""
    if settings.tracking_url:
        return settings.tracking_url
    return f"sqlite:///{_folder(settings, preset) / 'mlflow.db'}"


def _folder(settings: Settings, preset: str) -> Path:
    return settings.home / ("mlflow-demo" if preset == "demo" else "mlflow")


def model_name(stage: str, preset: str) -> str:
    """Return the registered model's name; the demo's are apart, so that they never become anybody's champion."""
    return ("demo-" if preset == "demo" else "") + MODELS[stage]


@dataclass
class Registry:
    """What one flow run tells MLflow. Nothing is imported or opened before the first stage that was computed."""

    settings: Settings
    preset: str
    store: Store
    parameters: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    _client: Any = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _open: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """MLflow's address."""
        return tracking_url(self.settings, self.preset)

    def client(self) -> "MlflowClient":
        """Return the client, connected; the first call opens the experiment and the parent run."""
        with self._lock:
            if self._client is None:
                self._client = connect(self.settings, self.preset)
                experiment = experiment_id(self._client, self.settings, self.preset)
                run = self._client.create_run(experiment, run_name=f"clep-dg {self.preset}", tags=dict(self.tags))
                self.parent, self._experiment = run.info.run_id, experiment
                _log_params(self._client, self.parent, self.parameters)
            client: MlflowClient = self._client
            return client

    def start(self, node: Node, key: str) -> str | None:
        """Open the MLflow run of a stage that is being computed; None if MLflow does not answer."""
        try:
            with self._lock:
                client = self.client()
                tags = {
                    **self.tags,
                    "mlflow.parentRunId": str(self.parent),
                    "stage": node.stage,
                    "name": node.name,
                    "stage_key": key,
                    **_fold_tags(node),
                }
                run = client.create_run(self._experiment, run_name=f"{node.stage} {node.name}", tags=tags)
                _log_params(client, run.info.run_id, _flat(node.config))
                return str(run.info.run_id)
        except Exception as error:  # MLflow raises many kinds; none of them may cost a training
            log.warning("MLflow did not take the start of %s: %s", node.id, _first_line(error))
            return None

    def log_metrics(self, run_id: str | None, points: list[tuple[str, float, int]]) -> None:
        """Record metrics (name, value, step) of a stage's run."""
        if run_id is None or not points:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        try:
            with self._lock:
                for start in range(0, len(points), 900):
                    batch = [Metric(name, value, now, step) for name, value, step in points[start : start + 900]]
                    self.client().log_batch(run_id, metrics=batch)
        except Exception as error:
            log.warning("MLflow did not take metrics: %s", _first_line(error))

    def fail(self, run_id: str | None, error: BaseException) -> None:
        """End a stage's run as failed."""
        if run_id is not None:
            try:
                with self._lock:
                    self.client().set_tag(run_id, "error", str(error)[:4000])
                    self.client().set_terminated(run_id, "FAILED")
            except Exception as second:
                log.warning("MLflow did not take a failure: %s", _first_line(second))

    def finish(self, node: Node, record: Record, records: Mapping[str, Record], run_id: str | None) -> None:
        """Record a stage's output and register its model, unless MLflow already has it."""
        folder = self.store.local(record.stage, record.key)
        marker = read_marker(folder)
        if run_id is None and marker is not None and marker["url"] == self.url:
            return
        try:
            with self._lock:
                run_id = run_id or self.start(node, record.key)
                if run_id is None:
                    return
                client = self.client()
                _log_inputs(client, run_id, node, records, self.store)
                figures = {
                    name: value for name, value in _flat(record.figures).items() if isinstance(value, int | float)
                }
                self.log_metrics(run_id, [(_metric_name(n), float(v), 0) for n, v in figures.items()])
                for name, value in record.digests.items():
                    client.set_tag(run_id, f"digest.{name}", value)
                facts: dict[str, Any] = {"url": self.url, "run_id": run_id}
                if record.stage in MODELS:
                    facts |= self._register(client, node, record, records, run_id, folder)
                if record.stage == "evaluate":
                    self._tag_classifiers(client, node, record, records)
                if record.stage in ("index", "evaluate", "report"):
                    for path in sorted(folder.iterdir()):
                        if path.name not in ("stage.json", MARKER):
                            client.log_artifact(run_id, str(path))
                client.set_terminated(run_id, "FINISHED")
                write_json(folder / MARKER, facts)
        except Exception as error:
            log.warning("MLflow did not take %s; the next run makes it up: %s", node.id, _first_line(error))

    def _register(
        self,
        client: "MlflowClient",
        node: Node,
        record: Record,
        records: Mapping[str, Record],
        run_id: str,
        folder: Path,
    ) -> dict[str, Any]:
        """Register one version per stage key, however often it is repeated; return its name and number."""
        name = model_name(record.stage, self.preset)
        found = _version_of(client, name, record.key)
        if found is None:
            tags = {"stage_key": record.key, "digest": record.digests["content"], "preset": self.preset}
            tags |= {**_fold_tags(node), "licences": _licences(node, records)}
            _ensure_model(client, name, record.stage)
            source = self._log_model(client, node, record, records, run_id, folder)
            found = client.create_model_version(name, source, run_id, tags=tags).version
        return {"model": name, "version": str(found)}

    def _log_model(
        self,
        client: "MlflowClient",
        node: Node,
        record: Record,
        records: Mapping[str, Record],
        run_id: str,
        folder: Path,
    ) -> str:
        """Log what a version holds, and return its address: the model's files, or where they lie in the store."""
        fold = _fold_tags(node).get("fold")
        servable = record.stage == "classifier" and fold == SUPERVISED and _fold_tags(node).get("row") == MAIN_ROW
        if servable:
            from tasks.serving import save_classifier

            clep = records[_clep_id(node)]
            with TemporaryDirectory() as scratch:
                save_classifier(Path(scratch) / "model", folder, self.store.local(clep.stage, clep.key), record)
                client.log_artifacts(run_id, str(Path(scratch) / "model"), "model")
        elif fold == SUPERVISED or record.stage in ("acpt", "text_embeddings"):
            for name in record.files:
                client.log_artifact(run_id, str(folder / name), str(Path("model") / Path(name).parent))
        else:  # a leave-out CLEP is recorded by digest and place, not copied: there are many, and nobody serves them
            pointer = {
                "store": str(self.store.root),
                "stage": record.stage,
                "key": record.key,
                "digests": record.digests,
            }
            client.log_dict(run_id, pointer, "model/pointer.json")
        return f"{client.get_run(run_id).info.artifact_uri}/model"

    def _tag_classifiers(
        self, client: "MlflowClient", node: Node, record: Record, records: Mapping[str, Record]
    ) -> None:
        """Give each classifier's version its headline metrics; the first of the supervised ACPT row is the champion."""
        for name, ref in node.inputs.items():
            if not name.startswith("classifier/"):
                continue
            classifier = records[ref]
            marker = read_marker(self.store.local("classifier", classifier.key))
            row, _, seed = name.removeprefix("classifier/").partition(".")
            if marker is None or "version" not in marker:
                continue
            tags = {**record.figures["headline"].get(row, {}), "test_digest": record.digests["test"]}
            for tag, value in tags.items():
                client.set_model_version_tag(marker["model"], marker["version"], tag, _shown(value))
            first = seed == f"c{min(_seeds(node, 'c'))}.l{min(_seeds(node, 'l'))}" if row == MAIN_ROW else False
            if (
                node.name == SUPERVISED
                and first
                and CHAMPION not in client.get_registered_model(marker["model"]).aliases
            ):
                client.set_registered_model_alias(marker["model"], CHAMPION, marker["version"])

    def close(self, stages: Mapping[str, Mapping[str, Any]], failed: bool) -> None:
        """End the parent run, if one was opened, with the list of all stages and the runs that computed them."""
        if self._client is None or self.parent is None:
            return
        try:
            linked = {}
            for node_id, facts in stages.items():
                stage = node_id.partition("/")[0]
                marker = read_marker(self.store.local(stage, facts["key"])) if facts.get("key") else None
                linked[node_id] = {**facts, "mlflow_run": marker["run_id"] if marker else None}
            self._client.log_dict(self.parent, linked, "stages.json")
            self._client.set_terminated(self.parent, "FAILED" if failed else "FINISHED")
        except Exception as error:
            log.warning("MLflow did not take the end of the run: %s", _first_line(error))


def connect(settings: Settings, preset: str) -> "MlflowClient":
    """Return a client of MLflow's tracking server, or of the SQLite file below var/."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"mlflow\.pyfunc")  # it asks for type hints that our table has no word for
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    _folder(settings, preset).mkdir(parents=True, exist_ok=True)
    url = tracking_url(settings, preset)
    mlflow.set_tracking_uri(url)
    mlflow.set_registry_uri(url)
    return mlflow.MlflowClient(tracking_uri=url, registry_uri=url)


def experiment_id(client: "MlflowClient", settings: Settings, preset: str) -> str:
    """Return the experiment's id, made if need be; its artifacts never land in the current folder."""
    name = "clep-dg-demo" if preset == "demo" else "clep-dg"
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = None if settings.tracking_url else (_folder(settings, preset) / "artifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def read_marker(folder: Path) -> dict[str, Any] | None:
    """Return what MLflow accepted of an output: url, run_id, and model and version if it is registered."""
    try:
        marker: dict[str, Any] = json.loads((folder / MARKER).read_text())
        return marker
    except (OSError, ValueError):
        return None


def load_classifier(settings: Settings, preset: str, version: str | None = None) -> Any:
    """Load the champion among the registered classifiers, or a version of it.

    Raises:
        ConfigError: there is none.
    """
    name = model_name("classifier", preset)
    do = f"run the pipeline first (clep-dg run --preset {preset})"
    if not settings.tracking_url and not (_folder(settings, preset) / "mlflow.db").exists():
        raise ConfigError("No classifier is registered yet.", where=_folder(settings, preset), do=do)
    connect(settings, preset)
    import mlflow

    try:
        return mlflow.pyfunc.load_model(f"models:/{name}/{version}" if version else f"models:/{name}@{CHAMPION}")
    except mlflow.exceptions.MlflowException as error:
        where = f"{name}, {version or CHAMPION}"
        raise ConfigError(
            "There is no such registered classifier.", got=_first_line(error), where=where, do=do
        ) from error


def git_commit() -> str:
    """Return the checkout's commit, with "-dirty" where files differ; "unknown" outside a checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip() or "unknown"


def _version_of(client: "MlflowClient", name: str, key: str) -> str | None:
    found = client.search_model_versions(f"name = '{name}' and tag.stage_key = '{key}'")
    return str(found[0].version) if found else None


def _ensure_model(client: "MlflowClient", name: str, stage: str) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        what = stage.replace("_", " ")
        client.create_registered_model(name, description=f"clep-dg: {what}; one version per stage key.")


def _log_inputs(client: "MlflowClient", run_id: str, node: Node, records: Mapping[str, Record], store: Store) -> None:
    """Log the corpora that a stage reads as dataset inputs, with their digests."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for name, ref in node.inputs.items():
        kind, _, corpus = name.partition("/")
        if kind not in ("shard", "index") or not corpus:
            continue
        node_id, _, part = ref.partition("#")
        record = records[node_id]
        dataset = Dataset(
            name=f"{kind} {corpus}",
            digest=record.digests[part or "content"][:36],
            source_type="local",
            source=json.dumps({"uri": str(store.local(record.stage, record.key))}),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", part or "evaluation")]))
    if inputs:
        client.log_inputs(run_id, inputs)


def _fold_tags(node: Node) -> dict[str, str]:
    """Return fold, row and seed of a node's name, "<fold>.<row or contexts>.<seeds>"."""
    if node.stage not in (*MODELS, "evaluate", "audio_embeddings"):
        return {}
    parts = node.name.split(".")
    seeds = [part for part in parts[1:] if part[:1] in "cl-" and (part == "-" or part[1:].isdigit())]
    named = [part for part in parts[1:] if part not in seeds]
    tags = {"fold": parts[0], "seed": ".".join(seeds) or "-"}
    return {**tags, **({"row" if node.stage == "classifier" else "of": named[0]} if named else {})}


def _seeds(node: Node, kind: str) -> list[int]:
    seeds = {part for head in node.config["heads"] for part in head["seed"].split(".") if part[:1] == kind}
    return [int(part[1:]) for part in seeds if part[1:].isdigit()]


def _clep_id(node: Node) -> str:
    """Return the id of the CLEP whose audio embeddings a classifier learns from or is applied to."""
    ref = next(ref for name, ref in node.inputs.items() if name.startswith("audio/"))
    return "clep/" + ref.removeprefix("audio_embeddings/").rsplit(".", 1)[0]


def _licences(node: Node, records: Mapping[str, Record]) -> str:
    """Return the licences of the corpora that an output was learnt from, found through its inputs."""
    corpora: set[str] = set()
    waiting, seen = list(node.needs), set[str]()
    while waiting:
        node_id = waiting.pop()
        if node_id in seen or node_id not in records:
            continue
        seen.add(node_id)
        stage, _, name = node_id.partition("/")
        if stage == "index":
            corpora.add(name)
        elif stage == "clep":
            corpora |= {name.removeprefix("index/") for name in records[node_id].inputs if name.startswith("index/")}
        elif stage == "acpt":
            waiting.append("clep/" + name.rsplit(".", 2)[0])
    return "; ".join(f"{corpus}: {load_card(corpus).licence}" for corpus in sorted(corpora)) or "none"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    from clepdg.store import plain

    if not prefix:
        value = plain(value)
    if not isinstance(value, dict):
        return {prefix: value}
    return {n: v for key, item in value.items() for n, v in _flat(item, f"{prefix}.{key}" if prefix else key).items()}


def _log_params(client: "MlflowClient", run_id: str, values: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(_metric_name(name), str(value)[:6000]) for name, value in _flat(values).items()]
    for start in range(0, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])


def _metric_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:250]


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def explain_unreachable(settings: Settings) -> ClepError:
    """Return the error for a tracking server that does not answer."""
    return ClepError(
        "MLflow does not answer.", where=settings.tracking_url, do="start it, or unset CLEPDG_TRACKING_URL"
    )
