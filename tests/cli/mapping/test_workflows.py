"""Workflows as tasks of `unclip map`: the one image of a row, and the workflow that a run was begun with."""

import json

import pytest

pytest.importorskip("pyarrow", reason="unclip map needs the extra [ray], which is not installed")

from unclip.cli.headless import run
from unclip.cli.headless.report import Report, SavedImage, ShownText
from unclip.cli.mapping.job import Job
from unclip.cli.mapping.results import Output, Result
from unclip.cli.mapping.rows import Row
from unclip.cli.mapping.tasks import Setup, make_task, run_batch, workflow_digest

NODES = {"1": {"class_type": "Look", "inputs": {"steps": 4}}}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(NODES))
    return path


def result_of(file, monkeypatch, *names, texts=()):
    """What becomes of a row whose workflow writes files of these names, each holding its own name."""

    def saves(workflow, values, folder, **_):
        report = Report(texts=[ShownText("9", "Preview", text) for text in texts])
        for number, name in enumerate(names):
            path = file.parent / name
            path.write_text(name)
            report.outputs.append(SavedImage(str(number), f"Save {number}", path))
        return report

    monkeypatch.setattr(run, "run_workflow", saves)
    (result,) = run_batch(make_task(Setup(str(file))), [Row("a", 1, {})])
    return result


def test_the_image_is_kept_whatever_is_saved_before_it(file, monkeypatch):
    result = result_of(file, monkeypatch, "e.safetensors", "x.png")
    assert (result.image, result.ending, result.error) == (b"x.png", "png", None)


def test_a_row_of_several_images_fails_and_says_what_to_set(file, monkeypatch):
    result = result_of(file, monkeypatch, "a.png", "e.safetensors", "b.png", "c.png", "d.png")
    assert result.image is None
    assert result.error.startswith(
        "it saved 4 images, by Save 0 (0), Save 2 (2), Save 3 (3), Save 4 (4); a row holds one"
    )
    assert "batch_size" in result.error


def test_a_row_that_saves_other_files_alone_fails(file, monkeypatch):
    result = result_of(file, monkeypatch, "e.safetensors")
    assert result.image is None and "it saved no image, but e.safetensors" in result.error


def test_a_row_that_shows_text_alone_is_made(file, monkeypatch):
    result = result_of(file, monkeypatch, texts=["a red circle"])
    assert (result.text, result.image, result.error) == ("a red circle", None, None)


def description(file, **setup):
    return Job(Setup(str(file), **setup), "t.csv", Output("out")).with_digest().description


def test_an_edited_workflow_is_another_run_and_a_moved_node_is_not(file, tmp_path):
    before, folder = description(file), Output(str(tmp_path / "out")).open()
    folder.begin(before)
    folder.write([Result("a", 1, {})])
    laid_out = {"prompt": NODES, "extra_data": {"extra_pnginfo": {"workflow": {"nodes": [{"pos": [1, 2]}]}}}}
    file.write_text(json.dumps(laid_out, indent=4))
    folder.begin(description(file))
    file.write_text(json.dumps({"1": {"class_type": "Look", "inputs": {"steps": 5}}}))
    with pytest.raises(ValueError, match="differs in workflow"):
        folder.begin(description(file))


def test_another_dtype_is_another_run():
    def dtype(**setup):
        return Job(Setup("text-to-image", **setup), "t.csv", Output("out")).description["dtype"]

    assert dtype() == dtype(dtype="fp32") == "fp32", "which is what a CPU's auto is"
    assert dtype(device="cuda") == "auto" and dtype(dtype="bf16") == "bf16"


def test_a_folder_from_before_there_were_these_keys_is_taken_up_and_says_them_from_then_on(file, tmp_path):
    folder = Output(str(tmp_path / "out")).open()
    folder.begin({name: value for name, value in description(file).items() if name not in ("dtype", "workflow")})
    folder.write([Result("a", 1, {})])
    folder.begin(description(file))
    with pytest.raises(ValueError, match="differs in dtype"):
        folder.begin(description(file, dtype="bf16"))
    assert json.loads((tmp_path / "out/run.json").read_text()) == description(file)


def test_a_worker_that_starts_after_the_workflow_was_edited_refuses(file):
    setup = Setup(str(file), workflow=workflow_digest(NODES))
    make_task(setup)
    file.write_text(json.dumps({"1": {"class_type": "Look", "inputs": {"steps": 5}}}))
    with pytest.raises(ValueError, match="not the workflow that this run was begun with"):
        make_task(setup)
