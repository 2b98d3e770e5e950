"""What `unclip map` refuses before Ray starts, what it says at the end, and that a task reads what it is told."""

import json

import pytest

pytest.importorskip("pyarrow", reason="unclip map needs the extra [ray], which is not installed")

from unclip.__main__ import main
from unclip.cli import map as command
from unclip.cli.mapping import job as mapping
from unclip.cli.mapping.rows import Row
from unclip.cli.mapping.tasks import TASKS, Setup, make_task
from unclip.unclip_core import pipelines
from unclip.unclip_core.families.loading import SHAPES

NODES = {"1": {"class_type": "Look", "inputs": {"seed": 1}}}
GIVEN = {
    "model": ["--model", "bundled (shapes)"], "dtype": ["--dtype", "fp16"], "candidates": ["--candidates", "2"],
    "count": ["--count", "2"], "seed": ["--seed", "1"], "images": ["--images", "files"],
}  # fmt: skip
READ = {
    "text-to-image": set(GIVEN),
    "variations": {"model", "dtype", "count", "seed", "images"},
    "embed": {"model", "dtype"},
    "describe": {"model", "dtype"},
    "workflow.json": {"count", "seed", "images"},
}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The jobs that would have been run, in a folder with a workflow."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workflow.json").write_text(json.dumps(NODES))
    found = []
    monkeypatch.setattr(mapping, "run", lambda job, tell: found.append(job) or mapping.Counts(total=1, before=1))
    return found


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("task", READ)
def test_an_option_that_a_task_does_not_read_is_refused(runs, capsys, task, name):
    code = main(["map", task, "--data", "t.csv", "--output", "out", *GIVEN[name]])
    is_read = name in READ[task]
    assert (code, len(runs)) == ((0, 1) if is_read else (1, 0))
    assert (f"'{task}' does not read --{name} (" in capsys.readouterr().err) != is_read


def test_all_of_them_are_named_with_what_to_do(runs, capsys):
    options = [*GIVEN["model"], *GIVEN["dtype"], *GIVEN["candidates"]]
    assert main(["map", "workflow.json", "--data", "t.csv", "--output", "out", *options]) == 1
    said = capsys.readouterr().err
    assert all(f"--{name}" in said for name in ("model", "dtype", "candidates"))
    assert "leave them out, and set what is meant in the workflow or in a column NODE.INPUT" in said


@pytest.mark.parametrize("task", READ)
def test_options_at_their_defaults_are_no_error(runs, task):
    defaults = ["--candidates", "1", "--count", "1", "--seed", "0", "--images", "table"]
    assert main(["map", task, "--data", "t.csv", "--output", "out", *defaults]) == 0
    assert runs[0].setup.candidates == 1 and runs[0].count == 1


def test_every_task_says_what_it_does_not_read():
    assert set(command.UNREAD) == set(TASKS)


def test_rows_that_are_no_longer_in_the_table_are_said_at_the_end(runs, monkeypatch, capsys):
    monkeypatch.setattr(mapping, "run", lambda job, tell: mapping.Counts(total=2, before=1, made=1, gone=3))
    assert main(["map", "text-to-image", "--data", "t.csv", "--output", "out", "--json"]) == 0
    told = capsys.readouterr()
    assert "3 rows of the output are no longer in the table" in told.err
    assert json.loads(told.out)["gone"] == 3


def test_all_candidates_that_are_asked_for_are_decoded(monkeypatch):
    """Not the two that are by default: who asks for three has CLIP choose among three images."""
    drawings, draw = [], pipelines.text_to_image
    monkeypatch.setattr(pipelines, "text_to_image", lambda *given: drawings.append(draw(*given)) or drawings[-1])
    task = make_task(Setup("text-to-image", model=SHAPES, candidates=3))
    (result,) = task([Row("0", 5, {"prompt": "a red circle"})])
    assert result.error is None and len(drawings[0].embeds) == 3
