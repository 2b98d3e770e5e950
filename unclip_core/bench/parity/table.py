"""`unclip bench parity`: every comparison as one table."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from ...output import say
from . import kandinsky_decoder, kandinsky_prior, oracle
from .runs import Row, forwards, make_pair, native_run, text_run, variation_run

COUNTS = (1, 2, 21, 23, 31)
"""Step counts where implementations go astray: one, two, and where the two ways of spacing differ."""


def bench_parity(as_json: bool = False) -> list[Row]:
    """Compare on all shapes, print the table, and return its rows.

    Raises:
        MissingOracle: diffusers or transformers is not installed.
    """
    rows = all_rows()
    say(json.dumps([{**asdict(row), "holds": row.holds} for row in rows], indent=2) if as_json else text(rows))
    return rows


def all_rows() -> list[Row]:
    """Single forwards and whole runs at Karlo's step counts on every shape, and odd step counts on the first."""
    oracle.check_installed()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, shape in enumerate(oracle.SHAPES):
            pair = make_pair(shape, Path(folder) / str(number), seed=10 * number)
            rows += [*forwards(pair), *text_run(pair), *variation_run(pair), *native_run(pair)]
            for count in COUNTS if number == 0 else ():
                rows += text_run(pair, (count, count, count))
                rows += native_run(pair, (count, count, count))
        rows += kandinsky_prior.rows(Path(folder))
        rows += kandinsky_decoder.rows(Path(folder))
    return rows


def text(rows: list[Row]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| what | model | max | mean | bar | |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        bar = f"{'mean' if row.by_mean else 'max'} {row.bar:.0e}"
        kept = "ok" if row.holds else "EXCEEDED"
        lines.append(f"| {row.what} | {row.shape} | {row.maximum:.1e} | {row.mean:.1e} | {bar} | {kept} |")
    return "\n".join(lines)
