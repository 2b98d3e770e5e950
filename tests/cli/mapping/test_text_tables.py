"""CSV and JSONL tables of `unclip map`: cells as the file says them, ids above all, and a sentence for what is none."""

import csv
import io
import json

import pytest

pytest.importorskip("pyarrow", reason="unclip map needs the extra [ray], which is not installed")

import pyarrow as pa

from unclip.cli.mapping.rows import make_rows
from unclip.cli.mapping.sources import digests_of, rows_left
from unclip.cli.mapping.text_tables import BLOCK, blocks, entries

IDS = ["00001", "1e5", "NA", "2024-05-01", "12345678901234567890", "12345678901234567891", "true", "café"]


def read(kind, data):
    """The rows of a file that is read as Ray hands it over: a stream of pyarrow that cannot seek."""
    stream = pa.input_stream(io.BytesIO(data.encode() if isinstance(data, str) else data))
    return [row for table in blocks(kind, stream, "t") for row in entries(table)]


def as_csv(rows):
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(("kind", "write"), [("csv", as_csv), ("json", as_jsonl), ("json", json.dumps)])
def test_ids_and_prompts_are_what_the_file_says(kind, write):
    rows = [{"id": name, "prompt": "7", "4.text": "007"} for name in IDS]
    assert read(kind, write(rows)) == rows
    assert [row.id for row in make_rows(read(kind, write(rows)))] == IDS


def test_a_later_row_may_be_of_another_type_than_all_before():
    """pyarrow takes a column's type from the first megabyte."""
    rows = [{"id": str(n), "seed": "", "prompt": "x" * 400} for n in range(3000)]
    rows += [{"id": "last", "seed": str(2**64 - 1), "prompt": "y"}]
    assert read("csv", as_csv(rows)) == rows
    mixed = [{"id": 1, "n": 2**70}, {"id": "a", "n": [1, {"b": None}]}, {"id": 1.5}]
    assert read("json", as_jsonl(mixed)) == mixed


def test_a_seed_of_sixty_four_bits_is_not_rounded():
    given = [{"id": "a", "prompt": "x", "seed": str(2**64 - 1)}, {"id": "b", "prompt": "x", "seed": "7.0"}]
    assert [row.seed for row in make_rows(read("csv", as_csv(given)))] == [2**53 - 1, 7]


def test_prompts_with_line_breaks_in_a_table_of_more_than_a_megabyte():
    rows = [{"id": str(n), "prompt": 'a "cat",\n' * 40 + str(n)} for n in range(BLOCK + 1)]
    assert len(as_csv(rows)) > 2**20 and read("csv", as_csv(rows)) == rows


def test_empty_lines_and_a_byte_order_mark_are_no_cells():
    assert read("csv", b"\xef\xbb\xbfid, prompt\n\na,x\n,\n , \nb,\n") == [
        {"id": "a", "prompt": "x"},
        {"id": "b", "prompt": ""},
    ]
    assert read("json", b'\xef\xbb\xbf{"id": "a\xe2\x80\xa8b"}\r\n\n{"id": "c"}') == [{"id": "a\u2028b"}, {"id": "c"}]
    assert read("csv", "") == read("json", "\n") == []


def test_the_index_that_pandas_writes_is_a_column_without_a_name():
    assert read("csv", ",prompt\n0,x\n,y\n") == [{"": "0", "prompt": "x"}, {"prompt": "y"}]


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("csv", "id,prompt\na,x\nb,y,z\n", "'t', line 3: it has 3 cells, the first line 2"),
        ("csv", "id,prompt,id\na,x,b\n", "'t' names a column twice: id, prompt, id"),
        ("csv", "id,,\na,x,y\n", "'t', line 2: it has a value in a column without a name"),
        ("csv", 'id,prompt\na,"x\n', "'t' is no CSV file: unexpected end of data"),
        ("csv", b"id,prompt\na,caf\xe9\n", "'t' is not UTF-8 text"),
        ("json", '{"id": 1}\n{"id":\n', "'t', line 2, is not valid JSON"),
        ("json", '{"id": 1}\n7\n', "'t', line 2, is not usable: Input should be"),
        ("json", "[1]", "'t' is not usable: 0: Input should be"),
    ],
)
def test_what_is_no_table_is_said_with_its_line(kind, data, said):
    with pytest.raises(ValueError) as error:
        read(kind, data)
    assert str(error.value).startswith(said)


def test_the_driver_and_the_workers_name_the_same_rows():
    rows = [{"id": name, "prompt": " a cat "} for name in IDS]
    (table,) = blocks("csv", io.BytesIO(as_csv(rows).encode()), "t")
    left = rows_left(table, 0, 2, digests_of(table, 1))
    assert [row.id for row in left] == [f"{name}#2" for name in IDS]
    assert {row.values["prompt"] for row in left} == {"a cat"}


def test_half_a_character_is_escaped():
    """It could not be written into the output's table."""
    assert read("json", '{"id": "\\ud800"}\n') == [{"id": "\\ud800"}]
