"""Protects the import of LAION's checkpoints: laion_clap's own embeddings, and that no other object is ever made."""

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from clepdg import prompts
from clepdg.audio.frontend import LAION_FRONT_END, windows
from clepdg.errors import BackboneError
from clepdg.models.clap import load_clap
from clepdg.models.laion import convert_names, import_checkpoint, read_checkpoint
from clepdg_flows.cli.main import main

TEXTS = ["happy speech", "a person speaking in a angry tone, recorded in a quiet studio", "this voice is calm"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    """Return a folder with a small byte-level BPE of RoBERTa's kind, with its special tokens where RoBERTa's are."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    folder = tmp_path_factory.mktemp("a tokenizer")
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    texts = [*prompts.CAPTION_TEMPLATES, *TEXTS, *prompts.HANDWRITTEN_CONTEXTS, prompts.JOINT_TEMPLATE]
    bpe.train_from_iterator(texts, vocab_size=500, min_frequency=1, special_tokens=special, show_progress=False)
    bpe.save_model(str(folder))
    RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    return folder


class Peer:
    """laion_clap, which asks the hub for three tokenizers when imported and for RoBERTa's weights when built."""

    def __init__(self, tokenizer: Path) -> None:
        import transformers

        self.words = transformers.RobertaTokenizerFast.from_pretrained(str(tokenizer))
        self.roberta = transformers.RobertaConfig(  # roberta-base, but for the vocabulary
            vocab_size=len(self.words), max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5,
            bos_token_id=0, pad_token_id=1, eos_token_id=2,
        )  # fmt: skip
        with self.answered():
            self.package = pytest.importorskip("laion_clap", reason="laion_clap is not installed (extra laion)")

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Answer laion_clap's questions to the hub here, and nobody else's."""
        import transformers

        with pytest.MonkeyPatch.context() as patch:
            for name in ("BertTokenizer", "RobertaTokenizer", "BartTokenizer"):
                answer = classmethod(lambda cls, *_, **__: self.words)
                patch.setattr(getattr(transformers, name), "from_pretrained", answer)
            build = classmethod(lambda cls, *_, **__: cls(self.roberta))
            patch.setattr(transformers.RobertaModel, "from_pretrained", build)
            yield

    def model(self, name: str, layers: int = 12, seed: int = 0):
        """Return a model with random weights; biases, norms and batch statistics are not left at 0 and 1."""
        torch.manual_seed(seed)
        self.roberta.num_hidden_layers = layers
        with self.answered():
            module = self.package.CLAP_Module(amodel=name, device="cpu").eval()
        with torch.no_grad():
            for tensor in module.model.parameters():
                if tensor.requires_grad:
                    tensor += 0.02 * torch.randn_like(tensor)
            module.model.audio_branch.bn0.running_mean.uniform_(-40, -20)
            module.model.audio_branch.bn0.running_var.uniform_(100, 300)
            module.model.logit_scale_a.fill_(2.5)
            module.model.logit_scale_t.fill_(3.0)
        return module

    def save(self, module, path: Path) -> None:
        """Write a checkpoint as LAION's trainer does: distributed names, an epoch, and numpy numbers beside them."""
        state = {f"module.{name}": tensor for name, tensor in module.model.state_dict().items()}
        state["module.text_branch.embeddings.position_ids"] = torch.arange(514)[None]  # transformers had it then
        torch.save(
            {"epoch": 3, "name": "x", "best": np.float64(0.5), "steps": [np.int64(7)], "state_dict": state}, path
        )


@pytest.fixture(scope="module")
def peer(tokenizer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.path", list(sys.path))  # the package adds its own folder
        yield Peer(tokenizer)


@pytest.fixture(scope="module")
def checkpoint(peer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("laion") / "tiny.pt"
    peer.save(peer.model("HTSAT-tiny", 2), path)
    return path


def heard(waveform: np.ndarray) -> np.ndarray:
    """Quantise as laion_clap does before it listens."""
    from laion_clap.hook import float32_to_int16, int16_to_float32

    return int16_to_float32(float32_to_int16(waveform))


@pytest.mark.parametrize(("name", "layers"), [("HTSAT-tiny", 12), ("HTSAT-base", 2)])
def test_embeddings_are_laion_claps_own(peer, tokenizer, tmp_path, tone, name, layers):
    module = peer.model(name, layers)
    peer.save(module, tmp_path / "a.pt")
    ours = import_checkpoint(tmp_path / "a.pt", tmp_path / "folder", tokenizer)
    (tmp_path / "a.pt").unlink()
    short, exact, long = (tone(s, 48000, pitch=p, seed=p) for s, p in ((3.3, 140), (10.0, 210), (14.0, 95)))
    cut = torch.from_numpy(windows(heard(long), 48000, LAION_FRONT_END))  # longer audio would be cropped at random
    text = torch.from_numpy(module.get_text_embedding(TEXTS))
    with torch.no_grad():
        parts = module.get_audio_embedding_from_data(cut, use_tensor=True).mean(dim=0, keepdim=True)
        one_by_one = [torch.from_numpy(module.get_audio_embedding_from_data([w])) for w in (short, exact)]
    audio = torch.cat([*one_by_one, torch.nn.functional.normalize(parts)])
    assert (audio[0] - audio[1]).abs().max() > 1e-3  # a random model that tells one from another
    assert (text[0] - text[1]).abs().max() > 1e-3

    ours.save(tmp_path / "saved")
    saved = load_clap(tmp_path / "saved")
    for clap in (ours, saved):
        found = clap.encode_waveforms([(heard(waveform), 48000) for waveform in (short, exact, long)])
        torch.testing.assert_close(found, audio, atol=1e-4, rtol=0)
        with torch.no_grad():
            torch.testing.assert_close(clap.encode_text(TEXTS), text, atol=1e-4, rtol=0)
    assert saved.digest() == ours.digest()


def test_the_folder_is_transformers_own_and_keeps_both_logit_scales(peer, checkpoint, tokenizer, tmp_path):
    from transformers import ClapModel

    again = peer.model("HTSAT-tiny", 2, seed=1)
    again.load_ckpt(str(checkpoint), verbose=False)  # LAION's own loader takes the checkpoint too
    import_checkpoint(checkpoint, tmp_path / "a" / "folder", tokenizer)
    model, info = ClapModel.from_pretrained(tmp_path / "a" / "folder", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert (model.logit_scale_a.item(), model.logit_scale_t.item()) == pytest.approx((2.5, 3.0))
    state = model.state_dict()
    expected = convert_names(again.model.state_dict())
    indices = {name for name in state if name.endswith(".relative_position_index")}
    constants = {f"text_model.embeddings.{n}_ids" for n in ("position", "token_type")}
    assert set(state) - set(expected) == constants | indices and len(indices) == 12
    blocks = [block for layer in again.model.audio_branch.layers for block in layer.blocks]
    layers = [block for layer in model.audio_model.audio_encoder.layers for block in layer.blocks]
    for theirs, own in zip(blocks, layers, strict=True):
        assert torch.equal(theirs.attn.relative_position_index, own.attention.self.relative_position_index)
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["folder"]


def test_the_command_says_what_to_run_next(checkpoint, tokenizer, tmp_path, capsys):
    out = tmp_path / "a folder"
    main(["import-laion", str(checkpoint), str(out), "--tokenizer", str(tokenizer)])
    assert f"clep-dg run --backbone '{out}'" in capsys.readouterr().out
    assert load_clap(out).front_end == LAION_FRONT_END
    assert "exists already" in complaint(capsys, checkpoint, out, tokenizer)


def test_a_name_fetches_the_checkpoint_and_imports_it(peer, checkpoint, tokenizer, tmp_path, monkeypatch):
    """A backbone "laion:NAME" is the import of the pinned file, and the tokenizer is that of the pinned commit."""
    import huggingface_hub.constants as constants

    from clepdg.callbacks import Reporting
    from clepdg.config.model_pins import LAION_REPOSITORY, ROBERTA
    from clepdg.config.presets import build
    from clepdg.models.files import sha256
    from clepdg.store.documents import Documents
    from clepdg_tasks.engine.node import Work
    from clepdg_tasks.host.model_checks import check_backbone
    from clepdg_tasks.stages.models import compute_backbone
    from tests.rehearsal.hub import Hub, Repository

    weights = Repository(LAION_REPOSITORY, {"630k-audioset-best.pt": checkpoint})
    words = Repository.of_folder(ROBERTA, tokenizer)
    rows = [
        f"{LAION_REPOSITORY},{weights.revisions['main']},630k-audioset-best.pt,,{sha256(checkpoint)}",
        f"{ROBERTA},{words.revisions['main']},,,",
    ]
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "models.csv").write_text("\n".join(["repository,revision,file,bytes,sha256", *rows]))
    monkeypatch.setenv("CLEPDG_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Hub([weights, words]) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        config = build("open", backbone="laion:630k-audioset-best")
        check_backbone(config)
        assert not hub.cdn.requests  # nothing was downloaded
        work = Work(
            config={"name": config.backbone.name, "revision": config.backbone.revision, "seed": 0},
            folder=tmp_path / "output", inputs={}, records={}, previous=None, pins=Documents(tmp_path), device="cpu",
            workers=1, reporting=Reporting(),
        )  # fmt: skip
        computed = compute_backbone(work)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check_backbone(config)  # the cache is enough
    assert not list((tmp_path / "output").glob("*.pt"))
    by_hand = import_checkpoint(checkpoint, tmp_path / "by hand", tokenizer)
    by_hand.save(tmp_path / "saved")
    assert computed.digests["content"] == load_clap(tmp_path / "saved").digest()
    with pytest.raises(BackboneError, match="fusion"):
        check_backbone(build("open", backbone="laion:630k-fusion-best"))


def complaint(capsys, checkpoint: Path, out: Path, tokenizer: Path | None) -> str:
    """Return the command's one message; it leaves nothing behind."""

    def beside() -> list[Path]:
        return sorted(out.parent.rglob("*")) if out.parent.is_dir() else []

    before = beside()
    with pytest.raises(SystemExit) as caught:
        main(["import-laion", str(checkpoint), str(out), *(["--tokenizer", str(tokenizer)] if tokenizer else [])])
    assert caught.value.code == 2
    assert beside() == before
    text = capsys.readouterr().err
    assert "Traceback" not in text and "weights_only" not in text
    return text


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_checkpoint_is_read_before_a_tokenizer_is_asked_for(tmp_path, capsys):
    assert "There is no such checkpoint" in complaint(capsys, tmp_path / "none.pt", tmp_path / "out", None)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "instead of a tensor"])
def test_a_malicious_checkpoint_is_refused_and_runs_nothing(tokenizer, tmp_path, capsys, zipped, place):
    mark = tmp_path / "it ran"
    evil, state = Evil(f"touch '{mark}'"), {"module.logit_scale_a": torch.ones(())}
    found = {"state_dict": {**state, "x": evil}} if place != "beside" else {"epoch": evil, "state_dict": state}
    torch.save(found, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
    text = complaint(capsys, tmp_path / "evil.pt", tmp_path / "out", tokenizer)
    assert "posix.system" in text or "os.system" in text
    assert not mark.exists()


@pytest.mark.parametrize("harmless", [len, np.ones, Path])
def test_no_object_but_tensors_and_plain_containers_is_made(tmp_path, harmless):
    torch.save({"state_dict": {"x": torch.ones(1)}, "y": harmless}, tmp_path / "a.pt")
    with pytest.raises(BackboneError, match="which is no tensor"):
        read_checkpoint(tmp_path / "a.pt")


def test_numbers_of_numpy_beside_the_weights_do_no_harm(tmp_path):
    numbers = [np.float64(0.5), np.float32(1), np.int64(2), np.bool_(True)]
    torch.save({"state_dict": {"module.x": torch.ones(1)}, "best": numbers}, tmp_path / "a.pt")
    assert read_checkpoint(tmp_path / "a.pt")["x"] == 1


def packed(path: Path, pickled: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Write a file as torch.save does, of a pickle alone."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)


def test_a_compressed_file_is_refused_unread(tmp_path, tokenizer, capsys):
    packed(tmp_path / "a.pt", b"\x80\x02" + b"]" * 50_000_000 + b".", zipfile.ZIP_DEFLATED)
    assert (tmp_path / "a.pt").stat().st_size < 100_000
    assert "compressed" in complaint(capsys, tmp_path / "a.pt", tmp_path / "out", tokenizer)
    packed(tmp_path / "b.pt", b"\x80\x02" + b"]" * 5_000_000 + b".")
    assert "names and shapes" in complaint(capsys, tmp_path / "b.pt", tmp_path / "out", tokenizer)


def test_a_damaged_directory_is_one_message(tmp_path, tokenizer, capsys):
    torch.save({"state_dict": {"x": torch.ones(100)}}, tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[data.rfind(b"PK\x01\x02")] = 0
    (tmp_path / "a.pt").write_bytes(data)
    assert "can't be read as weights" in complaint(capsys, tmp_path / "a.pt", tmp_path / "out", tokenizer)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (lambda: torch.eye(3).to_sparse(), "not dense"),
        (lambda: torch.ones(3, device="meta"), "not dense"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "not dense"),
        (lambda: torch.ones(3, dtype=torch.complex64), "not dense"),
        (lambda: torch.ones(1).expand(10**9, 768), "bytes of tensors in a file of"),
    ],
    ids=["sparse", "meta", "quantised", "complex", "expanded"],
)
def test_a_tensor_that_is_not_dense_is_refused(tmp_path, tokenizer, capsys, odd, words):
    torch.save({"state_dict": {"logit_scale_a": odd()}}, tmp_path / "a.pt")
    assert words in complaint(capsys, tmp_path / "a.pt", tmp_path / "out", tokenizer)


def test_what_is_no_checkpoint_is_named(tokenizer, tmp_path, capsys):
    (tmp_path / "text.pt").write_text("<html>Not found</html>")
    (tmp_path / "nothing.pt").write_bytes(b"")
    torch.save({"state_dict": {"x": torch.ones(99999)}}, tmp_path / "short.pt")
    (tmp_path / "short.pt").write_bytes((tmp_path / "short.pt").read_bytes()[:200000])
    for name in ("text", "nothing", "short"):
        text = complaint(capsys, tmp_path / f"{name}.pt", tmp_path / "out", tokenizer)
        assert "can't be read" in text and f"{name}.pt" in text
    assert "no such checkpoint" in complaint(capsys, tmp_path / "none.pt", tmp_path / "out", tokenizer)
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    assert "no state_dict" in complaint(capsys, tmp_path / "list.pt", tmp_path / "out", tokenizer)


WORDS, QKV = "text_branch.embeddings", "audio_branch.layers.0.blocks.0.attn.qkv.weight"
HUGE = torch.ones(1).expand(10**7, 768)  # 30 GB, were it made
PATCHES, TYPES = "audio_branch.patch_embed.proj.weight", "text_branch.embeddings.token_type_embeddings.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.update({"audio_branch.patch_embed.fusion_model.x": torch.ones(1)}), "fusion"),
        (lambda s: s.pop(PATCHES), "no HTSAT audio encoder"),
        (lambda s: s.update({PATCHES: torch.ones(256, 1, 4, 4)}), "HTSAT of width 256"),
        (lambda s: s.update({TYPES: torch.ones(2, 768)}), "not RoBERTa"),
        (lambda s: s.update({"audio_branch.logmel_extractor.melW": torch.ones(513, 64)}), "mel filters"),
        (lambda s: s.pop("text_projection.0.weight"), "text_projection.linear1.weight"),
        (lambda s: s.update({"text_projection.0.weight": torch.ones(3, 3)}), "size mismatch"),
        (lambda s: s.update({"audio_branch.more": torch.ones(1)}), "audio_encoder.more"),
        (lambda s: s.update({"logit_scale_a": torch.tensor(float("nan"))}), "not finite"),
        (lambda s: s.update({QKV: torch.ones(2, 96)}), "size mismatch"),
        (lambda s: s.update({QKV: torch.ones(())}), "size mismatch"),
        (lambda s: s.update({PATCHES: torch.ones(())}), "HTSAT of width 0"),
        (lambda s: s.update({n: s[n][:, :0] for n in [f"{WORDS}.word_embeddings.weight"]}), "size mismatch"),
        (lambda s: s.update({f"{WORDS}.word_embeddings.weight": torch.ones(1).expand(10**9, 768)}), "1000000000 words"),
        (lambda s: s.update({f"{WORDS}.position_embeddings.weight": HUGE}), "size mismatch"),
        (lambda s: s.update({"audio_projection.0.weight": HUGE}), "size mismatch"),
        (lambda s: s.update({f"text_branch.encoder.layer.{n}.x": torch.ones(1) for n in range(9999)}), "9999 layers"),
    ],
    ids=[
        "fusion", "pann", "large", "bert", "front end", "missing", "shape", "more", "nan", "qkv of 2 rows",
        "qkv a number", "patches a number", "words of no width", "many words", "many positions", "wide", "deep",
    ],
)  # fmt: skip
def test_another_architecture_is_refused(checkpoint, tokenizer, tmp_path, monkeypatch, change, words):
    state = read_checkpoint(checkpoint)
    change(state)
    monkeypatch.setattr("clepdg.models.laion.read_checkpoint", lambda path: state)
    with pytest.raises(BackboneError) as error:
        import_checkpoint(checkpoint, tmp_path / "out", tokenizer)
    assert words in str(error.value) and str(checkpoint) in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_is_needed_and_must_fit(checkpoint, tmp_path, capsys):
    text = complaint(capsys, checkpoint, tmp_path / "out", None)  # no network here
    assert "--tokenizer FOLDER" in text
    assert "--tokenizer FOLDER" in complaint(capsys, checkpoint, tmp_path / "out", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "--tokenizer FOLDER" in complaint(capsys, checkpoint, tmp_path / "out", tmp_path / "empty")
    other = tmp_path / "other"
    other.mkdir()
    tiny = {token: n for n, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a"])}
    (other / "vocab.json").write_text(json.dumps(tiny))
    (other / "merges.txt").write_text("#version: 0.2\n")
    assert "do not fit together" in complaint(capsys, checkpoint, tmp_path / "out", other)


def test_a_folder_that_can_not_be_written_is_named(checkpoint, tokenizer, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert "can't be written" in complaint(capsys, checkpoint, tmp_path / "file" / "out", tokenizer)
