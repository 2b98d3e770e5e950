"""Kandinsky 2.2's decoder folders against diffusers' own nets and pipelines, as `unclip bench parity` shows it."""

import pytest

from unclip.unclip_core.bench.parity import kandinsky_decoder, table


@pytest.mark.slow
def test_every_row_of_the_table_holds(tmp_path):
    rows = kandinsky_decoder.rows(tmp_path)
    assert len(rows) == 12 and len({(row.what, row.shape) for row in rows}) == 12
    assert all(row.holds for row in rows), "\n" + table.text(rows)
