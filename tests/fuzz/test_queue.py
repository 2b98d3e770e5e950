"""What a batch on servers reads from outside: its journal, its table, the servers' answers and files."""

import io
import itertools
import json

import pytest
from fake_comfy import png
from fuzz.mutations import damaged, damaged_bytes, damaged_json, fuzzed, survives
from hypothesis import given
from hypothesis import strategies as st

from unclip.cli.remote.address import read_address, read_headers, without_credentials
from unclip.cli.remote.answers import SavedFile, accepted, outcome, queued_ids, refusal
from unclip.cli.remote.downloads import suffix_of
from unclip.cli.remote.journal import FILE, Journal, Result
from unclip.cli.remote.rows import read_varied
from unclip.cli.remote.tables import read_table
from unclip.unclip_core.parsing import MalformedInput, parse_json

ID = "0d2f7a3e-1b57-5a8e-9d32-000000000001"
SERVER = "http://127.0.0.1:8188"
SENT = {"row": 2, "server": SERVER, "prompt_id": ID}
JOURNAL = [
    {"kind": "batch", "digest": "x", "batch": "0" * 32},
    {"kind": "sending", **SENT, "row": 1},
    {"kind": "renamed", **SENT, "row": 1, "prompt_id": "a", "node_errors": "node 9"},
    {"kind": "done", "row": 1, "files": ["row00001-1.png"], "warnings": []},
    {"kind": "sending", **SENT},
    {"kind": "dropped", "row": 2, "reason": "why"},
    {"kind": "sending", **SENT},
]
NODE_ERRORS = {
    "9": {"errors": [{"message": "Bad", "details": "x"}], "class_type": "Loader", "dependent_outputs": ["1"]}
}
PROMPT = {"prompt_id": ID, "number": 1, "node_errors": NODE_ERRORS}
QUEUE = {"queue_running": [[0, ID, {}, {}, ["9"]]], "queue_pending": [[1, "b", {}, {}, ["9"]]]}
ERROR = ["execution_error", {"node_id": "1", "node_type": "Loader", "exception_message": "no"}]
FAILED = {"status": {"status_str": "error", "completed": False, "messages": [["execution_start", {}], ERROR]}}
IMAGE = {"filename": "a_00001_.png", "subfolder": "", "type": "output"}
DONE = {
    "prompt": [0, ID, {}, {}, ["9"]],
    "outputs": {"9": {"images": [IMAGE], "animated": [False], "warnings": ["mind"]}, "8": {"text": ["a"]}},
    "status": {"status_str": "success", "completed": True, "messages": []},
}
numbered = itertools.count()


def parquet_table():
    """Two rows as pandas writes them; nothing where Parquet cannot be written."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    sink = io.BytesIO()
    pandas.DataFrame({"name": ["one", "two"], "1.text": ["a", None], "1.seed": [1.0, None]}).to_parquet(sink)
    return sink.getvalue()


def read(reader, data):
    return survives(lambda: reader(parse_json(data, "It"), "It"), MalformedInput)


@fuzzed
@given(data=st.one_of(damaged_json(PROMPT), damaged_json({**PROMPT, "error": {"message": "Bad", "details": ""}})))
def test_the_answer_to_a_prompt(data):
    found = read(lambda answer, name: accepted(answer, ID, name), data)
    assert found is None or (found.prompt_id and isinstance(found.node_errors, str))
    assert survives(lambda: refusal(data)).strip()


@fuzzed
@given(data=damaged_json(QUEUE))
def test_the_queue(data):
    found = read(queued_ids, data)
    assert found is None or all(isinstance(prompt_id, str) for prompt_id in found)


@fuzzed
@given(data=st.one_of(damaged_json({ID: DONE}), damaged_json({ID: FAILED})))
def test_the_history(data):
    found = read(lambda answer, name: outcome(answer, ID, name), data)
    if found is not None:
        assert bool(found.error) != bool(found.files)
        assert all(isinstance(file, SavedFile) and file.filename for file in found.files)
        assert all(text.isprintable() for text in found.warnings)


@fuzzed
@given(rows=damaged(JOURNAL), data=st.data())
def test_the_journal(tmp_path_factory, rows, data):
    lines = [json.dumps(row) for row in rows] if isinstance(rows, list) else [json.dumps(rows)]
    text = "".join(line + "\n" for line in lines).encode()
    folder = tmp_path_factory.getbasetemp() / f"journal{next(numbered)}"
    folder.mkdir()
    (folder / FILE).write_bytes(data.draw(st.one_of(st.just(text), damaged_bytes(text))))

    def again():
        journal = Journal(folder, "x")
        try:
            sent = journal.sending(2, SERVER)
            journal.completed(Result(3, ["a.png"]))
            return sent, {row: list(result.files) for row, result in journal.done.items()}
        finally:
            journal.close()

    found = survives(again, ValueError)
    if found is not None:  # what was taken up and written on is taken up again, with an id that was not there before
        sent, done = found
        first, then = again()[0], again()[1]
        assert first.prompt_id != sent.prompt_id and then == done


def test_the_journal_that_is_damaged_above_is_a_good_one(tmp_path):
    (tmp_path / FILE).write_text("".join(json.dumps(row) + "\n" for row in JOURNAL))
    journal = Journal(tmp_path, "x")
    assert (
        journal.done[1].files == ["row00001-1.png"] and len(journal.done) == 1 and journal.in_flight[2].prompt_id == ID
    )
    assert journal.is_known(SERVER, "a")
    journal.close()


@fuzzed
@given(data=damaged_bytes('name,2.text\nöne,"a, ""b"""\ntwo,c\n,\n'.encode(), most=6))
def test_the_table(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    path.write_bytes(data)
    rows = survives(lambda: read_table(path), ValueError)
    assert rows is None or all("" not in row and any(cell.strip() for cell in row.values()) for row in rows)


@fuzzed
@given(said=st.one_of(st.text(), st.sampled_from(["1..4", "[1, 2]", "a, b", '["a"]']), damaged_json([1, "a"])))
def test_what_is_varied(said):
    text = "1.x=" + (said if isinstance(said, str) else said.decode(errors="surrogateescape"))
    found = survives(lambda: read_varied(text), ValueError)
    assert found is None or found[1]


@fuzzed
@given(data=damaged_bytes(png("x" * 100)), name=st.sampled_from(["a.png", "a.mp4", "a", "../b.svg", "\0.latent"]))
def test_a_file(tmp_path_factory, data, name):
    path = tmp_path_factory.getbasetemp() / "file.part"
    path.write_bytes(data)
    survives(lambda: suffix_of(path, name), ValueError)


@fuzzed
@given(data=damaged_bytes(b"https://me:secret@host:8188/path?x=1#y"), header=st.text())
def test_addresses_and_headers(data, header):
    text = data.decode(errors="surrogateescape")
    address = survives(lambda: read_address(text), ValueError)
    assert address is None or "secret@" not in address.url
    survives(lambda: read_headers(header), ValueError)
    without_credentials(text)


@pytest.mark.parametrize("end", range(0, 400, 7))
def test_a_file_that_is_cut_anywhere_is_no_image(tmp_path, end):
    whole = png("x" * 300)
    (tmp_path / "a.part").write_bytes(whole[: min(end, len(whole) - 13)])
    with pytest.raises(ValueError, match="no whole image|empty"):
        suffix_of(tmp_path / "a.part", "a.png")


@fuzzed
@given(data=damaged_bytes(b'{"name": "one", "1.text": "a", "1.seed": 3}\n\n{"1.scale": 0.5}\n'))
def test_a_table_of_json_lines(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / f"table{next(numbered)}.jsonl"
    path.write_bytes(data)
    found = survives(lambda: read_table(path), ValueError)
    assert found is None or all(row for row in found)


@fuzzed
@given(data=st.deferred(lambda: damaged_bytes(parquet_table())))
def test_a_parquet_table(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / f"table{next(numbered)}.parquet"
    path.write_bytes(data)
    found = survives(lambda: read_table(path), ValueError)
    assert found is None or all(row for row in found)
