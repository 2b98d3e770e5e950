"""Damaged workflows, request bodies and canvas files: `run_workflow` answers each with a report, in time."""

import json

from fuzz.mutations import ODD_TEXTS, ODD_VALUES, damaged, damaged_json, fuzzed, survives
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unclip.__main__ import main
from unclip.cli.headless import run_workflow

PROMPT = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}, "_meta": {"title": "Load"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a/b"}, "_meta": {}},
    "3": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 8, "height": 8}},
    "4": {
        "class_type": "MaskComposite",
        "inputs": {"destination": ["3", 0], "source": ["1", 1], "x": 0, "y": 0, "operation": "add"},
    },
    "5": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
}
BODY = {
    "prompt": PROMPT,
    "client_id": "x",
    "extra_data": {"extra_pnginfo": {"workflow": {"nodes": [], "links": []}, "note": [1, "two"]}, "client_id": "x"},
}
CANVAS = {
    "nodes": [
        {"id": 1, "type": "LoadImage", "widgets_values": ["in.png", "image"], "inputs": []},
        {"id": 2, "type": "SaveImage", "widgets_values": ["a/b"], "inputs": [{"name": "images"}]},
        {"id": 9, "type": "Note", "widgets_values": ["words"]},
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
}


def report_of(workflow, folder, overrides=None, canvas=None):
    Image.new("RGB", (4, 4)).save(folder / "in.png")
    report = run_workflow(workflow, overrides, folder / "out", input_dirs=(folder,), canvas=canvas)
    assert report.status != "interrupted" and json.dumps(report.as_dict())
    assert (report.status == "ok") == (not report.errors)
    assert not [problem.traceback for problem in report.errors if problem.traceback]
    return report


def test_the_good_ones_run(tmp_path):
    two = {key: PROMPT[key] for key in ("1", "2")}
    for workflow, canvas in ((PROMPT, None), (BODY, None), (two, CANVAS)):
        report = report_of(workflow, tmp_path, canvas=canvas)
        assert (report.status, report.notes) == ("ok", [])


@fuzzed
@given(workflow=damaged(PROMPT))
def test_damaged_workflows(tmp_path_factory, workflow):
    survives(lambda: report_of(workflow, tmp_path_factory.mktemp("run")))


@fuzzed
@given(body=damaged(BODY))
def test_damaged_bodies(tmp_path_factory, body):
    survives(lambda: report_of(body, tmp_path_factory.mktemp("run")))


@fuzzed
@given(extra=damaged(BODY["extra_data"]))
def test_damaged_extra_data(tmp_path_factory, extra):
    survives(lambda: report_of({**BODY, "extra_data": extra}, tmp_path_factory.mktemp("run")))


@fuzzed
@given(canvas=damaged(CANVAS))
def test_damaged_canvas_files_cost_the_twin_and_no_more(tmp_path_factory, canvas):
    two = {key: PROMPT[key] for key in ("1", "2")}
    report = survives(lambda: report_of(two, tmp_path_factory.mktemp("run"), canvas=canvas))
    assert report.status == "ok"


@fuzzed
@given(
    target=st.sampled_from(
        ["1.image", "2.filename_prefix", "3.width", "3.value", "4.operation", "4.source", "9.x", ""]
    ),
    value=st.one_of(st.sampled_from(ODD_VALUES), st.sampled_from(ODD_TEXTS), st.text(max_size=20)),
)
def test_odd_overrides(tmp_path_factory, target, value):
    survives(lambda: report_of(PROMPT, tmp_path_factory.mktemp("run"), {target: value}))


@fuzzed
@given(data=damaged_json(BODY))
def test_damaged_files(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("run")
    (folder / "flow.json").write_bytes(data)
    code = survives(lambda: main(["run", str(folder / "flow.json"), "--output", str(folder / "out")]))
    assert code in (0, 1, 2)
