"""What came of every row as a table beside the files: Parquet, or JSONL where pyarrow is not installed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .journal import Result
from .rows import Row

PARQUET, JSONL = "results.parquet", "results.jsonl"


def write_results(folder: Path, results: Iterable[Result], rows: Mapping[int, Row]) -> Path:
    """Write a row for each result, in the order of the rows, and return the file's path.

    Columns: row, name, values (what the row set, as JSON), files, server, seconds (from sending it until its files were
    here), warnings, error ("" if it is done).

    Raises:
        OSError: it cannot be written; one that stood there before still does.
    """
    from ...unclip_core.weights.files import write_whole

    entries = [_entry(result, rows[result.row]) for result in sorted(results, key=lambda result: result.row)]
    try:
        data, name, other = _parquet(entries), PARQUET, JSONL
    except ImportError:
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
        data, name, other = "".join(lines).encode(errors="backslashreplace"), JSONL, PARQUET
    write_whole(folder / name, data)
    (folder / other).unlink(missing_ok=True)  # of an earlier run: it would tell less than this one
    return folder / name


def _entry(result: Result, row: Row) -> dict[str, Any]:
    return {
        "row": result.row,
        "name": row.name,
        "values": json.dumps(dict(row.values), ensure_ascii=True),
        "files": result.files,
        "server": result.server,
        "seconds": result.seconds,
        "warnings": result.warnings,
        "error": result.error,
    }


def _parquet(entries: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    texts = pa.list_(pa.string())
    kinds = {
        "row": pa.int64(), "name": pa.string(), "values": pa.string(), "files": texts, "server": pa.string(),
        "seconds": pa.float64(), "warnings": texts, "error": pa.string(),
    }  # fmt: skip
    columns = {name: pa.array([entry[name] for entry in entries], kind) for name, kind in kinds.items()}
    sink = io.BytesIO()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()
