"""Protects models from the hub: pinned bytes, pickles, gates, offline work, and errors before any download."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants as hub_constants
import pytest
import torch

from clepdg.config.model_pins import laion_file, pins
from clepdg.download import hub
from clepdg.errors import BackboneError, ConfigError
from clepdg.models.clap import load_clap
from clepdg.models.files import CLAP_FILES, ENCODER_FILES, file_named, sha256, tokenizer_files
from clepdg.models.speech_encoder import load_encoder
from clepdg.store.documents import Documents
from clepdg_tasks.host.model_checks import check_model
from tests.clap import build_small_clap
from tests.rehearsal.clap import make_clap
from tests.rehearsal.hub import TOKEN, Hub, Repository

NAME = "laion/tiny"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Return a folder as laion/clap-htsat-unfused lies on the hub: pytorch_model.bin and no safetensors."""
    return make_clap(tmp_path_factory.mktemp("a clap"), tiny=True)


@pytest.fixture
def folder(source, tmp_path) -> Path:
    """Return a copy of that folder."""
    return Path(shutil.copytree(source, tmp_path / "a folder"))


@pytest.fixture
def server(source, tmp_path, monkeypatch):
    """Return a hub of one model, with an empty cache here."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Hub([Repository.of_folder(NAME, source)]) as server:
        monkeypatch.setattr(hub_constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)
        yield server


def commit(server: Hub, name: str = NAME) -> str:
    return next(each for each in server.repositories.values() if each.name == name).revisions["main"]


def serve(server: Hub, repository: Repository) -> str:
    """Put a repository on the hub; return its commit."""
    server.repositories[repository.name] = repository
    return repository.revisions["main"]


def own_pins(monkeypatch, folder: Path, *rows: str) -> None:
    """Name pins in a folder of the user's own cards."""
    folder.mkdir(exist_ok=True)
    (folder / "models.csv").write_text("\n".join(["repository,revision,file,bytes,sha256", *rows]) + "\n")
    monkeypatch.setenv("CLEPDG_CARDS", str(folder))


def test_the_default_backbone_is_pinned_to_published_bytes():
    file = pins()["laion/clap-htsat-unfused"].files["pytorch_model.bin"]
    assert file == (614525833, "1cd3c601bc4afe0fa87be3de4c13dd2cfadd249fac1e29acf74a9b296c3219bb")


def test_a_pickle_of_the_hub_loads_as_transformers_loads_it(server, source, tmp_path, tone, monkeypatch):
    from transformers import ClapModel

    size, digest = (source / "pytorch_model.bin").stat().st_size, sha256(source / "pytorch_model.bin")
    own_pins(monkeypatch, tmp_path / "cards", f"{NAME},{commit(server)},pytorch_model.bin,{size},{digest}")
    hub.check(NAME, commit(server), CLAP_FILES)
    assert not [path for method, path in server.requests if method == "GET" and "/resolve/" in path]
    shown: list[tuple[int, int]] = []
    folder = hub.fetch(NAME, commit(server), CLAP_FILES, progress=lambda done, total: shown.append((done, total)))
    assert max(shown) == (size, size)
    clap = load_clap(folder)
    peer = ClapModel.from_pretrained(source, use_safetensors=False).eval()
    tokens = clap.tokenize(["happy speech", "an angry voice"])
    with torch.no_grad():
        torch.testing.assert_close(clap.encode_text(["happy speech", "an angry voice"]),
                                   peer.get_text_features(**tokens).pooler_output)  # fmt: skip
    state, expected = clap.model.state_dict(), peer.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    clap.save(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("*.bin"))
    assert load_clap(tmp_path / "saved").digest() == clap.digest()


def test_the_cache_is_enough_and_is_not_asked_about(server, monkeypatch):
    revision = commit(server)
    hub.fetch(NAME, revision, CLAP_FILES)
    server.requests.clear()
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    hub.check(NAME, revision, CLAP_FILES, allow_unknown=True)
    hub.fetch(NAME, revision, CLAP_FILES)
    assert not server.requests
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE"):
        hub.check(NAME, "0" * 40, CLAP_FILES)


def test_half_a_download_is_not_taken_for_a_model(server, monkeypatch):
    revision, real = commit(server), hub._download

    def broken(name, revision, file, progress):
        if file.endswith(".bin"):
            raise BackboneError("The download was interrupted.")
        return real(name, revision, file, progress)

    monkeypatch.setattr(hub, "_download", broken)
    with pytest.raises(BackboneError, match="interrupted"):
        hub.fetch(NAME, revision, CLAP_FILES)
    assert hub.cached(NAME, revision, CLAP_FILES) is None
    monkeypatch.setattr(hub, "_download", real)
    assert (hub.fetch(NAME, revision, CLAP_FILES) / "pytorch_model.bin").is_file()


def test_an_unknown_pickle_needs_the_users_word(server, folder):
    with pytest.raises(BackboneError, match="--allow-pickle-weights"):
        hub.check(NAME, commit(server), CLAP_FILES)
    hub.check(NAME, commit(server), CLAP_FILES, allow_unknown=True)
    with pytest.raises(BackboneError, match=f"sha256 {sha256(folder / 'pytorch_model.bin')}"):
        load_clap(folder)
    load_clap(folder, allow_unknown=True)


def test_bytes_that_are_not_the_pinned_ones_are_refused(server, tmp_path, monkeypatch):
    own_pins(monkeypatch, tmp_path / "cards", f"{NAME},{commit(server)},pytorch_model.bin,,{'0' * 64}")
    with pytest.raises(BackboneError, match="not the published one"):
        hub.fetch(NAME, commit(server), CLAP_FILES)


def test_what_has_no_pin_is_recorded_at_the_first_download(server, tmp_path):
    documents, revision = Documents(tmp_path / "store"), commit(server)
    folder = hub.fetch(NAME, revision, CLAP_FILES, pins=documents)
    record = documents.read("pins/models.json")[f"hf://{NAME}@{revision}/pytorch_model.bin"]
    weights = folder / "pytorch_model.bin"
    assert (record["bytes"], record["sha256"]) == (weights.stat().st_size, sha256(weights))
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.unlink()
    weights.write_bytes(data)
    with pytest.raises(BackboneError, match=r"recorded .* in .*models\.json"):
        hub.fetch(NAME, revision, CLAP_FILES, pins=documents)


def test_the_hub_has_to_send_what_it_announces_also_at_the_second_try(server, source, tmp_path, monkeypatch):
    """Refused bytes leave the cache and are never recorded: the next run downloads again."""
    documents, revision = Documents(tmp_path / "store"), commit(server)
    with monkeypatch.context() as lying:
        lying.setattr(hub, "sha256", lambda path: "2" * 64)
        for _ in range(2):
            with pytest.raises(BackboneError, match="published by the hub"):
                hub.fetch(NAME, revision, CLAP_FILES, pins=documents)
            assert hub.cached(NAME, revision, CLAP_FILES) is None
    assert documents.read("pins/models.json") is None
    hub.fetch(NAME, revision, CLAP_FILES, pins=documents)
    assert documents.read("pins/models.json")


def test_a_cached_file_is_held_to_the_name_of_its_blob(server, tmp_path):
    folder = hub.fetch(NAME, commit(server), CLAP_FILES)
    blob = (folder / "pytorch_model.bin").resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(BackboneError, match="published by the hub"):
        hub.fetch(NAME, commit(server), CLAP_FILES)
    hub.fetch(NAME, commit(server), CLAP_FILES)


def test_a_path_is_no_commit(server, folder):
    load_clap(folder, allow_unknown=True).save(folder)
    for revision in (str(folder), "../../../../" + folder.name, "x" * 300):
        assert hub.cached(NAME, revision, CLAP_FILES) is None
        with pytest.raises(BackboneError):
            hub.check(NAME, revision, CLAP_FILES)


def test_other_bytes_than_the_pinned_are_known_before_the_download(server, tmp_path, monkeypatch):
    own_pins(monkeypatch, tmp_path / "cards", f"{NAME},{commit(server)},pytorch_model.bin,,{'0' * 64}")
    for allowed in (False, True):
        with pytest.raises(BackboneError, match="not the published one") as caught:
            hub.check(NAME, commit(server), CLAP_FILES, allow_unknown=allowed)
        assert "--allow-pickle-weights" not in str(caught.value)
    assert not server.cdn.requests


@pytest.mark.parametrize("answer", [{}, [], None, {"id": "x", "siblings": [{"x": 1}]}, {"id": "x", "siblings": "abc"}])
def test_an_answer_that_describes_no_model_is_one_message(server, monkeypatch, answer):
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

    monkeypatch.setattr(HfApi, "model_info", lambda self, *_, **__: ModelInfo(**answer))
    with pytest.raises(BackboneError, match="can't be read|can't be used"):
        hub.check(NAME, commit(server), CLAP_FILES)


def test_a_hub_that_drips_is_given_up(server, monkeypatch):
    from huggingface_hub import HfApi

    monkeypatch.setattr("clepdg.download.check.hub_info.ALL_SECONDS", 0.2)
    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: time.sleep(5))
    with pytest.raises(BackboneError, match="too slow"):
        hub.check(NAME, commit(server), CLAP_FILES)


def test_a_cache_without_room_or_rights_is_known_before_the_download(server, monkeypatch, tmp_path):
    with monkeypatch.context() as full:
        full.setattr(hub.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
        with pytest.raises(BackboneError, match="too full"):
            hub.check(NAME, commit(server), CLAP_FILES, allow_unknown=True)
    (tmp_path / "file").touch()
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BackboneError, match="can't be written"):
        hub.check(NAME, commit(server), CLAP_FILES, allow_unknown=True)


@pytest.mark.parametrize("name", ["~nouser/x", "a" * 300, "a--b/c..d", "", "."])
def test_an_odd_name_is_one_message(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackboneError):
        check_model(name, "0" * 40, CLAP_FILES, False)


ROW = "repository,revision,file,bytes,sha256"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("junk", "line 1: junk"),
        ("", "line 1: empty"),
        (f"{ROW}\na/b,main,,,", "line 2: revision 'main'"),
        (f"{ROW}\na/b,{'0' * 40},x.bin,-1,", "bytes '-1'"),
        (f"{ROW}\na/b,{'0' * 40},x.bin,,XYZ", "sha256 'XYZ'"),
        (f"{ROW}\na/b,{'0' * 40},,,\na/b,{'1' * 40},,,", "line 3"),
        (f"{ROW}\na/b", "line 2: 1 cells, not 5"),
        (f'{ROW}\na/b,"' + "0" * 40, "line 2: a quotation mark is not closed"),
    ],
)
def test_a_malformed_table_of_models_names_its_line(rows, says, tmp_path, monkeypatch):
    (tmp_path / "models.csv").write_text(rows)
    monkeypatch.setenv("CLEPDG_CARDS", str(tmp_path))
    with pytest.raises(ConfigError, match="malformed") as caught:
        pins()
    assert says in str(caught.value)


def test_own_pins_add_to_the_projects(tmp_path, monkeypatch):
    name = "lukewys/laion_clap"
    known = pins()[name]
    own_pins(monkeypatch, tmp_path, f"{name},{known.revision},mine.pt,5,{'A' * 64}")
    assert pins()[name].files == {**known.files, "mine.pt": (5, "a" * 64)}


@pytest.mark.parametrize(
    ("start", "kind"), [(b"version https://git-lfs.github.com/spec/v1", "LFS"), (b"<html>", "page")]
)
def test_what_servers_send_in_place_of_weights_is_named(folder, start, kind):
    (folder / "pytorch_model.bin").write_bytes(start)
    with pytest.raises(BackboneError, match=kind):
        load_clap(folder, allow_unknown=True)


@pytest.mark.parametrize("wrong", [{"hidden_size": "64"}, {"num_attention_heads": 0}])
def test_a_configuration_of_wrong_types_is_one_message(folder, wrong):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= wrong
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="can't be loaded"):
        load_clap(folder, allow_unknown=True)


def test_safetensors_are_preferred(server, source, folder, tmp_path):
    load_clap(folder, allow_unknown=True).save(folder)
    (folder / "pytorch_model.bin").write_bytes(b"no model")
    revision = serve(server, Repository.of_folder("laion/both", folder))
    fetched = hub.fetch("laion/both", revision, CLAP_FILES)
    assert not (fetched / "pytorch_model.bin").exists()
    assert load_clap(fetched).digest() == load_clap(folder).digest()


def split(folder: Path) -> None:
    """Cut a folder's pickle into two parts with an index, as transformers did."""
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    names = sorted(state)
    parts = {f"pytorch_model-0000{n + 1}-of-00002.bin": names[n::2] for n in range(2)}
    for part, inside in parts.items():
        torch.save({name: state[name] for name in inside}, folder / part)
    index = {"weight_map": {name: part for part, inside in parts.items() for name in inside}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "pytorch_model.bin").unlink()


def test_weights_in_parts_load(server, source, folder):
    split(folder)
    revision = serve(server, Repository.of_folder("laion/parts", folder))
    fetched = hub.fetch("laion/parts", revision, CLAP_FILES)
    whole = load_clap(source, allow_unknown=True)
    assert load_clap(fetched, allow_unknown=True).digest() == whole.digest()
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(BackboneError, match="Parts of the weights are missing"):
        load_clap(folder, allow_unknown=True)
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"x": "../outside.bin"}}')
    (folder.parent / "outside.bin").write_bytes(b"")
    with pytest.raises(BackboneError, match="outside"):
        load_clap(folder, allow_unknown=True)
    (folder / "pytorch_model.bin.index.json").write_text("[")
    with pytest.raises(BackboneError, match="index"):
        load_clap(folder, allow_unknown=True)


def test_a_speech_encoder_may_be_a_pickle_too(tmp_path, tone):
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

    torch.manual_seed(0)
    config = WavLMConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                         conv_dim=[16] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2)  # fmt: skip
    WavLMModel(config).eval().save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    expected = load_encoder(tmp_path).digest()
    torch.save(WavLMModel.from_pretrained(tmp_path).state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="--allow-pickle-weights"):
        load_encoder(tmp_path)
    assert load_encoder(tmp_path, allow_unknown=True).digest() == expected


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_a_pickle_that_is_more_than_tensors_is_refused(folder):
    torch.save({"logit_scale_a": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="no tensor"):
        load_clap(folder, allow_unknown=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    clap = build_small_clap()
    clap.model.audio_projection.linear1.weight.data[0, 0] = value
    clap.save(tmp_path)
    with pytest.raises(BackboneError, match=r"audio_projection\.linear1\.weight"):
        load_clap(tmp_path)


def test_what_the_hub_refuses_is_said_before_any_download(server, source, folder):
    revision = commit(server)
    with pytest.raises(BackboneError, match="no such model"):
        hub.check("laion/none", revision, CLAP_FILES)
    with pytest.raises(BackboneError, match="no such revision"):
        hub.check(NAME, "1" * 40, CLAP_FILES)
    for moving in (None, "main"):
        with pytest.raises(BackboneError, match=f"--backbone {NAME}@{revision}"):
            hub.check(NAME, moving, CLAP_FILES)
    (folder / "pytorch_model.bin").unlink()
    bare = serve(server, Repository.of_folder("laion/bare", folder))
    with pytest.raises(BackboneError, match="no weights"):
        hub.check("laion/bare", bare, CLAP_FILES)
    with pytest.raises(BackboneError, match="no other"):
        hub.check("laion/bare", bare, file_named("other"))
    assert not server.cdn.requests


def test_a_gated_model_needs_a_token(server, source, monkeypatch):
    revision = serve(server, Repository.of_folder("laion/gated", source, gated=True))
    with pytest.raises(BackboneError, match="gated"):
        hub.check("laion/gated", revision, CLAP_FILES, allow_unknown=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.check("laion/gated", revision, CLAP_FILES, allow_unknown=True)
    hub.fetch("laion/gated", revision, CLAP_FILES)


def test_a_hub_that_does_not_answer_is_one_message(server, monkeypatch):
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(BackboneError, match="does not answer") as caught:
        hub.check(NAME, "0" * 40, CLAP_FILES)
    assert "HF_ENDPOINT" in str(caught.value)


def test_laions_checkpoints_have_names():
    assert (
        laion_file("laion:630k-audioset-best") == laion_file("laion:630k-audioset-best.pt") == "630k-audioset-best.pt"
    )
    with pytest.raises(BackboneError, match="fusion"):
        laion_file("laion:630k-fusion-best")
    with pytest.raises(BackboneError, match="laion:630k-audioset-best"):
        laion_file("laion:630k")


def test_other_choices_of_files():
    assert tokenizer_files(["a.bin", "vocab.json", "merges.txt"]) == ["vocab.json", "merges.txt"]
    with pytest.raises(BackboneError, match="tokenizer"):
        tokenizer_files(["vocab.json"])
    with pytest.raises(BackboneError, match=r"preprocessor_config\.json"):
        ENCODER_FILES(["config.json", "model.safetensors"])
