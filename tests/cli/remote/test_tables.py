"""Tables of `unclip queue`: the same rows from CSV, JSONL and Parquet, and a sentence for what is none."""

import json
import logging
import sys

import pytest

from unclip.cli.remote.rows import Batch
from unclip.cli.remote.tables import read_table

WORKFLOW = {"1": {"class_type": "Thing", "inputs": {"seed": 0, "text": "a", "scale": 1.0}}}
ROWS = [
    {"name": "one", "1.seed": 2**53 + 1, "1.text": 'a, "b"\nc', "1.scale": 0.5},
    {"name": "two", "1.seed": 3, "1.text": None, "1.scale": 2.0},
]


def prompts(path):
    batch = Batch(WORKFLOW, table=read_table(path))
    return [(row.name, batch.prompt(row)["1"]["inputs"]) for row in batch.rows]


def test_every_kind_of_table_gives_the_same_prompts(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pandas.DataFrame(ROWS)
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet", index=False)
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    wanted = [
        ("one", {"seed": 2**53 + 1, "text": 'a, "b"\nc', "scale": 0.5}),
        ("two", {"seed": 3, "text": "a", "scale": 2.0}),
    ]
    assert prompts(tmp_path / "t.csv") == prompts(tmp_path / "t.jsonl") == prompts(tmp_path / "t.parquet") == wanted


def test_a_column_of_whole_numbers_with_gaps_stays_whole(tmp_path):
    """pandas makes floats of it, and NaN of the gaps."""
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame({"1.seed": [7, None], "1.text": ["x", "y"]}).to_parquet(tmp_path / "t.parquet")
    seeds = [inputs["seed"] for _, inputs in prompts(tmp_path / "t.parquet")]
    assert seeds == [7, 0] and all(isinstance(seed, int) for seed in seeds)


def test_rows_without_a_value_are_counted(tmp_path, caplog):
    path = tmp_path / "t.jsonl"
    path.write_text('{"1.text": "a\u2028b"}\n\n{}\n{"1.text": null}\n')
    with caplog.at_level(logging.WARNING):
        assert read_table(path) == [{"1.text": "a\u2028b"}]
    assert "3 lines without any value are skipped (2, 3, 4)" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("t.jsonl", '{"1.text": "a"}\n{"1.text"\n', "line 2 is not valid JSON"),
        ("t.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("t.jsonl", '{"prompt": "a"}\n', "the column 'prompt' is neither NODE.INPUT nor name"),
        ("t.jsonl", '{"1.scale": Infinity}\n', "line 1: '1.scale' is inf, which no input takes"),
        ("t.jsonl", "\n", "has no rows"),
        ("t.parquet", "PAR1 or not", "is no Parquet table that can be read"),
    ],
)
def test_what_is_no_table_is_refused_with_a_sentence(tmp_path, name, text, said):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=".") as raised:
        read_table(tmp_path / name)
    assert said in str(raised.value)


def test_cells_that_no_input_takes_are_named(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"1.text": ["a", "b"], "1.data": [None, b"\x00"]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"row 2: '1.data' is b'\\x00', which no input takes"):
        read_table(tmp_path / "t.parquet")


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        read_table(tmp_path / "t.parquet")
