"""Protects plain English: short summaries in the imperative, and no phrase that must be decoded."""

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "tasks", "clepdg")
LONGEST = 72  # characters of a summary
VAGUE = ("What", "Whether", "Which", "Tell")  # a summary says what a function does
PHRASES = (
    *(
        "so many",
        "a person",
        "such that",
        "hears",
        "is told",
        "are told",
        "made up",
        "makes up",
        "goes on",
        "what stands",
    ),
    "has begun anew",
)
BANNED = re.compile("|".join(rf"\b{phrase}\b" for phrase in (*PHRASES, r"brings?\b.{0,40}\bup to date")), re.IGNORECASE)
SPEECH = re.compile(r"a person speaking", re.IGNORECASE)  # words of a prompt
FILES = [path for package in PACKAGES for path in sorted((PROJECT / package).rglob("*.py"))]


def name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def summaries(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, first line) of the docstrings of functions and classes."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (
            text := ast.get_docstring(node)
        ):
            yield node.lineno, text.splitlines()[0]


def words(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of strings and comments."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)):
                yield token.start[0], token.string


@pytest.mark.parametrize("path", FILES, ids=name)
def test_summaries_are_short_and_say_what_is_done(path: Path) -> None:
    long = [f"line {line}: {text}" for line, text in summaries(path) if len(text) > LONGEST]
    vague = [f"line {line}: {text}" for line, text in summaries(path) if text.split(" ")[0] in VAGUE]
    assert not long and not vague


def test_modules_say_what_they_do() -> None:
    every = [*FILES, *sorted((PROJECT / "tests").rglob("*.py"))]
    openings = {name(path): (ast.get_docstring(ast.parse(path.read_text())) or "-").split()[0] for path in every}
    assert len(openings) > 400
    assert {path: word for path, word in openings.items() if word in VAGUE} == {}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_code_speaks_plainly(path: Path) -> None:
    found = [f"line {line}: {hit[0]}" for line, text in words(path) for hit in BANNED.finditer(SPEECH.sub("", text))]
    assert not found
