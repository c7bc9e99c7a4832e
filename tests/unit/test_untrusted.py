"""Protects against what a stranger put into a store: each reader refuses it with one clear error; no pickles."""

import ast
import copy
import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from clepdg import hashing
from clepdg.config.schema import AcptConfig, ShardConfig
from clepdg.dataset import shard_writer, shards, tables
from clepdg.download import source as sources
from clepdg.errors import BackboneError, ClepError, ConfigError, ShardError, StoreError
from clepdg.evaluation.run_results import read_results
from clepdg.method import acpt, audio_embeddings, text_embeddings
from clepdg.method.heads import Head, load_head
from clepdg.models.clap import load_clap
from clepdg.models.micro import load_micro
from clepdg.models.tensors import load_tensors, save_tensors
from clepdg.store.opening import open_store
from clepdg.store.readers import read_frame, read_table
from clepdg.store.record import MARKER, Record, load_record, read_record
from clepdg.training.loop import read_checkpoint_facts
from clepdg_tasks.engine import run_history
from tests.clap import build_small_clap

PROJECT = Path(__file__).resolve().parents[2]
DEEP = b"[" * 200_000


# --- no pickle


def calls(tree: ast.AST) -> list[tuple[str, dict[str, ast.expr]]]:
    """Return (dotted name, keywords) of all calls."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {word.arg: word.value for word in node.keywords if word.arg}
            found.append((ast.unparse(node.func), keywords))
    return found


def unpickles(source: str, name: str) -> list[str]:
    """Return what in a module could load a pickle, or run what a file says."""
    tree = ast.parse(source)
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and ast.unparse(node) != "from joblib import cpu_count":
            module = getattr(node, "module", None) or ""
            names = {module.split(".")[0], *(alias.name.split(".")[0] for alias in node.names)}
            faults += sorted(names & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"})
            if module.split(".")[0] == "yaml":  # "yaml.load" is recognised below, "load" is not
                faults.append(module)
    for function, words in calls(tree):
        if function.startswith("yaml.") and not function.startswith("yaml.safe_load"):
            faults.append(function)
        safe = isinstance(words.get("weights_only"), ast.Constant) and words["weights_only"].value is True
        if function.endswith("torch.load") and not (safe and name == "pickles.py"):
            faults.append(function)
        if function.endswith(("read_pickle", ".load_module")) or function in ("eval", "exec", "__import__"):
            faults.append(function)
        if function in ("np.load", "numpy.load") or (
            "allow_pickle" in words and ast.unparse(words["allow_pickle"]) != "False"
        ):
            faults.append(function)
        if "trust_remote_code" in words and ast.unparse(words["trust_remote_code"]) != "False":
            faults.append(function)
        if function.endswith("from_pretrained") and "Model" in function and "use_safetensors" not in words:
            faults.append(function)
    return faults


def test_no_module_can_load_a_pickle():
    paths = [path for package in ("clepdg", "tasks", "flows") for path in (PROJECT / package).rglob("*.py")]
    assert len(paths) > 60
    assert {path.name: found for path in paths if (found := unpickles(path.read_text(), path.name))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "yaml.load(text)",
        "yaml.full_load(text)",
        "from yaml import load",
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "pd.read_pickle(path)",
        "np.load(path)",
        "eval(text)",
        "ClapModel.from_pretrained(path)",
        "AutoTokenizer.from_pretrained(path, trust_remote_code=True)",
    ],
)
def test_the_rule_sees_what_it_forbids(source):
    assert unpickles(source, "other.py")


# --- tensors


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(**facts: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **facts}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        safetensors(one(), b"\0" * 8, length=1 << 62),  # a huge header
        safetensors(one(), b"\0" * 8, length=1 << 40),
        safetensors(one(data_offsets=[0, 1 << 40]), b"\0" * 8),  # offsets outside
        safetensors(one(data_offsets=[-8, 0]), b"\0" * 8),
        safetensors(one(data_offsets=[8, 0]), b"\0" * 8),
        safetensors(one(data_offsets=[4, 12]), b"\0" * 12),  # a hole
        safetensors({**one(), "y": one()["x"]}, b"\0" * 8),  # two at one place
        safetensors(one(dtype="F3"), b"\0" * 8),
        safetensors(one(shape=[1 << 40, 1 << 40]), b"\0" * 8),
        safetensors(one(shape=[3]), b"\0" * 8),
        safetensors(one(), b"\0" * 4),  # truncated
        safetensors(one(), b"\0" * 9),
        safetensors(DEEP),
        safetensors(b"\x80\x04\x95", b""),  # a pickle
        safetensors([], b""),
        b"PK\x03\x04" + b"\0" * 100,
    ],
)
def test_malicious_tensors(data, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(StoreError, match="tensors can't be read"):
        load_tensors(path)
    with pytest.raises(StoreError, match="checkpoint can't be read"):
        read_checkpoint_facts(path)


@pytest.mark.parametrize("facts", [None, {}, {"facts": "{"}, {"facts": "[1"}, {"facts": "[" * 100_000}])
def test_malicious_facts_of_a_checkpoint(facts, tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "a.resume", metadata=facts)
    with pytest.raises(StoreError, match="checkpoint can't be read"):
        read_checkpoint_facts(tmp_path / "a.resume")


# --- stage folders: each reader, and what may be done to its folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, micro_factory) -> dict[str, Path]:
    """Return a folder of each kind, as its writer leaves it."""
    root = tmp_path_factory.mktemp("whole")
    folders = {
        name: root / name for name in ("head", "text", "audio", "acpt", "index", "shard", "source", "clap", "micro")
    }
    for folder in folders.values():
        folder.mkdir()
    labels = ("angry", "sad")
    Head(labels=labels, cosine=True, weight=torch.ones(2, 3), bias=torch.zeros(2), mean=torch.zeros(3)).save(
        folders["head"]
    )
    text_embeddings.TextEmbeddings(
        labels=labels,
        embeddings=torch.ones(4, 3),
        label_index=torch.tensor([0, 1, 0, 1]),
        context_index=torch.tensor([-1, -1, 0, 0]),
        content=torch.ones(2, 3),
    ).save(folders["text"])
    audio_embeddings.AudioEmbeddings(utterance_ids=("c/1", "c/2"), embeddings=np.ones((2, 3), np.float32)).save(
        folders["audio"]
    )
    acpt.save(folders["acpt"], torch.zeros(2, 1, 3), AcptConfig(), labels)
    row = {name: "x" for name in tables.COLUMNS} | {"path": "a/1.wav", "notes": ["stereo"], "transcript": None}
    row |= {"sample_rate": 16000, "num_samples": 5, "rms_db": -20.0}
    table = tables.build_frame([row], tables.COLUMNS)
    tables.write_index(folders["index"], table, tables.build_frame([], tables.QUARANTINE_COLUMNS))
    speech = folders["source"] / "tree"
    speech.mkdir()
    rows = []
    for number in range(4):
        soundfile.write(speech / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, 8000), 16000)
        rows.append((f"c/{number}", ("train", "test")[number % 2], f"{number}.wav", "A"))
    sources.list_tree(folders["source"])
    utterances = pd.DataFrame(rows, columns=["utterance_id", "split", "path", "raw_label"])
    shard_writer.write_shards(folders["shard"], speech, utterances, ShardConfig())
    build_small_clap().save(folders["clap"])
    micro_factory().save(folders["micro"])
    return folders


def read_shards(folder: Path) -> Any:
    rows = shards.read_offsets(folder).itertuples()
    return [shards.read_waveform(folder, row.tar, row.offset, row.bytes) for row in rows], list(shards.stream(folder))


READERS: dict[str, Callable[[Path], Any]] = {
    "head": load_head,
    "text": text_embeddings.load_text_embeddings,
    "audio": audio_embeddings.load_audio_embeddings,
    "acpt": acpt.load,
    "index": tables.read_utterances,
    "shard": read_shards,
    "source": lambda folder: (sources.root(folder, None), sources.read_files(folder), sources.file_rows(folder)),
    "clap": load_clap,
    "micro": load_micro,
}


def test_what_the_writers_wrote_is_read(whole):
    for name, folder in whole.items():
        READERS[name](folder)


def refused(kind: str, folder: Path) -> ClepError:
    with pytest.raises(ClepError) as caught:
        READERS[kind](folder)
    assert type(caught.value) in (StoreError, ShardError, BackboneError)
    assert str(folder) in str(caught.value)
    return caught.value


FILES = [
    *(("head", name) for name in ("head.json", "head.safetensors")),
    *(("text", name) for name in ("labels.json", "text_embeddings.safetensors")),
    *(("audio", name) for name in ("utterances.json", "audio_embeddings.safetensors")),
    ("acpt", "contexts.safetensors"),
    ("index", "utterances.parquet"),
    *(("shard", name) for name in ("offsets.parquet", "train-000000.tar")),
    *(("source", name) for name in ("files.parquet", "root.json")),
    *(("clap", name) for name in ("front_end.json", "model.safetensors", "config.json", "tokenizer.json")),
    *(("micro", name) for name in ("micro.json", "model.safetensors", "tokenizer.json")),
]


SPOILT = [
    (kind, name, how)
    for kind, name in FILES
    for how in ("missing", "empty", "half", "junk", "deep", "list", "nan")
    if (name, how) != ("front_end.json", "missing")  # without one, a folder is LAION's
    and (how not in ("list", "nan") or name.endswith(".json"))
]


@pytest.mark.parametrize(("kind", "name", "how"), SPOILT)
def test_a_file_that_is_not_what_was_written_is_refused(kind, name, how, whole, tmp_path):
    folder = shutil.copytree(whole[kind], tmp_path / "a folder")
    path = folder / name
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {
                "empty": b"",
                "half": data[: len(data) // 2],
                "junk": np.random.default_rng(0).bytes(len(data)),
                "deep": DEEP,
                "list": b"[[1], {}, null]",
                "nan": b'{"labels": NaN, "root": NaN}',
            }[how]
        )
    refused(kind, folder)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def rewrite(table_file: Path, **columns: Any) -> None:
    """Write a Parquet file anew with other columns."""
    table = pq.read_table(table_file)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        array = pa.array(values) if len(values) == len(table) else pa.array(values * len(table))
        table = table.set_column(place, name, array)
    pq.write_table(table, table_file)


FAULTS: list[tuple[str, Callable[[Path], Any]]] = [
    ("head", lambda f: edit(f / "head.json", labels=["a"])),
    ("head", lambda f: edit(f / "head.json", labels="ab")),
    ("head", lambda f: edit(f / "head.json", labels=[1, 2])),
    ("head", lambda f: edit(f / "head.json", log_temperature="1")),
    ("head", lambda f: edit(f / "head.json", surprise=1)),
    ("head", lambda f: edit(f / "head.json", weight=1)),
    ("head", lambda f: save_tensors(f / "head.safetensors", {"weight": torch.ones(2, 3)})),
    *[
        (
            "head",
            lambda f, change=change: save_tensors(
                f / "head.safetensors",
                {"weight": torch.ones(2, 3), "bias": torch.zeros(2), "mean": torch.zeros(3), **change},
            ),
        )
        for change in (
            {"weight": torch.ones(2, 3, dtype=torch.int32)},
            {"weight": torch.ones(2, 3, dtype=torch.float64)},
            {"weight": torch.ones(6)},
            {"bias": torch.zeros(3)},
            {"mean": torch.zeros(1)},
            {"more": torch.zeros(1)},
        )
    ],
    ("text", lambda f: (f / "labels.json").write_text("[1, 2]")),
    ("text", lambda f: (f / "labels.json").write_text('["angry"]')),
    ("text", lambda f: (f / "labels.json").write_text("[]")),
    *[
        (
            "text",
            lambda f, change=change: save_tensors(
                f / "text_embeddings.safetensors",
                {
                    "embeddings": torch.ones(4, 3),
                    "label_index": torch.tensor([0, 1, 0, 1]),
                    "context_index": torch.zeros(4, dtype=torch.int64),
                    **change,
                },
            ),
        )
        for change in (
            {"label_index": torch.tensor([0, 1, 0, 9])},
            {"label_index": torch.tensor([0, 1, 0, -1])},
            {"label_index": torch.tensor([0, 1])},
            {"label_index": torch.zeros(4)},
            {"embeddings": torch.ones(0, 3)},
        )
    ],
    ("audio", lambda f: (f / "utterances.json").write_text('["c/1"]')),
    ("audio", lambda f: (f / "utterances.json").write_text('["c/1", null]')),
    ("audio", lambda f: save_tensors(f / "audio_embeddings.safetensors", {"embeddings": torch.ones(2)})),
    ("acpt", lambda f: save_tensors(f / "contexts.safetensors", {"context_vectors": torch.ones(2, 3)})),
    ("acpt", lambda f: save_tensors(f / "contexts.safetensors", {"other": torch.ones(2, 1, 3)})),
    ("index", lambda f: rewrite(f / "utterances.parquet", path=["../../outside.wav"])),
    ("index", lambda f: rewrite(f / "utterances.parquet", path=["/etc/passwd"])),
    ("index", lambda f: rewrite(f / "utterances.parquet", num_samples=["5"])),
    ("index", lambda f: pq.write_table(pa.table({"path": ["a"]}), f / "utterances.parquet")),
    ("index", lambda f: shutil.copy(f / "quarantine.parquet", f / "utterances.parquet")),
    ("shard", lambda f: rewrite(f / "offsets.parquet", tar=["../shard/train-000000.tar"])),
    ("shard", lambda f: rewrite(f / "offsets.parquet", tar=["/etc/passwd"])),
    ("shard", lambda f: rewrite(f / "offsets.parquet", tar=["pipe:touch escaped"])),
    ("shard", lambda f: rewrite(f / "offsets.parquet", tar=["train-000009.tar"])),
    ("shard", lambda f: rewrite(f / "offsets.parquet", offset=[-1])),
    ("shard", lambda f: rewrite(f / "offsets.parquet", offset=[1 << 62])),
    ("shard", lambda f: rewrite(f / "offsets.parquet", bytes=[(1 << 63) - 1])),
    ("shard", lambda f: rewrite(f / "offsets.parquet", bytes=[-1])),
    ("shard", lambda f: rewrite(f / "offsets.parquet", bytes=[0])),
    ("shard", lambda f: rewrite(f / "offsets.parquet", offset=[7])),
    ("shard", lambda f: rewrite(f / "offsets.parquet", offset=["7"])),
    ("source", lambda f: rewrite(f / "files.parquet", path=["../outside"])),
    ("source", lambda f: pq.write_table(pa.table({"path": ["a"]}), f / "files.parquet")),
    ("source", lambda f: edit(f / "root.json", root="..")),
    ("source", lambda f: edit(f / "root.json", root="tree/../..")),
    ("source", lambda f: edit(f / "root.json", root="tree\0")),
    ("source", lambda f: edit(f / "root.json", root=5)),
    ("clap", lambda f: edit(f / "front_end.json", frames="1001")),
    ("clap", lambda f: edit(f / "front_end.json", surprise=1)),
]


@pytest.mark.parametrize(("kind", "fault"), FAULTS)
def test_a_folder_whose_parts_do_not_fit_or_lead_out_is_refused(kind, fault, whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole[kind], tmp_path / "a folder")
    monkeypatch.chdir(tmp_path)
    fault(folder)
    refused(kind, folder)
    assert not list(tmp_path.rglob("escaped"))


def test_a_model_folder_with_a_pickle_alone_is_refused_and_not_run(whole, tmp_path):
    folder = shutil.copytree(whole["clap"], tmp_path / "clap")
    (folder / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "escaped"),)

    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    refused("clap", folder)
    assert not (tmp_path / "escaped").exists()


def test_a_model_folder_that_brings_code_does_not_run_it(whole, tmp_path):
    folder = shutil.copytree(whole["clap"], tmp_path / "clap")
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'escaped')!r})\n")
    edit(folder / "config.json", auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    try:
        load_clap(folder)
    except BackboneError:
        pass
    assert not (tmp_path / "escaped").exists()


def test_the_root_of_a_referenced_folder_is_the_one_that_was_named(tmp_path):
    corpus, other = tmp_path / "my corpus", tmp_path / "other"
    out = tmp_path / "out"
    for folder in (corpus, other, out):
        folder.mkdir()
    (out / "root.json").write_text(json.dumps({"root": str(corpus)}))
    for given in (None, str(corpus), corpus.as_uri()):
        assert sources.root(out, given) == corpus
    for given in (str(other), "https://host/corpus.zip", "s3://bucket/corpus"):
        with pytest.raises(StoreError, match=r"(?s)root.*my corpus"):
            sources.root(out, given)


@pytest.mark.parametrize("name", ["a", "a/b", "a.tar", "..a", "a b/ä"])
def test_names_of_files_inside(name):
    data = stage_json(files={name: [1, "0" * 64]})
    assert isinstance(read_record(data, "clep", "k"), Record)


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../b", "a//b", "a/", ".", "a/.", "a\0b", "a/.."])
def test_names_of_files_that_lead_out(name):
    data = stage_json(files={name: [1, "0" * 64]})
    assert read_record(data, "clep", "k") == f"file unreadable: {MARKER}"


def stage_json(**changes: Any) -> bytes:
    facts = dict(stage="clep", name="n", key="k", version=1, config={}, inputs={}, digests={"content": "d"},
                 figures={}, files={}, seconds=1.0, versions={}, format=1)  # fmt: skip
    return json.dumps({**facts, **changes}).encode()


@pytest.mark.parametrize(
    "data",
    [
        *(DEEP, b"", b"\xff\xfe", b"5", b"[]", b'{"format": 1}', stage_json(digests={"content": 5})),
        stage_json(digests={}),
        stage_json(digests={"audio": "d"}),
        stage_json(figures={"loss": 1}).replace(b'"loss": 1', b'"loss": 1e999'),
        stage_json(figures={"loss": 1}).replace(b'"loss": 1', b'"loss": NaN'),
        stage_json(name="\ud800"),
        stage_json(config={"a": 1}).replace(b'{"a": 1}', b'{"a":' * 200 + b"1" + b"}" * 200),
        *(stage_json(**{name: None}) for name in ("stage", "name", "config", "inputs", "figures", "files", "seconds")),
    ],
)
def test_what_is_no_record_is_none(data):
    assert isinstance(read_record(data, "clep", "k"), str)


def test_a_name_that_a_record_lacks_is_one_error_that_says_what_to_do():
    read = read_record(stage_json(figures={"found": {"speakers": 3}}), "clep", "k")
    for record in (read, copy.deepcopy(read), pickle_and_back(read), replace(read, files={})):
        assert record.figures["found"] == {"speakers": 3}
        for ask in (
            lambda record=record: record.digests["learning"],
            lambda record=record: record.figures["losses"],
            lambda record=record: record.figures["found"]["raw_labels"],
        ):
            with pytest.raises(StoreError, match=r"(?s)stage.json.*lacks a name.*clep/k.*--redo clep"):
                ask()


def pickle_and_back(record: Record) -> Record:
    """Return a record as a worker process receives it."""
    back: Record = ForkingPickler.loads(bytes(ForkingPickler.dumps(record)))
    return back


def test_a_stage_json_of_many_bytes_or_of_none_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "JSON_BYTES", 1000)
    monkeypatch.setattr(hashing.read_json, "__defaults__", (1000,))
    (tmp_path / MARKER).write_bytes(stage_json(name="n" * 2000))
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("it was read"))
    assert load_record(tmp_path, "clep", "k") == f"file unreadable: {MARKER}"
    (tmp_path / MARKER).unlink()
    os.mkfifo(tmp_path / MARKER)
    with pytest.raises(OSError, match="not a file"):
        load_record(tmp_path, "clep", "k")


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("text", ["a"], [1, None, ["a"]]),
        ("count", [0, 5], [-1, 1.0, True, "1"]),
        ("number", [0, 1.5], ["1", None, True]),
        ("names", [[], ["a"]], ["a", [1], {"a": "b"}]),
        ("counts", [{}, {"a": 1}], [[], {"a": "1"}, {"a": -1}]),
        ("tables", [{"a": {"b": 0.5}}], [{"a": 1}, {"a": {"b": "c"}}, []]),
    ],
)
def test_kinds_of_names(kind, right, wrong):
    for value in [*right, *wrong]:
        record = read_record(stage_json(figures={"a": {"b": value}}), "clep", "k")
        assert record.lacks({"figures.a.b": kind}) == (None if value in right and value is not True else "figures.a.b")
        assert record.lacks({"figures.a.c": kind}) == "figures.a.c"
        assert record.lacks({"figures.c.b": kind}) == "figures.c.b"


RUN = {
    "arguments": {},
    "config": {"preset": "demo", "backbone": {"name": "micro"}, "corpora": ["a"]},
    "stages": {"clep/x": {"key": "k", "outcome": "Completed"}, "clep/y": {"key": None}},
}


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name in RUN for value in (None, 5, [], "text")),
        {"config": {"corpora": 5}},
        {"config": {"corpora": [["a"]]}},
        {"config": {"preset": {}}},
        {"config": {"backbone": "micro"}},
        {"config": {"backbone": {"name": []}}},
        *({"stages": {"clep/x": facts}} for facts in (None, "k", [], {"key": 5}, {"key": "../k"}, {"key": "a/b"})),
    ],
)
def test_run_files_with_wrong_types_are_passed_over(change, tmp_path):
    store = open_store(str(tmp_path / "store"))
    for number, content in enumerate(({**RUN, **change}, RUN)):
        store.documents.write(f"runs/{number}.json", content)
    assert run_history.read(store, "0") is None
    assert [content["stages"] for content, _ in run_history.logs(store)] == [RUN["stages"]]
    assert run_history.last_keys(store, RUN["config"]) == {"clep/x": "k"}
    with pytest.raises(ConfigError, match="no evaluated run"):
        read_results("demo", tmp_path / "store")


def bomb(path: Path, kind: str) -> None:
    """Write a small Parquet file that grows in memory."""
    columns: dict[str, Any] = {
        "rows": {"a": pa.array(np.zeros(30_000_000, np.int8))},
        "text": {"a": ["x" * 15_000] * 10_000},
        "list": {"a": [["x" * 15_000]] * 10_000},
        "delta": {"a": ["x" * 15_000 + str(n) for n in range(10_000)]},
    }
    delta = {"use_dictionary": False, "column_encoding": {"a": "DELTA_BYTE_ARRAY"}} if kind == "delta" else {}
    pq.write_table(pa.table(columns[kind]), path, **delta)


@pytest.mark.parametrize("kind", ["rows", "text", "list", "delta"])
def test_a_table_that_grows_in_memory_is_refused_before_it_is_read(kind, tmp_path, monkeypatch):
    path = tmp_path / "cells.parquet"
    bomb(path, kind)
    assert path.stat().st_size < 1_000_000
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *args: pytest.fail("it was read"))
    for read in (
        lambda: read_frame(path, ["a"]),
        lambda: read_table(path, {"a": {"rows": "int8", "list": "list"}.get(kind, "string")}),
    ):
        with pytest.raises(StoreError, match=r"(?s)can't be read.*(grow|encoding)"):
            read()


def test_a_table_that_lacks_a_column_or_is_none(tmp_path):
    path = tmp_path / "cells.parquet"
    pd.DataFrame({"fold": ["a"]}).to_parquet(path)
    assert len(read_frame(path, ["fold"])) == 1
    with pytest.raises(StoreError, match="no column uar"):
        read_frame(path, ["fold", "uar"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match="can't be read"):
        read_frame(path, ["fold"])
    with pytest.raises(StoreError, match="can't be read"):
        read_frame(tmp_path / "nothing", ["fold"])
