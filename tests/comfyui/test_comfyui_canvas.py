"""The workflows on ComfyUI's real canvas in a headless browser, classic and Vue: they open clean, look right, run.

Pictures of the canvas go to $UNCLIP_SCREENSHOTS if set, else to pytest's temporary folder.
"""

import itertools
import json
import os
from pathlib import Path

import pytest
from comfy_server import ROOT

pytestmark = pytest.mark.comfyui

WORKFLOWS = ROOT / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
RUN = ("describe", "inpaint", "rerank_scores")  # all of them run over HTTP; here, nodes that show text, a mask, a batch


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory):
    named = os.environ.get("UNCLIP_SCREENSHOTS")
    return Path(named) if named else tmp_path_factory.mktemp("screenshots")


def ui(name):
    return json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))


def api(name):
    """The API twin, as the canvas writes it: without the order of inputs and without titles."""
    return plain(json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8")))


def plain(prompt):
    return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in prompt.items()}


def meet(a, b):
    """Whether two boxes `[x, y, width, height]` share more than a hair's breadth."""
    return all(min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]) > 1 for i in (0, 1))


def holds(a, b):
    """Whether box b lies in box a."""
    return all(a[i] <= b[i] and b[i] + b[i + 2] <= a[i] + a[i + 2] for i in (0, 1))


def overlapping(boxes):
    """Pairs of nodes of which one lies over the other."""
    return [(p, q) for p, q in itertools.combinations(boxes, 2) if meet(boxes[p], boxes[q])]


def sticking_out(boxes, groups):
    """(node, group) where a node lies partly in a group."""
    frames = {group["title"]: group["bounding"] for group in groups}
    pairs = itertools.product(boxes, frames)
    return [(p, g) for p, g in pairs if meet(boxes[p], frames[g]) and not holds(frames[g], boxes[p])]


def test_both_forms_of_every_workflow_are_there():
    assert NAMES == sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json")) and NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_opens_clean_and_is_its_api_twin(canvas, screenshots, name):
    workflow = ui(name)
    canvas.load(workflow, name)
    canvas.screenshot(screenshots / f"{name}-{'vue' if canvas.vue else 'classic'}.png")
    assert canvas.complaints() == []
    assert {node["id"]: node["type"] for node in canvas.nodes()} == {
        str(node["id"]): node["type"] for node in workflow["nodes"]
    }
    assert plain(canvas.prompt()) == api(name)


@pytest.mark.parametrize("name", NAMES)
def test_nodes_lie_apart_within_their_groups_and_clip_no_widget(canvas, name):
    workflow = ui(name)
    canvas.load(workflow, name)
    boxes = canvas.boxes()
    assert set(boxes) == {str(node["id"]) for node in workflow["nodes"]}
    assert overlapping(boxes) == [] and sticking_out(boxes, workflow["groups"]) == []
    if not canvas.vue:
        short = {node["id"]: (node["size"], node["needs"]) for node in canvas.nodes() if is_short(node)}
        assert short == {}


def is_short(node):
    return any(size + 1 < needs for size, needs in zip(node["size"], node["needs"], strict=True))


def test_text_to_image_runs_on_the_canvas(canvas, screenshots):
    workflow = ui("text_to_image")
    (save,) = [node for node in workflow["nodes"] if node["type"] == "SaveImage"]
    save["widgets_values"][0] = prefix = f"canvas-{'vue' if canvas.vue else 'classic'}"  # new to the cache
    canvas.load(workflow, "text_to_image")
    ending, details = canvas.run()
    assert ending == "execution_success", details
    canvas.wait_for_picture()
    canvas.fit()
    canvas.screenshot(screenshots / f"text_to_image-{'vue' if canvas.vue else 'classic'}-run.png")
    assert canvas.complaints() == []
    (picture,) = canvas.server.pictures(details["prompt_id"])
    assert picture.size == (256, 256)
    # Dropped on a canvas, the picture brings its workflow back.
    carried = json.loads(picture.text["workflow"])
    assert {(node["id"], node["type"]) for node in carried["nodes"]} == {
        (node["id"], node["type"]) for node in workflow["nodes"]
    }
    assert prefix in json.dumps(carried)


@pytest.mark.parametrize("canvas", ["classic"], indirect=True)  # how nodes are drawn changes no prompt
@pytest.mark.parametrize("name", RUN)
def test_a_workflow_runs_on_the_canvas(canvas, screenshots, name):
    canvas.load(ui(name), name)
    ending, details = canvas.run()
    assert ending == "execution_success", details
    canvas.wait_for_picture()
    canvas.fit()
    canvas.screenshot(screenshots / f"{name}-classic-run.png")
    assert canvas.complaints() == []


def test_unknown_words_show_on_the_node(canvas, screenshots):
    workflow = ui("text_to_image")
    (text,) = [node for node in workflow["nodes"] if node["type"] == "UnclipTextEncode"]
    text["widgets_values"][0] = "a large red zebra in the center"
    canvas.load(workflow, "unknown words")
    ending, details = canvas.run()
    assert ending == "execution_success", details
    canvas.page.wait_for_timeout(500)
    canvas.screenshot(screenshots / f"unknown-words-{'vue' if canvas.vue else 'classic'}.png")
    assert "'zebra'" in canvas.page.inner_text("body")
    assert overlapping(canvas.boxes()) == []
