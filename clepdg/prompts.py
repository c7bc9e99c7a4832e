"""Prompt texts: emotion words, caption templates, acoustic contexts.

The micro backbone's vocabulary is all words used here, so changing them changes its digest.
"""

import re
from collections.abc import Iterable
from typing import Final

# Words that replace {emotion}; class prompts use the first.
EMOTION_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "angry": ("angry", "furious", "irritated"),
    "happy": ("happy", "joyful", "cheerful"),
    "neutral": ("neutral", "plain", "even"),
    "sad": ("sad", "sorrowful", "gloomy"),
    "disgusted": ("disgusted", "revolted", "repelled"),
    "fearful": ("fearful", "afraid", "scared"),
    "surprised": ("surprised", "astonished", "amazed"),
    "calm": ("calm", "peaceful", "relaxed"),
    "bored": ("bored", "weary", "listless"),
    "excited": ("excited", "thrilled", "eager"),
    "frustrated": ("frustrated", "annoyed", "exasperated"),
    "contemptuous": ("contemptuous", "scornful", "disdainful"),
}

# Captions are sampled from these for each utterance: with one fixed caption per class, the targets "instance" and
# "emotion" would be the same loss (without a mask).
CAPTION_TEMPLATES: Final = (
    "a person speaking in a tone that is {emotion}",
    "{emotion} speech",
    "the speaker sounds {emotion}",
    "this voice is {emotion}",
    "someone talks and feels {emotion}",
    "a recording of {emotion} speech",
    "the person in this recording is {emotion}",
    "a voice that sounds {emotion}",
    "words spoken in {emotion} manner",
    "the talk of someone who is {emotion}",
    "This is a {emotion} sound",
)
SOUND_TEMPLATE: Final = CAPTION_TEMPLATES[-1]  # of a later paper by CLEP-DG's first author; preset paper uses it alone

CONTENT_TEMPLATE: Final = "a person speaking in a {emotion} tone"
CONTEXT_TEMPLATE: Final = "speech recorded in {context}"
JOINT_TEMPLATE: Final = "a person speaking in a {emotion} tone, recorded in {context}"

HANDWRITTEN_CONTEXTS: Final = (
    "a quiet studio",
    "a busy street",
    "a telephone line",
    "a reverberant hall",
    "a small room",
    "a car",
    "a crowded restaurant",
    "a windy field",
    "a kitchen with a humming fridge",
    "a train station",
    "an office",
    "a stairwell",
    "a bathroom with tiles",
    "white noise",
    "a noisy crowd",
    "an old radio",
)

# Condition -> the hand-written context that names it; micro-context is pretrained on these pairs.
CONTEXT_OF: Final[dict[str, str]] = {
    "clean": "a quiet studio",
    "white": "white noise",
    "pink": "a windy field",
    "hum": "a kitchen with a humming fridge",
    "babble": "a noisy crowd",
    "telephone": "a telephone line",
    "clipping": "an old radio",
    "room-short": "a small room",
    "room-long": "a reverberant hall",
}
ENVIRONMENT_TEMPLATES: Final = (  # without an emotion
    CONTEXT_TEMPLATE,
    "a person speaking, recorded in {context}",
    "a voice in {context}",
    "someone talks in {context}",
)

# Contexts without an acoustic meaning: a control for acoustic contexts, as many as HANDWRITTEN_CONTEXTS.
NONACOUSTIC_CONTEXTS: Final = (
    "a red kitchen",
    "a blue sweater",
    "a cheap magazine",
    "a wooden spoon",
    "a legal contract",
    "a garden with tulips",
    "a sunny afternoon",
    "a green bottle",
    "an expensive map",
    "a sweet dessert",
    "a tall ladder",
    "a round coin",
    "a yellow letter",
    "a square table",
    "a fresh salad",
    "a pair of gloves",
)

# Phrases that captions may add about speaker and utterance: attribute -> value -> phrase.
ATTRIBUTE_PHRASES: Final[dict[str, dict[str, str]]] = {
    "gender": {"female": "female voice", "male": "male voice"},
    "pitch": {"low": "low pitch", "medium": "medium pitch", "high": "high pitch"},
    "pace": {"slow": "slow pace", "moderate": "moderate pace", "fast": "fast pace"},
}

PLACEHOLDER: Final = "x"  # one token in the vocabularies of micro and RoBERTa; context vectors replace its embeddings


def fill(template: str, word: str) -> str:
    """Fill a template with an emotion word.

    "a {emotion} tone" becomes "an angry tone".
    """
    article = r"\1n" if word[:1].lower() in "aeiou" else r"\1"
    return re.sub(r"\b([Aa])(?= \{emotion\})", article, template).replace("{emotion}", word)


def class_word(emotion: str) -> str:
    """Return the word that class prompts use for an emotion, or for a label.

    A label that is no canonical emotion is its own word.
    """
    return EMOTION_WORDS.get(emotion, (emotion,))[0]


def class_prompts(emotions: tuple[str, ...], templates: tuple[str, ...]) -> list[list[str]]:
    """Return the prompts (N, J): every emotion's class word in every template."""
    return [[fill(template, class_word(emotion)) for template in templates] for emotion in emotions]


def captions(emotion: str, templates: tuple[str, ...]) -> list[str]:
    """Return all captions of an emotion: each of its words in every template."""
    return [fill(template, word) for template in templates for word in EMOTION_WORDS[emotion]]


def words(text: str) -> list[str]:
    """Split a text into lower-case words; commas are words too."""
    return text.lower().replace(",", " , ").split()


def unknown_words(texts: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the words of texts that are missing in a word list, sorted."""
    return sorted({word for text in texts for word in words(text)} - {*known})


def vocabulary() -> list[str]:
    """Return the micro backbone's vocabulary, sorted.

    It is all words of this module.
    """
    texts = [
        *CAPTION_TEMPLATES,
        CONTENT_TEMPLATE,
        CONTEXT_TEMPLATE,
        JOINT_TEMPLATE,
        *ENVIRONMENT_TEMPLATES,
        *HANDWRITTEN_CONTEXTS,
        *NONACOUSTIC_CONTEXTS,
        *(phrase for phrases in ATTRIBUTE_PHRASES.values() for phrase in phrases.values()),
        *(word for group in EMOTION_WORDS.values() for word in group),
        PLACEHOLDER,
    ]
    return sorted({word for text in texts for word in words(text)} - {"{emotion}", "{context}"})
