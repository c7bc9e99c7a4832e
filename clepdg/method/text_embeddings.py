"""Text embeddings of labels in contexts, on which classifiers are trained.

Shapes: N labels, K contexts, J templates, M soft tokens, H text hidden size, D joint embedding, R rows.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clepdg import prompts
from clepdg.config.label_sets import of_targets
from clepdg.config.schema import TextConfig
from clepdg.emotions import labels
from clepdg.hashing import digest
from clepdg.method.context_prompts import ContextPrompts
from clepdg.models.clap import Clap
from clepdg.models.tensors import digest_tensors, load_tensors, save_tensors
from clepdg.store.readers import read_names, unreadable
from clepdg.training.loop import step_seed

TEXT = {
    "embeddings": ("float32", 2),
    "label_index": ("int64", 1),
    "context_index": ("int64", 1),
    "content": ("float32", 2),
}


@dataclass(frozen=True, kw_only=True)
class TextEmbeddings:
    """Normalised text embeddings (R, D) with their labels and contexts.

    Attributes:
        label_index: (R,) position among the labels.
        context_index: (R,) number of the context; -1: none.
        content: c_n (N, D), the labels in the content template.
    """

    labels: tuple[str, ...]
    embeddings: Tensor
    label_index: Tensor
    context_index: Tensor
    content: Tensor

    @property
    def shifts(self) -> Tensor:
        """u_kn - c_n (K N, D): the shift of every label by every context."""
        joint = self.context_index >= 0
        return self.embeddings[joint] - self.content[self.label_index[joint]]

    def save(self, folder: Path) -> str:
        """Write embeddings and labels; return the content digest.

        The files are text_embeddings.safetensors and labels.json.
        """
        tensors = {
            "embeddings": self.embeddings,
            "label_index": self.label_index,
            "context_index": self.context_index,
            "content": self.content,
        }
        save_tensors(folder / "text_embeddings.safetensors", tensors)
        (folder / "labels.json").write_text(json.dumps(self.labels))
        return digest([digest_tensors(tensors), self.labels])


def load_text_embeddings(folder: Path) -> TextEmbeddings:
    """Read embeddings that `TextEmbeddings.save` wrote.

    Raises:
        StoreError: the folder holds none, or its files do not fit together.
    """
    path = folder / "text_embeddings.safetensors"
    names, tensors = read_names(folder / "labels.json"), load_tensors(path, TEXT)
    rows, index = len(tensors["embeddings"]), tensors["label_index"]
    if not names or not rows or len(index) != rows or not 0 <= int(index.min()) <= int(index.max()) < len(names):
        raise unreadable(f"{rows} embeddings, {len(index)} labels of {len(names)}", path)
    return TextEmbeddings(labels=names, **tensors)


@torch.no_grad()
def build_text_embeddings(
    clap: Clap,
    config: TextConfig,
    contexts: Tensor | Sequence[str],
    content_template: str = prompts.CONTENT_TEMPLATE,
    joint_template: str = prompts.JOINT_TEMPLATE,
    names: tuple[str, ...] | None = None,
) -> TextEmbeddings:
    """Embed labels without contexts (N J rows) and with (K N rows).

    Args:
        contexts: context vectors (K, M, H), or contexts in words; may be empty.
        content_template: of c_n, the labels without a context.
        joint_template: of u_kn, the labels with contexts; the template that the context vectors were trained in.
        names: the labels; None: those of the configuration's label set.

    Raises:
        BackboneError: a prompt holds a word that the backbone does not know.
    """
    clap.model.eval()
    names = names or labels(of_targets(config.label_set, ()))
    words = [prompts.class_word(name) for name in names]
    texts = [text for row in prompts.class_prompts(names, config.content_templates) for text in row]
    n, j, k = len(names), len(config.content_templates), len(contexts)
    parts = list(_encode_texts(clap, texts))
    if isinstance(contexts, Tensor):
        joint = ContextPrompts(clap, [prompts.fill(joint_template, word) for word in words], contexts.shape[1])
        parts += [joint.encode(part.to(clap.device)).flatten(0, 1) for part in torch.split(contexts, 16)]
    else:
        joined = [prompts.fill(joint_template, word).format(context=c) for c in contexts for word in words]
        parts += list(_encode_texts(clap, joined))
    return TextEmbeddings(
        labels=names,
        embeddings=torch.cat(parts).cpu(),
        label_index=torch.cat([torch.arange(n).repeat_interleave(j), torch.arange(n).repeat(k)]),
        context_index=torch.cat([torch.full((n * j,), -1), torch.arange(k).repeat_interleave(n)]),
        content=clap.encode_text([prompts.fill(content_template, word) for word in words]).cpu(),
    )


@torch.no_grad()
def build_noise_embeddings(
    clap: Clap,
    config: TextConfig,
    contexts: Tensor,
    content_template: str,
    seed: int,
    joint_template: str = prompts.JOINT_TEMPLATE,
) -> TextEmbeddings:
    """Embed labels without contexts (N J rows) and with noise (K N).

    For every context k and label n, the content embedding c_n is moved along the sphere in a random direction, by the
    distance |u_kn - c_n|: shifts as long as those of the contexts, in random directions.

    Args:
        contexts: context vectors (K, M, H) whose u_kn are matched.
        content_template: of c_n.
        joint_template: of u_kn.
    """
    given = build_text_embeddings(clap, config, contexts, content_template, joint_template)
    moved = given.context_index >= 0
    start = given.content[given.label_index[moved]]  # (K N, D)
    distance = (given.embeddings[moved] - start).norm(dim=1, keepdim=True)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    tangent = F.normalize(noise - (noise * start).sum(dim=1, keepdim=True) * start, dim=1)
    angle = 2 * torch.asin((distance.double() / 2).clamp(max=1.0))
    embeddings = given.embeddings.clone()
    embeddings[moved] = (torch.cos(angle) * start + torch.sin(angle) * tangent).float()
    return replace(given, embeddings=embeddings)


def redraw_contexts(vectors: Tensor, seed: int, sets: int) -> Tensor:
    """Draw sets of contexts (sets K, M, H) like vectors (K, M, H).

    Every token and dimension has the mean and standard deviation of the K contexts. A set depends only on the seed and
    its number.
    """
    mean, std = vectors.mean(dim=0), vectors.std(dim=0)
    drawn = []
    for number in range(sets):
        generator = torch.Generator().manual_seed(step_seed(seed, number))
        drawn.append(mean + std * torch.randn(vectors.shape, generator=generator))
    return torch.cat(drawn)


def _encode_texts(clap: Clap, texts: Sequence[str], size: int = 64) -> Iterator[Tensor]:
    for start in range(0, len(texts), size):
        yield clap.encode_text(texts[start : start + size])
