"""What rows of the results table may change: the CLEP they use, ACPT, and where their contexts come from.

One factor at a time from the main row. Each is a name that stands in the names of stages, so that what several rows
share is computed once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

from clepdg.config import ClepConfig
from clepdg.emotions import EMOTIONS

MAIN: Final = ""  # CLEP as the configuration says

CLEP_VARIANTS: Final[Mapping[str, Callable[[ClepConfig], ClepConfig]]] = {
    MAIN: replace,
    # What CLEP does to contexts: the text side stays as it was, or comes halfway back (Wortsman et al., CVPR 2022).
    "frozen-text": partial(replace, train_text_encoder=False, train_text_projection=False),
    "interpolated": partial(replace, clap_share=0.5),
    "instance": partial(replace, target="instance"),
    "attribute": partial(replace, target="attribute"),
    "soft": partial(replace, target="soft"),
    "plain": partial(replace, prototype_weight=0.0),
    "projections-only": partial(replace, train_audio_encoder=False, train_text_encoder=False),
    "lora": partial(replace, lora_rank=8),
    "augmented": partial(replace, augment=True),
    **{f"without-{emotion}": partial(replace, without_emotion=emotion) for emotion in EMOTIONS},
}

# What is made by the code of ACPT: settings of AcptConfig that differ.
ACPT_VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "acpt": {},
    "acpt-no-diversity": {"diversity_weight": 0.0},
    "acpt-no-content": {"content_weight": 0.0},
    "random": {"method": "random"},
    "vocabulary": {"method": "vocabulary"},
}


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """Where a row's contexts come from.

    Attributes:
        words: the setting of TextConfig that lists them in words.
        acpt: the name in ACPT_VARIANTS that makes them as vectors.
        how: "given": as they are; "noise": none of them, but noise as far from the content embeddings as they are;
            "redrawn": sets drawn from their distribution, another one each pass of the classifier.
    """

    words: str | None = None
    acpt: str | None = None
    how: Literal["given", "noise", "redrawn"] = "given"


CONTEXTS: Final[Mapping[str, Contexts]] = {
    "none": Contexts(),
    "hand-written": Contexts(words="handwritten_contexts"),
    "non-acoustic": Contexts(words="nonacoustic_contexts"),
    **{name: Contexts(acpt=name) for name in ACPT_VARIANTS},
    "noise": Contexts(acpt="acpt", how="noise"),
    "acpt-redrawn": Contexts(acpt="acpt", how="redrawn"),
}
