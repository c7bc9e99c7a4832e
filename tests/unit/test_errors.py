"""Protects what an error shows: its fields, one fault a line; and that it can be sent to another process."""

import copy
import pickle
from pathlib import Path

import pytest

from clepdg import errors
from clepdg.errors import ClepError, ConfigError, SourceError, unknown_name

ONE = SourceError("A file is not there.", got="a.wav", where=Path("/data"), do="fetch it")
TEXT = "A file is not there.\n  got: a.wav\n  where: /data\n  do: fetch it"


def test_the_text_shows_the_fields_in_order():
    assert str(ONE) == TEXT
    assert str(ClepError("It failed.")) == "It failed."
    error = ConfigError("No such name.", got=3, expected=("a", "b"), where="clep.target")
    assert str(error) == "No such name.\n  got: 3\n  expected: a, b\n  where: clep.target"
    assert (error.what, error.got, error.expected, error.do) == ("No such name.", "3", ("a", "b"), None)


def test_values_with_commas_are_shown_one_a_line():
    error = ClepError("These do not fit.", got=["a, b", "c"], expected=["d, e"])
    assert str(error) == "These do not fit.\n  got:\n    a, b\n    c\n  expected: d, e"


def test_children_are_shown_one_after_another_and_indented_where_they_have_children():
    inner = SourceError("Two failed.", children=[ONE, "no answer"])
    assert str(inner) == f"Two failed.\n- {TEXT}\n- no answer"
    outer = ClepError("Not ready.", do="wait", children=[inner.labelled("ravdess")])
    assert str(outer) == f"Not ready.\n  do: wait\n- ravdess: Two failed.\n  - {TEXT}\n  - no answer"
    assert isinstance(outer.children[0], SourceError) and str(inner).startswith("Two failed.")


def test_the_reason_is_one_line_without_what_to_do():
    assert ONE.reason == "A file is not there. got: a.wav where: /data"
    assert SourceError("Failed.", do="wait", children=[ONE]).reason == f"Failed. - {ONE.reason}"


def test_an_error_survives_pickling_whatever_its_values_are():
    error = ConfigError("Several.", got=OSError(lambda: 0), children=[ONE.labelled("x"), ONE])
    for other in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(other) is ConfigError
        assert str(other) == str(error)
        assert [type(child) for child in other.children] == [SourceError, SourceError]


@pytest.mark.parametrize("name", ["row-7x", "something else"])
def test_where_no_page_is_at_hand_none_is_named_and_the_valid_names_are_listed(monkeypatch, name):
    valid = [f"row-{n}" for n in range(30)]
    assert "docs/method.md" in str(unknown_name("row", name, valid, "docs/method.md#rows"))
    monkeypatch.setattr(errors, "HAS_DOCS", False)
    said = str(unknown_name("row", name, valid, "docs/method.md#rows"))
    assert "docs/" not in said and "row-29" in said and ("did you mean row-7" in said) == name.startswith("row")
