"""`run_workflow` never raises for what it is given: odd values, odd bodies, a listener that fails, Ctrl-C."""

import json
import struct
import zlib

import pytest
from PIL import Image

from unclip.__main__ import main
from unclip.cli.headless import run_workflow
from unclip.cli.headless.stock import STOCK_NODES

DEEP = 100_000


def nested():
    value = []
    for _ in range(DEEP):
        value = [value]
    return value


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def loading(name):
    return {"1": node("LoadImage", image=name), "2": node("PreviewImage", images=["1", 0])}


def solid(**changed):
    mask = node("SolidMask", **{"value": 1.0, "width": 8, "height": 8, **changed})
    return {"1": mask, "2": node("PreviewAny", source=["1", 0])}


def saving(prefix, folder):
    Image.new("RGB", (4, 4)).save(folder / "in.png")
    return {"1": node("LoadImage", image="in.png"), "2": node("SaveImage", images=["1", 0], filename_prefix=prefix)}


def go(workflow, folder, **more):
    report = run_workflow(workflow, output_dir=folder / "out", input_dirs=(folder,), **more)
    json.dumps(report.as_dict())
    return report


def only_problem(report, status="invalid"):
    assert report.status == status and len(report.errors) == 1 and report.errors[0].traceback is None, report.errors
    assert len(str(report.errors[0])) < 500
    return report.errors[0]


@pytest.mark.parametrize(
    ("workflow", "name", "words"),
    [
        (loading(None), "image", "one of its choices, not None"),
        (loading({}), "image", "one of its choices"),
        (loading("x" * 300 + ".png"), "image", "there is no image xxx"),
        (loading("a\0b.png"), "image", "there is no image"),
        (loading("a\ud800b.png"), "image", "there is no image"),
        (loading("[output]"), "image", "there is no image"),
        (solid(value=10**400), "value", "takes a finite number, not 1000"),
        (solid(value="9" * 400), "value", "takes a finite number"),
        (solid(width=10**400), "width", "at most 64 bits"),
        (solid(width=10**5000), "width", "digits"),
        (solid(width="9" * 5000), "width", "takes a whole number"),
        (solid(width=float("inf")), "width", "takes a whole number"),
        (solid(width=nested()), "width", "nested too deep"),
        (solid(width=b"8"), "width", "not JSON"),
        (solid(width=["1" * 300, 0]), "width", "is linked to node 111"),
        (solid(width=[10**30, 10**30, {}]), "width", "is no link"),
    ],
)  # fmt: skip
def test_a_value_that_no_node_can_take_is_named_with_its_input(tmp_path, workflow, name, words):
    problem = only_problem(go(workflow, tmp_path))
    assert (problem.node, problem.input) == ("1", name) and words in problem.message


@pytest.mark.parametrize(
    ("prefix", "words"),
    [("x" * 300, "300 bytes"), ("日" * 100, "300 bytes"), ("a\0b", "NUL"), ("a\ud800", "half a character")],
)
def test_a_prefix_that_no_file_can_have_is_named_before_the_run(tmp_path, prefix, words):
    problem = only_problem(go(saving(prefix, tmp_path), tmp_path))
    assert (problem.node, problem.input) == ("2", "filename_prefix") and words in problem.message


def test_a_long_prefix_that_a_file_can_have_is_taken(tmp_path):
    report = go(saving("x" * 225, tmp_path), tmp_path)
    assert [saved.path.is_file() for saved in report.outputs] == [True], report.errors


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ([1], "object"),
        (5, "object"),
        ("text", "object"),
        ({"extra_pnginfo": [1]}, "extra_pnginfo"),
        ({"extra_pnginfo": {"": 1}}, "PNG"),
        ({"extra_pnginfo": {"日本": 1}}, "PNG"),
        ({"extra_pnginfo": {"x" * 80: 1}}, "PNG"),
        ({"extra_pnginfo": {"note": {1, 2}}}, "JSON"),
    ],
)
def test_extra_data_of_another_form_is_named(tmp_path, extra, words):
    problem = only_problem(go({"prompt": solid(), "extra_data": extra}, tmp_path))
    assert problem.kind == "bad_extra_data" and words in problem.message


@pytest.mark.parametrize("extra", [None, {}, {"client_id": "x", "extra_pnginfo": None}, {"extra_pnginfo": {"é": 1}}])
def test_extra_data_of_the_usual_form_is_taken(tmp_path, extra):
    assert go({"prompt": solid(), "extra_data": extra}, tmp_path).status == "ok"


def png_of(width, height):
    """A PNG file that says it is of that size, and holds a hundred bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("data", [png_of(60_000, 60_000), png_of(40, 40), b"text", b"", b"GIF89a" + bytes(40)])
def test_a_picture_that_a_decoder_chokes_on_is_named(tmp_path, data):
    (tmp_path / "odd.png").write_bytes(data)
    problem = only_problem(go(loading("odd.png"), tmp_path), "failed")
    assert problem.node == "1" and "odd.png cannot be read as an image" in problem.message


def test_a_listener_that_fails_costs_no_result(tmp_path):
    calls = []

    def listen(event):
        calls.append(event)
        raise RuntimeError("not listening")

    report = go(solid(), tmp_path, on_event=listen)
    assert report.status == "ok" and len(report.nodes) == 2 and len(calls) == 1
    assert len(report.notes) == 1 and "not listening" in report.notes[0]


@pytest.mark.parametrize("kind", ["start", "done"])
def test_ctrl_c_in_the_listener_ends_the_run(tmp_path, kind):
    def listen(event):
        if event.kind == kind:
            raise KeyboardInterrupt

    report = go(solid(), tmp_path, on_event=listen)
    assert (report.status, report.exit_code, report.errors[0].node) == ("interrupted", 130, "1")


class Checking:
    """A node whose own check fails as the test asks for."""

    error: BaseException = KeyError("oops")

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {})}}

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "go", True

    @classmethod
    def VALIDATE_INPUTS(cls, value):
        raise cls.error

    def go(self, value):
        return ()


def test_a_check_that_fails_is_the_inputs_problem_and_ctrl_c_ends_it(tmp_path, monkeypatch):
    classes = {**STOCK_NODES, "Checking": Checking}
    (problem,) = go({"1": node("Checking", value=1)}, tmp_path, classes=classes).errors
    assert (problem.kind, problem.node, problem.input) == ("refused", "1", "value") and "KeyError" in problem.traceback
    monkeypatch.setattr(Checking, "error", KeyboardInterrupt())
    report = go({"1": node("Checking", value=1)}, tmp_path, classes=classes)
    assert (report.status, report.exit_code) == ("interrupted", 130)


@pytest.mark.parametrize(
    "workflow",
    [
        {"1": {"class_type": "x" * 3_000_000}},
        {"1": {"class_type": "SolidMask", "inputs": {}, "_meta": {"title": nested()}}},
        {"1": {"class_type": "PreviewAny", "inputs": {"y" * 3_000_000: 1}}},
        {1: solid()["1"], "2": solid()["2"]},
        {"1": {"class_type": "PreviewAny", "inputs": {1: 2}}},
        {"\ud800": {"class_type": "PreviewAny", "inputs": {"\udfff": 1}}},
        {str(i): node("PreviewAny", source=[str(i), 0]) for i in range(3000)},
    ],
)
def test_odd_graphs_are_answered_in_time(tmp_path, workflow):
    assert go(workflow, tmp_path).status in ("ok", "invalid")


@pytest.mark.parametrize("value", ["9" * 5000, "[" * DEEP, "\udcff", 10**5000, b"x", None], ids=range(6))
def test_odd_overrides_are_problems(tmp_path, value):
    for target in ("1.width", "2.source", "1.nothing", "nobody.width", "", "."):
        report = run_workflow(solid(), {target: value}, tmp_path)
        assert report.status == "invalid" and all(len(str(problem)) < 700 for problem in report.errors)


def test_half_a_character_typed_into_a_note_of_the_canvas_costs_no_workflow(tmp_path):
    """The canvas' workflow goes into the image as before, and so it does under extra_data."""
    drawn = {"nodes": [{"id": 9, "type": "MarkdownNote", "widgets_values": ["a\ud800b"]}], "links": []}
    body = {"prompt": solid(), "extra_data": {"extra_pnginfo": {"workflow": drawn}}}
    assert go(body, tmp_path).status == "ok"


@pytest.mark.parametrize("text", ["[" * DEEP, '{"1": ' + "9" * 5000 + "}", '{"1": 1'], ids=range(3))
def test_a_file_that_is_no_usable_json_is_one_sentence(tmp_path, capsys, text):
    (tmp_path / "flow.json").write_text(text)
    assert main(["run", str(tmp_path / "flow.json")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_workflow_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "flow.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(solid()).encode())
    (tmp_path / "flow.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"nodes": [], "links": []}).encode())
    assert main(["run", str(tmp_path / "api" / "flow.json"), "--output", str(tmp_path / "out")]) == 0


def test_a_name_that_no_file_can_have_is_no_workflow(tmp_path, capsys):
    for name in ("x" * 300, "a\0b"):
        assert main(["run", str(tmp_path / name)]) == 2
        assert "cannot be read" in capsys.readouterr().err
