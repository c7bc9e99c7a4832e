"""Read text files and tables (CSV, TSV) that other systems wrote: in any encoding, with any line end."""

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from clepdg.errors import ClepError, some

_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Latin-1 has control characters where Windows has quotation marks and dashes
_WINDOWS: Final = {code: bytes([code]).decode("cp1252", "replace") for code in range(0x80, 0xA0)}


class Row(dict[str, str]):
    """Cells of a table's row by column; `line` is the row's line in the file."""

    line: int


def read_text(path: Path, encoding: str = "latin-1") -> str:
    r"""Return the content of a text file; its lines end in "\n".

    A file with the byte order mark of UTF-16 is UTF-16. In others each line by itself is UTF-8, else of the given
    encoding, else of Windows-1252, so that an odd byte spoils no other line and is never an error.
    """
    data = path.read_bytes()
    if data.startswith(_UTF16):
        text = data.decode("utf-16", errors="replace")
    else:
        lines = data.removeprefix(codecs.BOM_UTF8).splitlines(keepends=True)
        text = "".join(_decode(line, encoding) for line in lines)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(line: bytes, encoding: str) -> str:
    for each in ("utf-8", encoding):
        try:
            return line.decode(each).translate(_WINDOWS)
        except UnicodeDecodeError:
            continue
    return line.decode("latin-1").translate(_WINDOWS)


def read_rows(path: Path, error: type[ClepError], what: str) -> tuple[list[str], list[Row]]:
    """Return the columns and rows of a table with a header.

    Commas, semicolons or tabs separate its cells: the one that the header has most of. Cells are stripped; empty lines
    are no rows.

    Args:
        error: the kind of the error.
        what: its sentence.

    Raises:
        ClepError: two columns have one name, rows have more or fewer cells than the header, or a quotation mark is not
            closed; with the number of each line.
    """
    columns, rows, faults = list[str](), list[Row](), list[str]()
    try:
        for line, cells in _records(read_text(path)):
            if not columns:
                columns = cells
                twice = sorted({name for name in cells if name and cells.count(name) > 1})
                faults += [f"line {line}: two columns {name}" for name in twice]
            elif len(cells) != len(columns):
                faults.append(f"line {line}: {len(cells)} cells, not {len(columns)} as in the header")
            else:
                rows.append(Row(zip(columns, cells, strict=True)))
                rows[-1].line = line
    except ValueError as fault:
        faults.append(str(fault))
    if faults:
        do = "write a cell with separators or quotation marks in quotation marks, and double those in it"
        raise error(what, got=some(faults), where=path, do=do)
    return columns, rows


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the cells of each record.

    Raises:
        ValueError: a quotation mark is misplaced or not closed, with the number of its line.
    """
    lines = text.split("\n")
    separator = max(",;\t", key=lines[0].count)
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=separator, strict=True)
    width = 0
    while reader.line_num < len(lines):
        start = reader.line_num + 1
        fault, cells = "", list[str]()
        try:
            cells = [cell.strip() for cell in next(reader)]
        except csv.Error as error:
            after = "expected after" in str(error)
            fault = "text follows a closing quotation mark" if after else "a quotation mark is not closed"
        inside = range(start + 1, reader.line_num + 1)
        swallowed = next((number for number in inside if lines[number - 1].count(separator) > width - 2), None)
        if swallowed:  # a row of its own in a cell
            fault = f"a quotation mark is not closed before line {swallowed}"
        if fault:
            raise ValueError(f"line {start}: {fault}")
        if cells:
            width = width or len(cells)
            yield start, cells
