"""Convert LAION's CLAP checkpoints (.pt) to model folders.

Supported are unfused HTSAT-tiny and HTSAT-base with a RoBERTa text tower (Wu et al., ICASSP 2023, arXiv 2211.06687).
Tests compare the embeddings with those of laion_clap. A .pt file is a pickle, which clepdg.models.pickles reads.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from clepdg.audio.frontend import LAION_FRONT_END, mel_filters
from clepdg.errors import BackboneError
from clepdg.models.clap import FRONT_END, Clap, load_clap
from clepdg.models.files import TOKENIZER
from clepdg.models.pickles import read_tensors

EXPECTED: Final = "an unfused HTSAT-tiny or HTSAT-base with a RoBERTa text tower, as laion_clap saves it"
HTSAT: Final = {96: ("HTSAT-tiny", [2, 2, 6, 2]), 128: ("HTSAT-base", [2, 2, 12, 2])}  # width -> name, depths
MAX_TEXT: Final = {"words": 50265, "layers": 12}  # RoBERTa-base; the other sizes are ClapTextConfig's defaults

_WORDS: Final = "text_branch.embeddings.word_embeddings.weight"
_PATCHES: Final = "audio_branch.patch_embed.proj.weight"
_FILTERS: Final = "audio_branch.logmel_extractor.melW"
# Tensors that the embeddings do not depend on, and constants that ClapModel computes itself.
_UNUSED: Final = re.compile(
    r"audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\.|(audio|text)_transform\."
    r"|text_branch\.embeddings\.(position_ids|token_type_ids)$|audio_branch\..*\.(attn_mask|relative_position_index)$"
)
_COMPUTED: Final = re.compile(r"text_model\.embeddings\.(position|token_type)_ids|.*\.relative_position_index")
_RENAMED: Final = (
    (r"^text_branch\.", "text_model."),
    (r"^audio_branch\.bn0\.", "audio_model.audio_encoder.batch_norm."),
    (r"^audio_branch\.", "audio_model.audio_encoder."),
    (r"_projection\.0\.", "_projection.linear1."),
    (r"_projection\.2\.", "_projection.linear2."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
)


def load_checkpoint(checkpoint: Path, tokenizer: Path) -> Clap:
    """Load a LAION checkpoint as a CLAP.

    Args:
        tokenizer: a folder with roberta-base's tokenizer, which checkpoints do not hold.

    Raises:
        BackboneError: the file is not such a checkpoint, or the tokenizer can't be loaded or does not fit.
    """
    state = read_checkpoint(checkpoint)
    config = _config(state, checkpoint)
    words = _load_tokenizer(tokenizer)
    _check_tokenizer(words, config, tokenizer)
    return Clap(_build(config, state, checkpoint), words, LAION_FRONT_END)


def import_checkpoint(checkpoint: Path, out: Path, tokenizer: Path) -> Clap:
    """Convert a LAION checkpoint to a model folder; load it.

    Raises:
        BackboneError: `out` exists or can't be written, or `load_checkpoint` fails. No files are left behind.
    """
    if out.exists():
        raise BackboneError("The folder to write exists already.", got=out, do="name another one, or remove it")
    loaded = load_checkpoint(checkpoint, tokenizer)
    from safetensors import SafetensorError

    aside = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        loaded.model.save_pretrained(aside)  # keeps both of LAION's logit scales, unlike Clap.save
        loaded.tokenizer.save_pretrained(aside)
        (aside / FRONT_END).write_text(json.dumps(asdict(LAION_FRONT_END), indent=1, sort_keys=True))
        clap = load_clap(aside)
        aside.rename(out)
    except (OSError, SafetensorError) as error:
        raise BackboneError("The model folder can't be written.", got=error, where=out) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return clap


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors by LAION's names.

    The prefix `module.` of distributed training is removed.

    Raises:
        BackboneError: there is no such file, or `read_tensors` fails.
    """
    if not os.path.isfile(path):
        raise BackboneError("There is no such checkpoint.", got=path, expected="a .pt file of LAION's")
    return {name.removeprefix("module."): tensor for name, tensor in read_tensors(path).items()}


def convert_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert LAION's tensors to ClapModel's names, in float32.

    Query, key and value are split; unused tensors are left out.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if _UNUSED.match(name):
            continue
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        if ".qkv." in name:
            pieces = tensor.reshape(tensor.shape or (1,)).tensor_split(3)  # wrong shapes fail when the model is loaded
            for part, piece in zip(("query", "key", "value"), pieces, strict=True):
                converted[name.replace(".qkv.", f".{part}.")] = piece.clone()
        else:
            converted[name] = tensor
    return converted


def _load_tokenizer(folder: Path) -> Any:
    from transformers import RobertaTokenizerFast

    try:
        if not any(all((folder / name).is_file() for name in names) for names in TOKENIZER):
            raise FileNotFoundError(
                "the folder does not hold a tokenizer's files"
            )  # transformers would create an empty one
        return RobertaTokenizerFast.from_pretrained(str(folder))
    except Exception as error:  # other files fail in many ways
        raise BackboneError(
            "The tokenizer can't be loaded; LAION's checkpoints hold none.",
            got=" ".join(str(error).split())[:300],
            expected="roberta-base's tokenizer",
            where=folder,
            do="give --tokenizer FOLDER, with roberta-base's tokenizer.json, or its vocab.json and merges.txt",
        ) from error


def _check_tokenizer(tokenizer: Any, config: Any, folder: Path) -> None:
    text = config.text_config
    found = (len(tokenizer), tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    expected = (text.vocab_size, text.bos_token_id, text.pad_token_id, text.eos_token_id)
    if found != expected:
        raise BackboneError(
            "Tokenizer and checkpoint do not fit together (tokens; ids of <s>, <pad>, </s>).",
            got=found,
            expected=expected,
            where=folder,
        )


def _config(state: Mapping[str, Tensor], path: Path) -> Any:
    """Infer a checkpoint's ClapConfig from its names and shapes."""
    from transformers import ClapConfig

    def refuse(what: str) -> BackboneError:
        return BackboneError(
            "This checkpoint's architecture is not supported.", got=what, expected=EXPECTED, where=path
        )

    def rows(name: str) -> int:
        return len(state[name]) if name in state and state[name].ndim else 0

    if any("fusion_model" in name or "mel_conv" in name for name in state):
        raise refuse("a fusion model, whose front end is random")
    if _PATCHES not in state:
        raise refuse("no HTSAT audio encoder" if any(n.startswith("audio_branch.") for n in state) else "no CLAP")
    width, words = rows(_PATCHES), rows(_WORDS)
    if width not in HTSAT:
        raise refuse(f"an HTSAT of width {width}")
    layers = len({name.split(".")[3] for name in state if name.startswith("text_branch.encoder.layer.")})
    # Checked before a model is built, which allocates memory for these sizes.
    if not 0 < layers <= MAX_TEXT["layers"] or not 5 <= words <= MAX_TEXT["words"]:
        raise refuse(f"a text tower of {layers} layers and {words} words; RoBERTa's has at most {MAX_TEXT}")
    if rows("text_branch.embeddings.token_type_embeddings.weight") != 1:
        raise refuse("a text tower that is not RoBERTa: it has several token types")
    if _FILTERS in state:
        front_end = LAION_FRONT_END
        ours = mel_filters(front_end.n_fft, front_end.low_hz, front_end.high_hz, front_end.mels, front_end.sample_rate)
        if state[_FILTERS].shape != ours.shape or not (state[_FILTERS].float() - ours).abs().max() <= 1e-5:
            raise refuse("mel filters of another front end")
    return ClapConfig(
        audio_config={
            "patch_embeds_hidden_size": width,
            "hidden_size": 8 * width,
            "depths": HTSAT[width][1],
            "num_attention_heads": [4, 8, 16, 32],
            "enable_fusion": False,
        },
        text_config={
            "vocab_size": words,
            "num_hidden_layers": layers,
            "layer_norm_eps": 1e-5,  # RoBERTa's; ClapTextConfig's default is 1e-12
        },
    )


def _build(config: Any, state: Mapping[str, Tensor], path: Path) -> Any:
    from transformers import ClapModel

    model = ClapModel(config).eval()
    weights = convert_names(state)
    try:
        missing, unknown = model.load_state_dict(weights, strict=False)
        odd = [*(name for name in missing if not _COMPUTED.fullmatch(name)), *unknown]
        got = f"{len(odd)} names missing or unknown, for example {sorted(odd)[:3]}"[:300]
    except RuntimeError as error:
        odd, got = [""], " ".join(str(error).split())[:300]
    if not odd:
        odd = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
        got = f"values that are not finite, for example in {odd[:3]}"
    if odd:
        raise BackboneError(
            "The checkpoint's tensors are not those of a complete CLAP.", got=got, expected=EXPECTED, where=path
        )
    return model
