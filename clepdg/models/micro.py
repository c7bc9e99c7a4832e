"""The micro backbone: a small CLAP with random weights."""

from typing import Any

import torch

from clepdg import prompts
from clepdg.audio.frontend import MICRO_FRONT_END
from clepdg.models.clap import Clap


def build_micro(seed: int, *, device: str = "cpu") -> Clap:
    """Build the micro backbone with random weights.

    It has 2.8 million parameters and a fixed vocabulary.

    Args:
        seed: of the initial weights.
    """
    from transformers import ClapConfig, ClapModel

    tokenizer = _word_tokenizer(prompts.vocabulary())
    config = ClapConfig(
        audio_config={
            "spec_size": 128,
            "num_mel_bins": MICRO_FRONT_END.mels,
            "patch_embeds_hidden_size": 32,
            "depths": [2, 2, 2, 2],
            "num_attention_heads": [2, 4, 8, 16],
            "hidden_size": 256,
            "window_size": 4,
            "enable_fusion": False,
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 512,
            "max_position_embeddings": 66,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        projection_dim=128,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ClapModel(config).eval()
    return Clap(model.to(device), tokenizer, MICRO_FRONT_END)


def _word_tokenizer(words: list[str]) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="right"
    )
