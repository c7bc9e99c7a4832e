"""Protects the reading of tables and texts of other systems: no row is lost, no byte stops a corpus."""

from pathlib import Path

import pytest

from clepdg.errors import CorpusError
from clepdg.text_files import read_rows, read_text

HEAD = "path,speaker,label\n"


def rows(path: Path) -> list[dict[str, str]]:
    return [*read_rows(path, CorpusError, "A table is malformed.")[1]]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_table_of_any_system_is_the_same_table(end: str, separator: str, encoding: str, tmp_path: Path) -> None:
    text = 'path,name\nzoë.wav,Zoë \n\n"a ""b""",“c”…\n'
    text = text.replace(",", separator).replace("\n", end)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    columns, found = read_rows(tmp_path / "t.csv", CorpusError, "")
    assert columns == ["path", "name"]
    assert found == [{"path": "zoë.wav", "name": "Zoë"}, {"path": 'a "b"', "name": "“c”…"}]
    assert [row.line for row in found] == [2, 4]


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        (["a,b,c", "d,e", "f,g,h,i"], ["line 3: 2 cells, not 3", "line 4: 4 cells, not 3"]),
        (['a,b,"c', *["d,e,f"] * 3], ["line 2: a quotation mark is not closed"]),
        (['a,b,"c', *["d,e,f"] * 60_000], ["line 2: a quotation mark is not closed"]),
        (['a,b,"c', *["d" * 99] * 3000], ["line 2: a quotation mark is not closed"]),
        (["a,b,c", 'd,e,"f', "g,h,i", 'j,k,"l"'], ["line 3: a quotation mark is not closed before line 4"]),
        (["a,b,c", 'd,e,"f', "g,h,i", 'j,k,l"'], ["line 3: a quotation mark is not closed before line 4"]),
        (['a,b,"c" d'], ["line 2: text follows a closing quotation mark"]),
    ],
)
def test_rows_are_held_against_the_header(lines: list[str], faults: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEAD + "\n".join(lines))
    with pytest.raises(CorpusError) as caught:
        rows(tmp_path / "t.csv")
    assert isinstance(caught.value.got, tuple) and len(caught.value.got) == len(faults)
    assert all(text.startswith(fault) for text, fault in zip(caught.value.got, faults, strict=True))
    assert caught.value.where == str(tmp_path / "t.csv")


def test_a_line_break_in_a_cell_is_read_where_no_row_is_lost(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEAD + 'a,b,"c\nd, e"\nf,g,h\n')
    found = read_rows(tmp_path / "t.csv", CorpusError, "")[1]
    assert [(row["label"], row.line) for row in found] == [("c\nd, e", 2), ("h", 4)]


@pytest.mark.parametrize(
    ("text", "says"), [("path,path\na,b\n", "line 1: two columns path"), ('"path\na,b\n', "line 1")]
)
def test_a_header_that_says_two_things_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(CorpusError, match=says):
        rows(tmp_path / "t.csv")


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b"\xff\xfe\x00", b"\0\n\0"])
def test_what_is_no_table_has_no_rows(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    assert all(set(row.values()) <= {"\0", ""} for row in rows(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        ("é\n".encode() + b"it\x92s\n" + "ü".encode(), "latin-1", "é\nit’s\nü"),  # an odd byte spoils no other line
        ("中立\n".encode("gb18030") + "中立".encode(), "gb18030", "中立\n中立"),
        (b"\xff\xff\xff", "gb18030", "ÿÿÿ"),
        ("he\u0092s".encode(), "latin-1", "he’s"),  # Windows-1252 that was taken for Latin-1
        (b"a\x81b", "latin-1", "a\ufffdb"),
        (b"\xfe\xff\xd8", "latin-1", "\ufffd"),  # half of a UTF-16
    ],
)
def test_no_byte_is_an_error(data: bytes, encoding: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(data)
    assert read_text(tmp_path / "t.txt", encoding) == text
