"""CSV and JSONL as rows whose cells are what the file says: no column's type is guessed.

A guess over a column makes another id of "00001", "1e5" or "2024-05-01", and depends on rows that come later. A row
travels as the JSON of its cells, which holds a number of any size and a column of several types.
"""

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from ...unclip_core.parsing import checked, parse_json

if TYPE_CHECKING:
    import pyarrow as pa

ROW = "row as JSON"
FAULT = "fault"
"""Columns of a block: a row, or in the last one why no further row can be read."""

BLOCK = 4096
"""Rows of a block."""


def blocks(kind: str, stream: IO[bytes], name: str) -> "Iterator[pa.Table]":
    """Read a file as tables of the columns `ROW` and `FAULT`.

    What is wrong with the file is a row of its own: errors that Ray carries to another process become something else.

    Args:
        kind: "csv" or "json".
        stream: the file.
        name: of the file, for messages.

    Raises:
        OSError: the file cannot be read.
    """
    import pyarrow as pa

    schema = pa.schema([(ROW, pa.string()), (FAULT, pa.string())])
    rows = _rows_and_fault(READERS[kind](stream, f"'{name}'"))
    is_first = True
    while (some := list(itertools.islice(rows, BLOCK))) or is_first:
        is_first = False
        yield pa.Table.from_pylist([{ROW: row, FAULT: fault} for row, fault in some], schema)


def _rows_and_fault(entries: Iterator[Mapping[str, Any]]) -> Iterator[tuple[str | None, str | None]]:
    try:
        for entry in entries:
            yield json.dumps(entry), None
    except ValueError as error:
        yield None, str(error)


def entries(table: "pa.Table") -> list[Mapping[str, Any]]:
    """The rows of a table: of one that `blocks` made what their JSON says, of another its own.

    Raises:
        ValueError: the file cannot be read to its end.
    """
    if ROW not in table.column_names:
        return list(table.to_pylist())
    if faults := table[FAULT].drop_null().to_pylist():
        raise ValueError(faults[0])
    return [json.loads(row) for row in table[ROW].to_pylist()]


def csv_rows(stream: IO[bytes], name: str) -> Iterator[dict[str, str]]:
    """Read a CSV file; all cells are text. Lines of empty cells are left out.

    Raises:
        ValueError: it is no CSV file in UTF-8, a line has another number of cells than the first, or two columns have
            the same name.
    """
    reader = csv.reader(_text(stream, newline=""), strict=True)
    lines = (line for line in _readable(reader, name) if any(cell.strip() for cell in line))
    names = [column.strip() for column in next(lines, [])]
    named = [column for column in names if column]
    if len(set(named)) < len(named):
        raise ValueError(f"{name} names a column twice: {', '.join(named)}.")
    for line in lines:
        _check_line(line, names, f"{name}, line {reader.line_num}")
        yield {column: cell for column, cell in zip(names, line, strict=True) if column or cell.strip()}


def _check_line(line: Sequence[str], names: Sequence[str], place: str) -> None:
    if len(line) != len(names):
        raise ValueError(f"{place}: it has {len(line)} cells, the first line {len(names)}.")
    nameless = [cell for column, cell in zip(names, line, strict=True) if not column]
    if len(nameless) > 1 and any(cell.strip() for cell in nameless):  # one alone is the index that pandas writes
        raise ValueError(f"{place}: it has a value in a column without a name.")


def json_rows(stream: IO[bytes], name: str) -> Iterator[dict[str, Any]]:
    """Read JSON objects, one a line, or a single list of them.

    Raises:
        ValueError: it is no such file, or not in UTF-8.
    """
    lines = enumerate(_readable(_text(stream, newline="\n"), name), 1)  # U+2028 may stand within JSON
    said = ((number, line) for number, line in lines if line.strip())
    for number, line in said:
        if number == 1 and line.lstrip().startswith("["):
            yield from _listed(line + "".join(more for _, more in said), name)
        else:
            place = f"{name}, line {number},"
            yield checked(dict[str, Any], parse_json(line, place), place)


def _listed(text: str, name: str) -> list[dict[str, Any]]:
    return checked(list[dict[str, Any]], parse_json(text, name), name)


READERS = {"csv": csv_rows, "json": json_rows}


def _text(stream: IO[bytes], newline: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline=newline)


def _readable(lines: Iterable[Any], name: str) -> Iterator[Any]:
    """The lines; what is wrong with one of them as a sentence."""
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text. Save it as UTF-8.") from error
    except csv.Error as error:
        raise ValueError(f"{name} is no CSV file: {error}.") from error
