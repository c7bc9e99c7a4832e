"""A CLAP as transformers builds it, made small: HTSAT's shape with random weights and a word-level tokenizer."""

from typing import Any


def build_small_clap(seed: int = 0) -> Any:
    """Build a CLAP of 2.8 million parameters with micro's tokenizer and front end."""
    import torch
    from transformers import ClapConfig, ClapModel

    from clepdg.audio.frontend import MICRO_FRONT_END
    from clepdg.models.clap import Clap
    from clepdg.models.micro import build_micro

    tokenizer = build_micro(0).tokenizer
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
        return Clap(ClapModel(config).eval(), tokenizer, MICRO_FRONT_END)
