"""Tiny random encoders, as transformers saves them."""

from pathlib import Path

import torch


def save_encoders(folder: Path) -> tuple[Path, Path]:
    """Save a speech encoder and a text encoder that knows the prompts' words; return their folders."""
    import transformers

    from clepdg import prompts

    torch.manual_seed(0)
    audio, text = folder / "speech", folder / "text"
    transformers.WavLMModel(transformers.WavLMConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=[16, 16],
        conv_stride=[20, 16], conv_kernel=[40, 16], num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )).save_pretrained(audio)  # fmt: skip
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(audio)
    text.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *prompts.vocabulary()]
    (text / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(text / "vocab.txt")).save_pretrained(text)
    transformers.BertModel(transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    )).save_pretrained(text)  # fmt: skip
    return audio, text


def save_whisper(folder: Path) -> Path:
    """Save a tiny Whisper, whose front end pads to 30 s; return its folder."""
    import transformers

    torch.manual_seed(0)
    transformers.WhisperModel(transformers.WhisperConfig(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, vocab_size=99,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, suppress_tokens=[],
    )).save_pretrained(folder)  # fmt: skip
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    return folder
