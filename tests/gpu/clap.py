"""A CLAP of true size (HTSAT-tiny, RoBERTa-base) with random weights, and generated speech-like audio."""

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clepdg import prompts
from clepdg.audio.frontend import LAION_FRONT_END
from clepdg.models.clap import Clap
from tests.gpu.table import Table

EMOTIONS = ("angry", "happy", "neutral", "sad")
TRUE_SIZE = {"patch_embeds_hidden_size": 96, "hidden_size": 768, "depths": [2, 2, 6, 2]}
SMALL = {"patch_embeds_hidden_size": 16, "hidden_size": 128, "depths": [1, 1, 1, 1]}  # for a dry run


def build_clap(folder: Path, *, small: bool) -> Clap:
    """Build the model on the CPU, and a byte-level BPE that is trained on the prompts."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import ClapConfig, ClapModel, RobertaTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    bpe = ByteLevelBPETokenizer()
    texts = [*prompts.vocabulary(), *prompts.CAPTION_TEMPLATES, *prompts.HANDWRITTEN_CONTEXTS, prompts.JOINT_TEMPLATE]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(texts, vocab_size=800, min_frequency=1, special_tokens=special, show_progress=False)
    bpe.save_model(str(folder))
    tokenizer = RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    audio = {**(SMALL if small else TRUE_SIZE), "enable_fusion": False}
    audio |= {"num_attention_heads": [1, 2, 4, 8] if small else [4, 8, 16, 32]}
    text: dict[str, Any] = {"vocab_size": 50265, "num_hidden_layers": 12, "layer_norm_eps": 1e-5}
    if small:
        text |= {"vocab_size": 1000, "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
        text |= {"intermediate_size": 128}
    torch.manual_seed(0)
    model = ClapModel(ClapConfig(audio_config=audio, text_config=text)).eval()
    norm = model.audio_model.audio_encoder.batch_norm  # as if it had seen log-mels in dB
    norm.running_mean.fill_(-30.0)
    norm.running_var.fill_(200.0)
    return Clap(model, tokenizer, LAION_FRONT_END)


def write_corpus(folder: Path, count: int, rate: int) -> Any:
    """Write utterances of 2 to 5 s as 16-bit WAV files of a rate in Hz into one shard; return their table."""
    rng, offset, rows = np.random.default_rng(0), 0, []
    with (folder / "train-000000.tar").open("wb") as shard:
        for n in range(count):
            t = np.arange(int(rate * rng.uniform(2, 5))) / rate
            pitch = (90 + 60 * (n % 4)) * (1 + 0.05 * np.sin(2 * np.pi * rng.uniform(1, 4) * t))
            phase = 2 * np.pi * np.cumsum(pitch) / rate
            voice = sum(np.sin(k * phase) / k for k in range(1, 12)) * (1.1 + np.sin(6 * np.pi * t))
            pcm = np.clip(2000 * voice + rng.normal(0, 160, len(t)), -32768, 32767).astype("<i2")
            file = io.BytesIO()
            with wave.open(file, "wb") as out:
                out.setparams((1, 2, rate, len(pcm), "NONE", ""))
                out.writeframes(pcm.tobytes())
            data = file.getvalue()
            shard.write(data)
            split = "validation" if n % 8 == 7 else "train"
            rows.append((f"c/{n:06d}", f"c{n % 2}", EMOTIONS[n % 4], split, offset, len(data), len(pcm)))
            offset += len(data)
    names = ("utterance_id", "corpus", "emotion", "split", "offset", "bytes", "num_samples")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    fixed = {"folder": str(folder), "tar": "train-000000.tar", "sample_rate": rate}
    return Table({**columns, **{name: [value] * count for name, value in fixed.items()}})
