"""Tables of rows (CSV, JSONL, Parquet): each row sets the inputs that its columns name."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...unclip_core.parsing import MalformedInput, parse_json, read_text
from .rows import NAME, ROWS_MAX

log = logging.getLogger("unclip")

JSONL, PARQUET = (".jsonl", ".ndjson"), (".parquet", ".pq")
_LINES_SHOWN, _LETTERS_SHOWN = 10, 80
Numbered = list[tuple[int, dict[str, Any]]]
"""(number of a line or row, what it sets)."""


def read_table(path: Path) -> list[dict[str, Any]]:
    """Read a table whose columns are inputs ("NODE.INPUT"), or `name` for the files' names.

    A file ending in .jsonl holds a JSON object a line, one ending in .parquet is a Parquet table, and every other is
    CSV with the columns in its first line. What is empty (nothing, null, in Parquet NaN as well) sets nothing. Rows
    without any value are skipped, with a warning that counts them; so are columns of a CSV file with neither a name nor
    a value.

    Raises:
        ValueError: it is no such file, or Parquet cannot be read here; the message says what, and in which line.
        OSError: it cannot be read.
    """
    suffix = path.suffix.lower()
    reader, unit = (_jsonl, "line") if suffix in JSONL else (_parquet, "row") if suffix in PARQUET else (_csv, "line")
    rows = reader(path)
    filled = [(number, row) for number, row in rows if row]
    if not filled:
        raise ValueError(f"'{path}' has no rows: {_NEEDED[unit]}.")
    _say_skipped(path, unit, [number for number, row in rows if not row])
    return [row for _, row in filled]


_NEEDED = {
    "line": "its first line names the inputs, the others set them; in JSONL every line is an object that sets some",
    "row": "its columns are inputs, and every row sets some",
}


def _say_skipped(path: Path, unit: str, numbers: Sequence[int]) -> None:
    if not numbers:
        return
    said = ", ".join(map(str, numbers[:_LINES_SHOWN])) + (", …" if len(numbers) > _LINES_SHOWN else "")
    count = f"1 {unit} without any value is" if len(numbers) == 1 else f"{len(numbers)} {unit}s without any value are"
    log.warning("'%s': %s skipped (%s).", path, count, said)


def _csv(path: Path) -> Numbered:
    lines = _csv_lines(path)
    filled = [(number, line) for number, line in lines if any(cell.strip() for cell in line)]
    if not filled:
        return []
    head_at, head = filled[0]
    named = [column for column, name in enumerate(head) if name.strip()]
    _check_names(path, [head[column] for column in named])
    for number, row in filled[1:]:
        if len(row) != len(head):
            raise ValueError(f"'{path}', line {number}: it has {len(row)} cells, the first line {len(head)}.")
        if any(cell.strip() for column, cell in enumerate(row) if column not in named):
            raise ValueError(f"'{path}', line {number}: it has a value in a column without a name.")
    return [
        (number, {head[c]: line[c] for c in named} if any(cell.strip() for cell in line) else {})
        for number, line in lines
        if number != head_at
    ]


def _csv_lines(path: Path) -> list[tuple[int, list[str]]]:
    """The lines with their numbers, which are those of their ends where a cell has several."""
    try:
        reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
        return [(reader.line_num, line) for line in reader]
    except MalformedInput:
        raise
    except csv.Error as error:
        raise ValueError(f"'{path}' is no CSV file: {error}.") from error


def _jsonl(path: Path) -> Numbered:
    lines = read_text(path).split("\n")  # and at nothing else: U+2028 may stand within JSON
    return [
        (number, _object(path, number, line)) for number, line in enumerate(lines[: -1 if not lines[-1] else None], 1)
    ]


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    place = f"'{path}', line {number}"
    found = parse_json(line, place) if line.strip() else {}
    if not isinstance(found, dict):
        raise ValueError(f'{place} is no JSON object, such as {{"4.seed": 1}}.')
    _check_names(path, list(found))
    return _cells(found, place)


def _parquet(path: Path) -> Numbered:
    path.stat()  # what is not there is an OSError
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            f"'{path}' is a Parquet table, which pyarrow reads, and that is not installed: pip install pyarrow, "
            "or write the table as CSV or JSONL."
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            count, names = file.metadata.num_rows, list(file.schema_arrow.names)
            rows = file.read().to_pylist() if count <= ROWS_MAX and len(set(names)) == len(names) else []
    except Exception as error:  # pyarrow's kinds are many
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(f"'{path}' is no Parquet table that can be read: {reason}.") from error
    if count > ROWS_MAX:
        raise ValueError(f"'{path}' has {count:,} rows; at most {ROWS_MAX:,} are queued at once.")
    _check_names(path, names)
    return [(number, _cells(_without_nan(row), f"'{path}', row {number}")) for number, row in enumerate(rows, 1)]


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """pandas writes NaN where there is nothing."""
    return {name: value for name, value in row.items() if value == value}


def _check_names(path: Path, names: Sequence[str]) -> None:
    if odd := [name for name in names if name != NAME and "." not in name]:
        raise ValueError(f"'{path}': the column {odd[0]!r} is neither NODE.INPUT nor {NAME}.")
    if len(set(names)) < len(names):
        raise ValueError(f"'{path}' names a column twice: {', '.join(names)}.")


def _cells(row: dict[str, Any], place: str) -> dict[str, Any]:
    """The cells that hold something, each of which JSON can hold; the name as text."""
    filled = {name: value for name, value in row.items() if value is not None and value != ""}
    for name, value in filled.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            shown = repr(value)[:_LETTERS_SHOWN]
            raise ValueError(
                f"{place}: '{name}' is {shown}, which no input takes: write it as text or a number."
            ) from None
    if NAME in filled:
        filled[NAME] = str(filled[NAME])
    return filled
