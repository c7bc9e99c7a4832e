"""Write a random CLAP in the files of laion/clap-htsat-unfused."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clepdg import prompts
from clepdg.emotions import EMOTIONS

VOCABULARY = 50265  # tokens of RoBERTa, rows of the true model's embedding table
SPECIAL = {
    "bos_token": "<s>",
    "cls_token": "<s>",
    "eos_token": "</s>",
    "mask_token": "<mask>",
    "pad_token": "<pad>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
}
FILES = (
    "config.json",
    "merges.txt",
    "preprocessor_config.json",
    "pytorch_model.bin",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)


def make_clap(folder: Path, tiny: bool) -> Path:
    """Write a random CLAP with its tokenizer, weights only as a .bin.

    Args:
        folder: where the files go; created.
        tiny: a small model of the same family; False: the true architecture, 153 million parameters.

    Returns:
        The folder.
    """
    import torch
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder)
    config = ClapConfig(**(_tiny(vocabulary) if tiny else _true()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ClapModel(config).eval()
    norm = model.audio_model.audio_encoder.batch_norm
    norm.running_mean.fill_(-30.0)  # of log-mels in dB
    norm.running_var.fill_(200.0)
    config.architectures = ["ClapModel"]
    config.save_pretrained(folder)
    extractor = ClapFeatureExtractor(
        truncation="rand_trunc", padding="repeatpad", frequency_min=50, frequency_max=14000, top_db=None
    )
    extractor.save_pretrained(folder)
    torch.save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "pytorch_model.bin")
    return folder


def _true() -> dict[str, Any]:
    audio = {
        "patch_embeds_hidden_size": 96,
        "depths": [2, 2, 6, 2],
        "num_attention_heads": [4, 8, 16, 32],
        "hidden_size": 768,
        "enable_fusion": False,
    }
    text = _text(VOCABULARY) | {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    return {"audio_config": audio, "text_config": text, "projection_dim": 512}


def _tiny(vocabulary: int) -> dict[str, Any]:
    audio = {
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 4, 8],
        "hidden_size": 128,
        "enable_fusion": False,
    }
    text = _text(vocabulary) | {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    return {"audio_config": audio, "text_config": text, "projection_dim": 64}


def _text(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }


def _write_tokenizer(folder: Path) -> int:
    """Train and write a byte-level BPE of RoBERTa's kind; return its size."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        _texts(),
        vocab_size=VOCABULARY - 1,
        min_frequency=1,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        show_progress=False,
    )
    bpe.add_special_tokens(["<mask>"])
    bpe.save_model(str(folder))
    size = int(bpe.get_vocab_size())
    words = json.loads((folder / "vocab.json").read_text()) | {"<mask>": size - 1}
    (folder / "vocab.json").write_text(json.dumps(words, ensure_ascii=False))
    with warnings.catch_warnings(action="ignore"):
        tokenizer = RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=512)
    if len(tokenizer) != size:
        raise RuntimeError(f"the tokenizer has {len(tokenizer)} tokens, its vocabulary {size}")
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"add_prefix_space": False, "errors": "replace", "model_max_length": 512, "trim_offsets": True}
    classes = {"processor_class": "ClapProcessor", "tokenizer_class": "RobertaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | classes | SPECIAL, indent=2, sort_keys=True))
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL, indent=2))
    return size


def _texts() -> Iterator[str]:
    """Yield all words of clepdg.prompts, alone and in their templates."""
    strings = {text for name, value in vars(prompts).items() if name.isupper() for text in _strings(value)}
    words = [word for emotion in EMOTIONS for word in prompts.EMOTION_WORDS[emotion]]
    for text in sorted(strings):
        if "{emotion}" in text:
            yield from (text.format(emotion=word, context="x x x") for word in words)
        else:
            yield text.replace("{context}", "a quiet studio")
            yield text.replace("{context}", "x x x")
            yield f" {text}"
    yield " ".join(prompts.PLACEHOLDER for _ in range(64))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for item in value.items() for part in item for text in _strings(part))
    elif isinstance(value, tuple | list):
        yield from (text for item in value for text in _strings(item))
