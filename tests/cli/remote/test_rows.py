"""What `unclip queue` lays out: rows of a table, of what is varied, and of a count."""

import pytest

from unclip.cli.remote.rows import Batch, read_varied
from unclip.cli.remote.tables import read_table


def workflow():
    return {
        "1": {
            "class_type": "UnclipTextEncode",
            "inputs": {"clip": ["9", 0], "text": "a"},
            "_meta": {"title": "Prompt"},
        },
        "2": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 3, "cfg": 1.5, "name": "x", "flag": True}},
        "3": {"class_type": "UnclipUpscale", "inputs": {"image": ["2", 0], "seed": 2**64 - 1, "steps": 4}},
    }


def inputs(batch, row, node):
    return batch.prompt(batch.rows[row])[node]["inputs"]


def test_without_anything_there_is_one_row_as_it_stands():
    batch = Batch(workflow())
    assert len(batch.rows) == 1 and inputs(batch, 0, "2") == workflow()["2"]["inputs"]


def test_a_table_times_what_varies_times_the_count():
    table = [{"Prompt.text": "one"}, {"Prompt.text": "two"}]
    batch = Batch(workflow(), table=table, varied={"2.steps": [1, 2, 3]}, count=2)
    found = [
        (inputs(batch, k, "1")["text"], inputs(batch, k, "2")["steps"], inputs(batch, k, "2")["seed"])
        for k in range(12)
    ]
    assert found == [(text, steps, seed) for text in ("one", "two") for steps in (1, 2, 3) for seed in (5, 6)]
    assert [row.number for row in batch.rows] == list(range(1, 13))


def test_every_free_seed_counts_up_and_wraps_around():
    batch = Batch(workflow(), count=2)
    assert [inputs(batch, k, "2")["seed"] for k in (0, 1)] == [5, 6]
    assert [inputs(batch, k, "3")["seed"] for k in (0, 1)] == [2**64 - 1, 0]
    fixed = Batch(workflow(), varied={"2.seed": [40]}, count=2)
    assert [inputs(fixed, k, "2")["seed"] for k in (0, 1)] == [40, 40]


def test_a_count_with_no_seed_left_is_refused():
    plain = {"1": workflow()["1"]}
    with pytest.raises(ValueError, match="no seed to count"):
        Batch(plain, count=2)


def test_cells_become_what_the_input_is():
    table = [{"2.seed": "7", "2.cfg": "2.25", "2.flag": "false", "2.name": "8", "3.steps": "9", "1.text": ""}]
    batch = Batch(workflow(), table=table)
    assert inputs(batch, 0, "2") == {"seed": 7, "steps": 3, "cfg": 2.25, "name": "8", "flag": False}
    assert inputs(batch, 0, "3")["steps"] == 9
    assert inputs(batch, 0, "1")["text"] == "a"  # an empty cell leaves it
    gaps = Batch(workflow(), table=[{"2.seed": "7.0", "2.name": "8.0", "3.steps": "9.0"}])  # pandas writes floats then
    assert inputs(gaps, 0, "2")["seed"] == 7 and inputs(gaps, 0, "2")["name"] == "8.0"
    assert inputs(gaps, 0, "3")["steps"] == 9


def test_settings_hold_for_every_row():
    batch = Batch(workflow(), settings={"2.steps": "12"}, varied={"2.seed": [1, 2]})
    assert [inputs(batch, k, "2")["steps"] for k in (0, 1)] == [12, 12]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"7.text": "x"}, "no node has the id or title '7'"),
        ({"2.stps": "3"}, "KSampler has no such input. Did you mean 'steps'? It has: seed, steps"),
        ({"1.txt": "3"}, "UnclipTextEncode has no such input"),
        ({"2.seed": "many"}, "it takes a whole number, not 'many'"),
        ({"3.steps": "many"}, "takes a whole number, not 'many'"),
        ({"2.cfg": "high"}, "it takes JSON, not 'high'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_queued(values, said):
    with pytest.raises(ValueError, match="Cannot set") as caught:
        Batch(workflow(), table=[values])
    assert said in str(caught.value)


def test_the_digest_tells_batches_apart():
    same = {Batch(workflow(), varied={"2.steps": [1, 2]}).digest for _ in range(2)}
    assert len(same) == 1
    assert Batch(workflow(), varied={"2.steps": [1, 3]}).digest not in same


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("2.seed=1..4", [1, 2, 3, 4]),
        ("2.seed=3..1", [3, 2, 1]),
        ("2.seed=-1..1", [-1, 0, 1]),
        ("1.text=a red circle, a star", ["a red circle", "a star"]),
        ('1.text="one, two",three', ["one, two", "three"]),
        ('1.text=["a, b", "c"]', ["a, b", "c"]),
        ("2.cfg=[1.5, 2]", [1.5, 2]),
    ],
)
def test_what_varies_is_a_range_a_list_or_json(text, values):
    assert read_varied(text) == (text.partition("=")[0], values)


@pytest.mark.parametrize("text", ["2.seed", "seed=1..4", "2.seed=", "2.seed=[]", "2.seed=[1", "2.seed=1..99999999"])
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match="--vary"):
        read_varied(text)


def a_file(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "rows.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_a_table_is_read_with_its_quotes_and_its_mark_of_bytes(tmp_path):
    path = a_file(tmp_path, 'name,1.text\r\nfirst,"a, ""b""\nc"\r\n\r\nsecond,d\r\n', "utf-8-sig")
    assert read_table(path) == [{"name": "first", "1.text": 'a, "b"\nc'}, {"name": "second", "1.text": "d"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        ("1.text\n", "no rows"),
        ("text\na\n", "neither NODE.INPUT nor name"),
        ("1.text,1.text\na,b\n", "twice"),
        ("1.text,2.seed\na,1\nb\n", "line 3: it has 1 cells, the first line 2"),
        ('1.text\n"a\n', "no CSV"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, text, said):
    with pytest.raises(ValueError) as caught:
        read_table(a_file(tmp_path, text))
    assert said in str(caught.value)


def test_lines_and_columns_that_a_spreadsheet_leaves_over_are_skipped_and_counted(tmp_path, caplog):
    text = "1.text,2.seed,,\r\na,1,,\r\n,,,\r\n \t, ,,\r\n\r\nb,2,,\r\n,,,\r\n"
    assert read_table(a_file(tmp_path, text, "utf-8-sig")) == [
        {"1.text": "a", "2.seed": "1"}, {"1.text": "b", "2.seed": "2"},
    ]  # fmt: skip
    assert "4 lines without any value are skipped (3, 4, 5, 7)" in caplog.text
    caplog.clear()
    read_table(a_file(tmp_path, "1.text\na\n"))
    assert not caplog.text
    with pytest.raises(ValueError, match="line 2: it has a value in a column without a name"):
        read_table(a_file(tmp_path, "1.text,\na,b\n"))


def test_more_rows_than_can_be_laid_out_are_refused_at_once():
    with pytest.raises(ValueError, match="makes 1,000,000,000,000 rows; at most 1,000,000"):
        Batch(workflow(), varied={"2.steps": range(10**6), "2.seed": range(10**6)})


@pytest.mark.parametrize("text", ["2.cfg=" + "[" * 100_000, "2.cfg=[" + "9" * 5000 + "]", "2.seed=1.." + "9" * 5000])
def test_values_beyond_all_bounds_are_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match="--vary") as caught:
        read_varied(text)
    assert len(str(caught.value)) < 400


def test_a_cell_beyond_all_bounds_is_refused_in_a_sentence():
    for target, value in (("2.cfg", "[" * 100_000), ("2.seed", "9" * 5000), ("2.flag", "9" * 5000)):
        with pytest.raises(ValueError, match=f"Cannot set {target}") as caught:
            Batch(workflow(), table=[{target: value}])
        assert len(str(caught.value)) < 400
