"""The headless runner: graphs of fake nodes whose results are known in closed form."""

import errno
import json
import os
import re

import pytest
import torch
from PIL import Image

from unclip.__main__ import main
from unclip.cli import run as command
from unclip.cli.headless import run, run_workflow
from unclip.cli.headless.load_image import read_image
from unclip.cli.headless.stock import STOCK_NODES
from unclip.nodes import image_files as images

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _fresh_calls():
    CALLS.clear()


class Number:
    """An image of one grey value, or fails in a way that the test asks for."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "value": ("INT", {"default": 0, "min": 0, "max": 255}),
                "scale": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0}),
                "mode": (["plain", "raise", "bug", "interrupt"],),
            },
            "optional": {"label": ("STRING", {"default": ""}), "flag": ("BOOLEAN", {"default": False})},
        }

    RETURN_TYPES = ("IMAGE", "NUMBER")
    FUNCTION = "go"

    def go(self, value=0, scale=1.0, mode="plain", label="", flag=False):
        CALLS.append(f"number {value} {scale} {label} {flag}")
        errors = {
            "raise": ValueError("no such grey."),
            "bug": KeyError("oops"),
            "interrupt": KeyboardInterrupt(),
        }
        if mode in errors:
            raise errors[mode]
        return torch.full((1, 2, 3, 3), value * scale / 255.0), value


class Join:
    """Two images as a batch."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("IMAGE",), "b": ("IMAGE,NUMBER",)}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "go"

    def go(self, a, b):
        CALLS.append("join")
        assert torch.is_inference_mode_enabled()
        return {"ui": {"warnings": ["joined"]}, "result": (torch.cat([a, b]),)}


class Even:
    """Refuses odd numbers by VALIDATE_INPUTS, which then answers for the range as well."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {"min": 0, "max": 10})}}

    @classmethod
    def VALIDATE_INPUTS(cls, value):
        return True if value % 2 == 0 else f"{value} is odd."

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "go"

    def go(self, value):
        return (torch.full((1, 2, 2, 3), value / 255.0),)


CLASSES = {**STOCK_NODES, "Number": Number, "Join": Join, "Even": Even}


def node(kind, title=None, **inputs):
    return {"class_type": kind, "inputs": inputs} | ({"_meta": {"title": title}} if title else {})


def number(value=0, title=None, **more):
    return node("Number", title, **{"value": value, "scale": 1.0, "mode": "plain", **more})


def two_images():
    return {
        "9": node("SaveImage", "Save", images=["3", 0], filename_prefix="pair"),
        "3": node("Join", a=["1", 0], b=["2", 0]),
        "1": number(10, "First"),
        "2": number(200, "Second"),
        "7": number(3, "Unused"),
    }


def go(workflow, folder, overrides=None, **more):
    return run_workflow(workflow, overrides, folder, classes=CLASSES, **more)


def kinds(report):
    return [(problem.kind, problem.node, problem.input) for problem in report.errors]


def greys(report):
    return [Image.open(saved.path).getpixel((0, 0))[0] for saved in report.outputs]


def test_runs_what_the_outputs_need_in_order_and_writes_the_images(tmp_path):
    events = []
    report = go(two_images(), tmp_path / "new" / "folder", on_event=events.append)
    assert (report.status, report.exit_code, report.errors) == ("ok", 0, [])
    assert CALLS[-1] == "join" and sorted(CALLS[:-1]) == ["number 10 1.0  False", "number 200 1.0  False"]
    assert [saved.path.name for saved in report.outputs] == ["pair_00001_.png", "pair_00002_.png"]
    assert greys(report) == [10, 200]
    assert Image.open(report.outputs[0].path).size == (3, 2)
    assert [(run.node, run.cached) for run in report.nodes][-2:] == [("3", False), ("9", False)]
    assert [event.kind for event in events] == ["start", "done"] * 4
    assert {(event.number, event.total) for event in events} == {(n, 4) for n in (1, 2, 3, 4)}
    assert [str(warning) for warning in report.warnings] == ["node 3 (Join): joined"]


def test_equal_subgraphs_run_once_and_every_output_writes(tmp_path):
    workflow = {
        "1": number(5),
        "2": number(5),
        "3": number(6),
        "4": node("Join", a=["1", 0], b=["3", 0]),
        "5": node("Join", a=["2", 0], b=["3", 0]),
        "6": node("Join", a=["3", 0], b=["2", 0]),
        "7": node("SaveImage", images=["4", 0], filename_prefix="same"),
        "8": node("SaveImage", images=["5", 0], filename_prefix="same"),
        "9": node("SaveImage", images=["6", 0], filename_prefix="same"),
    }
    report = go(workflow, tmp_path)
    assert report.status == "ok"
    assert CALLS.count("join") == 2 and len(CALLS) == 4
    assert [run.node for run in report.nodes if run.cached] == ["2", "5"]
    written = {saved.node: [] for saved in report.outputs}
    for saved, grey in zip(report.outputs, greys(report), strict=True):
        written[saved.node].append(grey)
    assert written == {"7": [5, 6], "8": [5, 6], "9": [6, 5]}


@pytest.mark.parametrize(
    ("target", "value", "called"),
    [
        ("1.value", "77", "number 77 1.0  False"),
        ("First.value", 77, "number 77 1.0  False"),
        ("First.scale", "0.5", "number 10 0.5  False"),
        ("First.label", "1e3", "number 10 1.0 1e3 False"),
        ("First.label", 12, "number 10 1.0 12 False"),
        ("First.flag", "true", "number 10 1.0  True"),
        ("First.flag", "False", "number 10 1.0  False"),
        ("First.value", 7.0, "number 7 1.0  False"),
    ],
)
def test_overrides_by_id_or_title_take_the_type_of_the_input(tmp_path, target, value, called):
    assert go(two_images(), tmp_path, {target: value}).status == "ok"
    assert called in CALLS


def test_an_override_can_rewire_a_link(tmp_path):
    report = go(two_images(), tmp_path, {"Join.b": '["1", 0]'})
    assert greys(report) == [10, 10]


def test_a_title_with_a_dot_and_a_value_with_an_equals_sign(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "node_classes", lambda: CLASSES)
    file = tmp_path / "flow.json"
    file.write_text(json.dumps({"1": number(1, "a.b"), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}))
    assert main(["run", str(file), "--set", "a.b.label=p=q", "--output", str(tmp_path)]) == 0
    assert CALLS == ["number 1 1.0 p=q False"]


def test_everything_wrong_is_listed_at_once_and_nothing_runs(tmp_path):
    workflow = {
        "1": number(300, "Too big"),
        "2": number("many", scale=float("nan"), mode="fancy", label=None, flag="maybe"),
        "3": node("Number", value=True, scale=2, mode=["1", 0]),
        "4": node("Jion", a=["1", 0]),
        "5": node("Join", "Five", a=["1", 1], b=["99", 0], c=1),
        "6": node("Join", a=["1", 5], b=["1"]),
        "7": node("Join", a="image", b=["5", 0]),
        "8": node("Join", a=["2", 0], b=["3", 0]),
        "9": node("SaveImage", images=["5", 0], filename_prefix="../out"),
        "10": node("SaveImage", images=["6", 0], filename_prefix="x"),
        "11": node("SaveImage", images=["7", 0], filename_prefix="x"),
        "12": node("SaveImage", images=["8", 0], filename_prefix="x"),
        "13": node("Even", value=3),
        "14": node("SaveImage", images=["13", 0], filename_prefix="x"),
        "15": node("Number"),
        "16": node("PreviewImage", images=["15", 0]),
        "17": node("LoadImage", image="nowhere.png", upload="image"),
        "18": node("PreviewImage", images=["17", 0]),
    }
    overrides = {"Nobody.value": 1, "Join.a": 1, "1.brightness": 2}
    report = go(workflow, tmp_path / "out", overrides)
    expected = {
        ("unknown_node", None, None),
        ("ambiguous_node", None, None),
        ("unknown_input", "1", "brightness"),
        ("out_of_range", "1", "value"),
        ("wrong_type", "2", "value"),
        ("wrong_type", "2", "scale"),
        ("out_of_range", "2", "mode"),
        ("wrong_type", "2", "label"),
        ("wrong_type", "2", "flag"),
        ("wrong_type", "3", "value"),
        ("out_of_range", "3", "scale"),
        ("wrong_type", "3", "mode"),
        ("unknown_class", "4", None),
        ("wrong_type", "5", "a"),
        ("bad_link", "5", "b"),
        ("unknown_input", "5", "c"),
        ("bad_link", "6", "a"),
        ("bad_link", "6", "b"),
        ("wrong_type", "7", "a"),
        ("refused", "9", "filename_prefix"),
        ("refused", "13", "value"),
        ("missing_input", "15", "value"),
        ("missing_input", "15", "scale"),
        ("missing_input", "15", "mode"),
        ("refused", "17", "image"),
    }
    assert sorted(map(str, kinds(report))) == sorted(map(str, expected))
    assert (report.status, report.exit_code) == ("invalid", 2)
    assert CALLS == [] and not (tmp_path / "out").exists()
    text = "\n".join(map(str, report.errors))
    assert "node 1 (Too big), value: 300 lies outside 0 to 255." in text
    assert "Did you mean Join?" in text
    assert "node 5 (Five), b: is linked to node 99" in text


def test_a_class_that_checks_an_input_itself_answers_for_its_range(tmp_path):
    workflow = {"1": node("Even", value=12), "2": node("SaveImage", images=["1", 0], filename_prefix="x")}
    assert go(workflow, tmp_path).status == "ok"


def test_a_cycle_is_named(tmp_path):
    workflow = two_images()
    workflow["3"]["inputs"]["b"] = ["4", 0]
    workflow["4"] = node("Join", "Back", a=["3", 0], b=["2", 0])
    report = go(workflow, tmp_path)
    assert [problem.kind for problem in report.errors] == ["cycle"]
    assert re.search(r"3 \(Join\).*4 \(Back\)|4 \(Back\).*3 \(Join\)", report.errors[0].message)


def test_what_no_output_needs_may_be_unfinished(tmp_path):
    workflow = {**two_images(), "8": node("Join", a=["1", 0])}
    assert go(workflow, tmp_path).status == "ok"


@pytest.mark.parametrize(
    ("workflow", "kind"),
    [
        ([], "not_a_workflow"),
        ({}, "empty"),
        ({"nodes": [], "links": []}, "ui_format"),
        ({"1": {"inputs": {}}}, "no_class"),
        ({"1": {"class_type": "Number", "inputs": []}}, "bad_inputs"),
        ({"1": number(1)}, "no_output"),
    ],
)
def test_a_file_that_is_no_workflow(tmp_path, workflow, kind):
    report = go(workflow, tmp_path)
    assert kind in [problem.kind for problem in report.errors] and report.exit_code == 2


@pytest.mark.parametrize(
    ("mode", "status", "code", "message", "traced"),
    [
        ("raise", "failed", 1, "node 2 (Second): no such grey.", False),
        ("bug", "failed", 1, "node 2 (Second): KeyError: 'oops'", True),
        ("interrupt", "interrupted", 130, "node 2 (Second): interrupted.", False),
    ],
)
def test_an_error_on_the_way_stops_the_run(tmp_path, mode, status, code, message, traced):
    report = go(two_images(), tmp_path, {"2.mode": mode})
    assert (report.status, report.exit_code, str(report.errors[0])) == (status, code, message)
    assert bool(report.errors[0].traceback) is traced
    assert report.outputs == [] and list(tmp_path.iterdir()) == []


def test_an_output_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    report = go(two_images(), tmp_path / "file")
    assert report.exit_code == 1 and CALLS == []


def test_images_carry_the_prompt_as_it_was_run(tmp_path):
    workflow = two_images()
    saved = go({"prompt": workflow, "extra_data": {"extra_pnginfo": {"note": [1]}}}, tmp_path, {"First.value": "20"})
    text = Image.open(saved.outputs[1].path).text
    prompt = json.loads(text["prompt"])
    assert prompt["1"] == {**workflow["1"], "inputs": {**workflow["1"]["inputs"], "value": 20}}
    assert prompt["3"]["inputs"] == {"a": ["1", 0], "b": ["2", 0]}
    assert json.loads(text["note"]) == [1]
    again = go(prompt, tmp_path)
    assert greys(again) == greys(saved)


def test_numbers_go_on_and_nothing_is_overwritten(tmp_path):
    for name in ("pair_00007_.png", "pair_00002_.png", "pair_x.png", "pairs_00099_.png"):
        (tmp_path / name).write_text("mine")
    report = go(two_images(), tmp_path)
    assert [saved.path.name for saved in report.outputs] == ["pair_00008_.png", "pair_00009_.png"]
    assert (tmp_path / "pair_00007_.png").read_text() == "mine"


def test_a_name_taken_meanwhile_is_passed_over(tmp_path):
    (tmp_path / "a_00001_.png").write_text("mine")
    path, taken = images.write_numbered(b"data", tmp_path, "a", 1)
    assert (path.name, taken, path.read_bytes()) == ("a_00002_.png", 2, b"data")
    assert (tmp_path / "a_00001_.png").read_text() == "mine"


def test_prefixes_with_folders_and_variables(tmp_path):
    report = go(two_images(), tmp_path, {"9.filename_prefix": "set/%width%x%height%_%batch_num%"})
    names = [saved.path.relative_to(tmp_path).as_posix() for saved in report.outputs]
    assert names == ["set/3x2_0_00001_.png", "set/3x2_1_00002_.png"]
    assert all(saved.path.is_file() for saved in report.outputs)


@pytest.mark.parametrize("prefix", ["", ".", "..", "a/../../b", "/etc/x"])
def test_prefixes_that_leave_the_folder_are_refused_before_the_run(tmp_path, prefix):
    report = go(two_images(), tmp_path / "out", {"9.filename_prefix": prefix})
    assert kinds(report) == [("refused", "9", "filename_prefix")] and CALLS == []


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, broken):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, full)
    report = go(two_images(), tmp_path)
    assert report.exit_code == 1 and "the disk is full" in str(report.errors[0])
    assert list(tmp_path.iterdir()) == []


def test_pixels_are_those_of_comfyuis_own_saving(tmp_path):
    values = torch.tensor([-1.0, 0.0, 0.1, 0.5, 0.999, 1.0, 2.0, 254.9999 / 255])
    image = values[None, :, None].expand(1, 8, 3)
    (tmp_path / "p.png").write_bytes(images.png_bytes(image, {}))
    row = [Image.open(tmp_path / "p.png").getpixel((x, 0))[0] for x in range(8)]
    assert row == [int(min(max(255.0 * value, 0), 255)) for value in values.tolist()]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_come_back_as_they_were_saved(tmp_path, channels):
    image = torch.arange(4 * 5 * channels).reshape(4, 5, channels) / 255.0
    (tmp_path / "p.png").write_bytes(images.png_bytes(image, {}))
    loaded, mask = read_image(tmp_path / "p.png")
    shown = image.expand(4, 5, 3) if channels == 1 else image[..., :3]
    assert loaded.dtype == torch.float32 and torch.allclose(loaded[0], shown, atol=1e-6)
    wanted = 1 - image[None, ..., 3] if channels == 4 else torch.zeros(1, 64, 64)
    assert torch.allclose(mask, wanted, atol=1e-6)


def test_load_image_looks_beside_the_workflow_and_refuses_what_is_no_image(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "node_classes", lambda: CLASSES)
    (tmp_path / "flow").mkdir()
    Image.new("RGB", (4, 4), (9, 8, 7)).save(tmp_path / "flow" / "in.png")
    (tmp_path / "flow" / "bad.png").write_text("text")
    file = tmp_path / "flow" / "w.json"
    workflow = {"1": node("LoadImage", image="in.png"), "2": node("PreviewImage", images=["1", 0])}
    file.write_text(json.dumps(workflow))
    out = tmp_path / "out"
    assert main(["run", str(file), "--output", str(out)]) == 0
    assert Image.open(out / "preview_00001_.png").getpixel((0, 0)) == (9, 8, 7)
    assert main(["run", str(file), "--output", str(out), "--set", "1.image=bad.png"]) == 1


def test_the_command_prints_paths_and_times_or_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "node_classes", lambda: CLASSES)
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(two_images()))
    out = tmp_path / "out"
    assert main(["run", str(file), "--output", str(out)]) == 0
    text, progress = capsys.readouterr()
    assert text.splitlines()[-2:] == [f"  {out / 'pair_00001_.png'}", f"  {out / 'pair_00002_.png'}"]
    assert re.search(r"First +\d+\.\d\d s", text) and "[4/4] Save" in progress

    assert main(["run", str(file), "--output", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["status"] == "ok" and report["workflow"] == str(file)
    assert [saved["path"] for saved in report["outputs"]] == [str(out / f"pair_0000{n}_.png") for n in (3, 4)]
    assert {entry["title"] for entry in report["nodes"]} == {"First", "Second", "Join", "Save"}

    assert main(["run", str(file), "--set", "First.value=999", "--set", "nonsense", "--json"]) == 2
    text, errors = capsys.readouterr()
    assert [entry["kind"] for entry in json.loads(text)["errors"]] == ["bad_setting"]
    assert "NODE.INPUT=VALUE" in errors

    assert main(["run", str(file), "--set", "First.value=999"]) == 2
    text, errors = capsys.readouterr()
    assert text == "" and "999 lies outside" in errors


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "line 1, column 2"),
        ("\xff", "not UTF-8"),
        ('{"nodes": [], "links": []}', "Export (API)"),
    ],
)
def test_files_that_cannot_be_run(tmp_path, capsys, content, said):
    file = tmp_path / "flow.json"
    if content is not None:
        file.write_bytes(content.encode("latin-1"))
    assert main(["run", str(file)]) == 2
    assert said in capsys.readouterr().err


def test_a_canvas_workflow_is_pointed_at_its_api_twin(tmp_path, capsys):
    (tmp_path / "api").mkdir()
    for place in ("flow.json", "api/flow.json"):
        (tmp_path / place).write_text('{"nodes": [], "links": []}')
    assert main(["run", str(tmp_path / "flow.json")]) == 2
    assert str(tmp_path / "api" / "flow.json") in capsys.readouterr().err


def canvas(first=10):
    """The canvas workflow of two_images without its unused node."""

    def drawn(key, kind, values, *names):
        return {
            "id": key,
            "type": kind,
            "widgets_values": values,
            "inputs": [{"name": name} for name in names],
        }

    return {
        "nodes": [
            drawn(1, "Number", [first, 1.0, "plain", "", False], "value", "scale", "mode"),
            drawn(2, "Number", [200, 1.0, "plain", "", False], "value", "scale", "mode"),
            drawn(3, "Join", [], "a", "b"),
            drawn(9, "SaveImage", ["pair"], "images", "filename_prefix"),
            drawn(20, "MarkdownNote", ["words"]),
        ],
        "links": [[1, 1, 0, 3, 0, "IMAGE"], [2, 2, 0, 3, 1, "IMAGE"], [3, 3, 0, 9, 0, "IMAGE"]],
    }


def test_the_canvas_workflow_travels_with_the_values_of_the_run(tmp_path):
    workflow = {key: value for key, value in two_images().items() if key != "7"}
    given = canvas()
    report = go(workflow, tmp_path, {"First.value": "33", "First.flag": "true"}, canvas=given)
    carried = json.loads(Image.open(report.outputs[0].path).text["workflow"])
    assert carried["nodes"][0]["widgets_values"] == [33, 1.0, "plain", "", True]
    assert carried["nodes"][1:] == canvas()["nodes"][1:] and given == canvas()
    assert report.notes == []


@pytest.mark.parametrize("change", [{"Join.b": '["1", 0]'}, None])
def test_a_canvas_workflow_of_another_graph_is_left_out(tmp_path, change):
    report = go(two_images(), tmp_path, change, canvas=canvas())
    assert "workflow" not in Image.open(report.outputs[0].path).text
    assert len(report.notes) == 1 and report.status == "ok"


@pytest.mark.parametrize("broken", [{"nodes": [{}]}, {"nodes": []}, canvas() | {"links": [{}]}])
def test_a_canvas_workflow_of_another_make_is_left_out(tmp_path, broken):
    report = go(two_images(), tmp_path, canvas=broken)
    assert report.status == "ok" and len(report.notes) == 1


def test_the_command_goes_without_a_broken_canvas_twin(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "node_classes", lambda: CLASSES)
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "flow.json").write_text(json.dumps(two_images()))
    (tmp_path / "flow.json").write_text("{")
    assert command.run_file(tmp_path / "api" / "flow.json", [], tmp_path / "out") == 0
    assert "flow.json cannot be read" in capsys.readouterr().err


def test_the_command_finds_the_canvas_twin(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "node_classes", lambda: CLASSES)
    (tmp_path / "api").mkdir()
    workflow = {key: value for key, value in two_images().items() if key != "7"}
    (tmp_path / "api" / "flow.json").write_text(json.dumps(workflow))
    (tmp_path / "flow.json").write_text(json.dumps(canvas(first=99)))
    assert command.run_file(tmp_path / "api" / "flow.json", ["2.value=4"], tmp_path / "out") == 0
    carried = json.loads(Image.open(tmp_path / "out" / "pair_00001_.png").text["workflow"])
    assert [entry["widgets_values"][0] for entry in carried["nodes"][:2]] == [10, 4]
