"""Protects the backbone: batch = single, inputs_embeds = input_ids, save and load, and clear errors."""

import json

import pytest
import torch

from clepdg import prompts
from clepdg.errors import BackboneError
from clepdg.method.context_prompts import ContextPrompts
from clepdg.models.clap import load_clap
from clepdg.models.folder import load_model
from clepdg.models.micro import build_micro
from tests.clap import build_small_clap

TEXTS = ["happy speech", "a person speaking in a angry tone, recorded in a quiet studio", "this voice is calm"]


@pytest.fixture(params=["micro", "htsat"])
def clap(request, micro_factory):
    """A micro backbone, or a CLAP of transformers."""
    return micro_factory() if request.param == "micro" else build_small_clap()


def test_micro_is_a_small_clap(micro):
    assert 0.5e6 < sum(p.numel() for p in micro.model.parameters()) < 1.5e6
    assert micro.encode_text(TEXTS).shape == (3, 128)


def test_text_does_not_depend_on_its_batch(micro):
    with torch.no_grad():
        together = micro.encode_text(TEXTS)
        alone = torch.cat([micro.encode_text([text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_audio_does_not_depend_on_its_batch(micro, tone):
    waveforms = [(tone(s, 16000, seed=n), 16000) for n, s in enumerate((1.0, 9.0, 3.0))]
    together = micro.encode_waveforms(waveforms)
    alone = torch.cat([micro.encode_waveforms([w]) for w in waveforms])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_memory_does_not_grow_with_the_number_of_waveforms(micro, tone, monkeypatch):
    taken, encoded = [], []

    def waveforms():
        for n in range(100):
            assert n - sum(encoded) <= 32  # no more than one batch waits
            taken.append(n)
            yield tone(1.0, 16000, seed=n), 16000

    monkeypatch.setattr(micro, "encode_log_mel", lambda mels: encoded.append(len(mels)) or torch.ones(len(mels), 4))
    assert micro.encode_waveforms(waveforms()).shape == (100, 4)
    assert encoded == [32, 32, 32, 4] and len(taken) == 100


def test_long_audio_is_the_mean_over_windows(micro, tone):
    from clepdg.audio.frontend import windows

    waveform = tone(9.0, 16000)
    parts = micro.encode_waveforms([(w, 16000) for w in windows(waveform, 16000, micro.front_end)])
    whole = micro.encode_waveforms([(waveform, 16000)])
    torch.testing.assert_close(torch.nn.functional.normalize(parts.mean(0, keepdim=True)), whole)


def test_context_vectors_of_real_words_equal_those_words(micro):
    """inputs_embeds = input_ids: put the embeddings of "a quiet studio" where the placeholders stand."""
    joint = "a person speaking in a {} tone, recorded in {{context}}"
    templates = [joint.format(emotion) for emotion in ("angry", "sad")]
    words = micro.tokenizer.convert_tokens_to_ids(["a", "quiet", "studio"])
    with torch.no_grad():
        vectors = micro.word_embeddings(torch.tensor(words))[None]  # (1, 3, H)
        by_vectors = ContextPrompts(micro, templates, 3).encode(vectors)[0]
        by_words = micro.encode_text([t.format(context="a quiet studio") for t in templates])
    torch.testing.assert_close(by_vectors, by_words, atol=1e-5, rtol=0)


def test_save_and_load_keep_the_model(clap, tmp_path, tone):
    clap.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert type(loaded) is type(clap)
    assert loaded.digest() == clap.digest()
    assert loaded.front_end == clap.front_end
    waveform = [(tone(2.0, 16000), 16000)]
    torch.testing.assert_close(loaded.encode_waveforms(waveform), clap.encode_waveforms(waveform), atol=0, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_text(TEXTS), clap.encode_text(TEXTS), atol=0, rtol=0)
    assert not list((tmp_path / "model").glob("*.bin"))


def test_a_clap_has_one_logit_scale_on_disk(tmp_path):
    clap = build_small_clap()
    with torch.no_grad():
        clap.logit_scale.fill_(1.0)
    clap.save(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.model.logit_scale_t == loaded.model.logit_scale_a == 1.0


def test_a_tokenizer_does_not_say_how_it_was_loaded(clap, tmp_path):
    """Whether the hub could be reached is no part of a model: its files would differ."""
    clap.save(tmp_path / "model")
    load_model(tmp_path / "model").save(tmp_path / "again")
    first, again = ((tmp_path / name / "tokenizer_config.json").read_text() for name in ("model", "again"))
    assert first == again and "local" not in again


def test_same_seed_same_model_and_another_seed_another():
    assert build_micro(3).digest() == build_micro(3).digest() != build_micro(4).digest()


def test_every_prompt_of_the_project_is_in_micro_words(micro):
    from clepdg.emotions import EMOTIONS

    texts = [text for emotion in EMOTIONS for text in prompts.captions(emotion, prompts.CAPTION_TEMPLATES)]
    texts += [
        prompts.fill(prompts.JOINT_TEMPLATE, prompts.class_word(e)).format(context=c)
        for e in EMOTIONS
        for c in prompts.HANDWRITTEN_CONTEXTS
    ]
    assert micro.tokenize(texts)["input_ids"].min() >= 0


def test_articles_fit_their_emotions():
    assert prompts.fill(prompts.CONTENT_TEMPLATE, "angry") == "a person speaking in an angry tone"
    assert prompts.fill(prompts.CONTENT_TEMPLATE, "sad") == "a person speaking in a sad tone"
    assert prompts.fill("A {emotion} voice in {context}", "excited") == "An excited voice in {context}"
    assert prompts.fill("{emotion} speech, not extra {emotion}", "angry") == "angry speech, not extra angry"


def test_unknown_words_are_named(micro):
    with pytest.raises(BackboneError, match="zebra"):
        micro.encode_text(["a zebra speaking"])


def test_what_is_no_folder_is_named():
    with pytest.raises(BackboneError, match="no such folder"):
        load_clap("laion/clap-htsat-unfused")


def test_folder_without_all_weights_is_refused(clap, tmp_path):
    from safetensors.torch import load_file, save_file

    clap.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["audio_projection.linear1.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"audio_projection\.linear1\.weight"):
        load_model(tmp_path)


def test_tokenizer_of_another_model_is_refused(clap, tmp_path):
    clap.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer.json").read_text())
    config["model"]["vocab"] |= {f"word{n}": len(config["model"]["vocab"]) + n for n in range(5)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="do not fit"):
        load_model(tmp_path)


@pytest.fixture(scope="module")
def laion_folder(tmp_path_factory):
    """A folder as transformers saves a CLAP: LAION's shapes, made small, with a byte-level BPE like RoBERTa's."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import ClapConfig, ClapModel, RobertaTokenizerFast

    from clepdg.emotions import EMOTIONS

    folder = tmp_path_factory.mktemp("a laion folder")
    bpe = ByteLevelBPETokenizer()
    texts = [
        prompts.JOINT_TEMPLATE.format(emotion=e, context=c) for e in EMOTIONS for c in prompts.HANDWRITTEN_CONTEXTS
    ]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(
        [*texts, "speech x recorded x x x"], vocab_size=600, min_frequency=1, special_tokens=special
    )
    bpe.save_model(str(folder))
    tokenizer = RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    torch.manual_seed(0)
    config = ClapConfig(
        audio_config={"patch_embeds_hidden_size": 16, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 8],
                      "hidden_size": 128, "enable_fusion": False},
        text_config={"vocab_size": len(tokenizer), "hidden_size": 64, "num_hidden_layers": 2,
                     "num_attention_heads": 4, "intermediate_size": 128},
        projection_dim=64,
    )  # fmt: skip
    ClapModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_transformers_folder_gives_transformers_own_embeddings(laion_folder, tone):
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    peer = ClapModel.from_pretrained(laion_folder).eval()
    clap = load_clap(laion_folder)
    waveform = tone(3.0, 48000)
    extractor = ClapFeatureExtractor(
        truncation="rand_trunc", padding="repeatpad", frequency_min=50, frequency_max=14000
    )
    features = extractor(waveform, sampling_rate=48000, return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(laion_folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        audio = peer.get_audio_features(**features).pooler_output
        text = peer.get_text_features(**tokens).pooler_output
        torch.testing.assert_close(clap.encode_waveforms([(waveform, 48000)]), audio, atol=1e-4, rtol=0)
        torch.testing.assert_close(clap.encode_text(TEXTS), text, atol=1e-5, rtol=0)


def test_placeholders_are_one_token_each_in_a_byte_level_vocabulary(laion_folder):
    clap = load_clap(laion_folder)
    templates = [prompts.CONTEXT_TEMPLATE, prompts.JOINT_TEMPLATE.replace("{emotion}", "angry")]
    vectors = clap.word_embeddings(torch.tensor([[9, 10, 11, 12]])).detach()
    with torch.no_grad():
        encoded = ContextPrompts(clap, templates, 4).encode(vectors)
    assert encoded.shape == (1, 2, 64)
