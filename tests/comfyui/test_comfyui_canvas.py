"""The workflows on ComfyUI's real canvas in a headless browser, classic and Vue: they open clean, look right, run.

Images of the canvas go to $UNCLIP_SCREENSHOTS if set; else those of failed tests alone, to pytest's temporary folder.
"""

import itertools
import json

import pytest
from comfy_canvas import NODES, PREVIEWING, SPEAKING, Canvas
from comfy_hands import Hands
from comfy_server import ROOT

from unclip import NODE_CLASS_MAPPINGS

pytestmark = pytest.mark.comfyui

WORKFLOWS = ROOT / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
TITLE = 40  # height of a group's title, in the graph's unit
TEXT, SMALLEST = 14, 8  # font of the nodes in the graph's unit, and the least that the classic canvas draws, in px
# All of them run over HTTP; here, in few steps, nodes that show text, a mask, a batch
RUN = ("describe", "inpaint", "rerank_scores")
SMALL = {"UnclipDecoderSample": [0, "fixed", 2, -1.0, "auto", 0.0, 1, 0.0, "shared", 0.0, 1.0, 128, 128]}  # px at last
# Workflows of other models in few steps on small random weights: node and its first widgets' values (a seed has its
# control)
DOWNLOADED = {
    "karlo_text_to_image": {},
    "karlo_image_variations": {},
    "karlo_to_sd21_unclip": {"KSampler": [0, "fixed", 3], "EmptyLatentImage": [128, 128]},
    "kandinsky_text_to_image": {},
    "kandinsky_blend": SMALL,
    "kandinsky_image_variations": {},
    "kandinsky_inpaint": {},
    "kandinsky_depth": SMALL,
    "eclipse_karlo": {},
    "eclipse_kandinsky": SMALL,
}
SHOWN = {"karlo_text_to_image": 64, "eclipse_karlo": 64, "kandinsky_text_to_image": 768, "kandinsky_inpaint": 256}
SAMPLING = ("UnclipPriorSample", "UnclipDecoderSample", "UnclipUpscale", "UnclipInpaint")
STEPS = {name: [0, "fixed", 2] for name in SAMPLING}


def in_few_steps(workflow, **values):
    """The workflow with two steps of each stage, and these values of the first widgets of other types of nodes."""
    for node in workflow["nodes"]:
        first = (STEPS | values).get(node["type"], [])
        node["widgets_values"][: len(first)] = first
    return workflow


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


def half_empty(boxes, groups):
    """Groups of whose frame, below its title, less than half is taken by nodes."""
    return [group["title"] for group in groups if fullness(group["bounding"], boxes) < 0.5]


def fullness(frame, boxes):
    inside = [box for box in boxes.values() if holds(frame, box)]
    left, right = min(x for x, _, _, _ in inside), max(x + width for x, _, width, _ in inside)
    return sum(width * height for _, _, width, height in inside) / ((right - left) * (frame[3] - TITLE))


def too_narrow(canvas, groups):
    """Titles of groups that are wider than their frame."""
    sizes = sorted({group["font_size"] for group in groups})
    of_size = {size: [group for group in groups if group["font_size"] == size] for size in sizes}
    measured = [(g, w) for size, some in of_size.items()
                for g, w in zip(some, canvas.title_widths([g["title"] for g in some], size), strict=True)]  # fmt: skip
    return [group["title"] for group, width in measured if width > group["bounding"][2]]


def out_of_window(canvas, boxes):
    """Nodes that the window does not show whole as the workflow opens."""
    corners = {key: canvas.in_window(box) for key, box in boxes.items()}
    return [key for key, (x, y, far_x, far_y) in corners.items() if not (0 <= x and 0 <= y and far_x <= 1600 and
                                                                        far_y <= 1000)]  # fmt: skip


def test_both_forms_of_every_workflow_are_there():
    assert NAMES == sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json")) and NAMES


def test_every_node_that_says_something_of_a_run_is_measured_with_its_words():
    showing = {key for key, node in NODE_CLASS_MAPPINGS.items() if getattr(node, "HAS_INTERMEDIATE_OUTPUT", False)}
    assert showing - {"UnclipPick"} <= SPEAKING  # Pick shows candidates


def test_boxes_are_of_the_sizes_that_nodes_have_now(canvas):
    """A node that has grown within a draw had, until the next, the box of before: groups seemed half empty."""
    canvas.load(ui("text_to_image"), "boxes")
    grown = canvas.page.evaluate(
        f"() => {{ for (const node of app.graph.nodes) node.size[1] += 99; return ({NODES})() }}"
    )
    title = canvas.page.evaluate("LiteGraph.NODE_TITLE_HEIGHT")
    assert [node["box"][2:] for node in grown] == [[node["size"][0], node["size"][1] + title] for node in grown]


@pytest.mark.parametrize("name", NAMES)
def test_a_template_opens_legible_and_apart_and_is_its_api_twin(canvas, screenshots, name):
    workflow = ui(name)
    canvas.server.post("/history", {"clear": True})  # as it opens for the first time: without an earlier run's words
    canvas.load(workflow, name)
    canvas.screenshot(screenshots / f"{name}-{mode(canvas)}.png")
    assert canvas.complaints() == []
    assert {node["id"]: node["type"] for node in canvas.nodes()} == {
        str(node["id"]): node["type"] for node in workflow["nodes"]
    }
    assert plain(canvas.prompt()) == api(name)
    scale, without_text = canvas.zoom()
    assert scale * TEXT >= SMALLEST and not without_text
    boxes = canvas.boxes()
    assert set(boxes) == {str(node["id"]) for node in workflow["nodes"]}
    assert out_of_window(canvas, boxes) == []
    assert overlapping(boxes) == [] and sticking_out(boxes, workflow["groups"]) == []
    assert canvas.clipped_texts() == [] and (canvas.vue or canvas.cut_texts() == {})
    assert too_narrow(canvas, workflow["groups"]) == []
    if not canvas.vue:
        assert {node["id"]: (node["size"], node["needs"]) for node in canvas.nodes() if is_short(node)} == {}
    canvas.show_previews()
    boxes = canvas.boxes()
    canvas.screenshot(screenshots / f"{name}-{mode(canvas)}-previews.png")
    assert overlapping(boxes) == [] and sticking_out(boxes, workflow["groups"]) == []
    assert out_of_window(canvas, boxes) == []
    assert half_empty(boxes, workflow["groups"]) == []
    canvas.show_words()  # they take the place of the previews
    boxes = canvas.boxes()
    assert overlapping(boxes) == [] and sticking_out(boxes, workflow["groups"]) == []


def mode(canvas):
    return "vue" if canvas.vue else "classic"


def is_short(node):
    return any(size + 1 < needs for size, needs in zip(node["size"], node["needs"], strict=True))


def test_text_to_image_runs_on_the_canvas(canvas, screenshots):
    workflow = ui("text_to_image")
    (save,) = [node for node in workflow["nodes"] if node["type"] == "SaveImage"]
    save["widgets_values"][0] = prefix = f"canvas-{mode(canvas)}"  # new to the cache
    canvas.load(workflow, "text_to_image")
    canvas.keep_previewed()
    ending, details = canvas.run()
    assert ending == "execution_success", details
    previewed = set(canvas.previewed())
    types = {str(node["id"]): node["type"] for node in workflow["nodes"]}
    assert {"UnclipDecoderSample", "UnclipUpscale"} <= {types[key] for key in previewed} <= PREVIEWING
    canvas.wait_for_image()
    canvas.come_to_rest()
    canvas.screenshot(screenshots / f"text_to_image-{mode(canvas)}-run.png")
    assert canvas.complaints() == []
    boxes = canvas.boxes()
    assert overlapping(boxes) == [] and sticking_out(boxes, workflow["groups"]) == []
    (image,) = canvas.server.images(details["prompt_id"])
    assert image.size == (256, 256)
    # Dropped on a canvas, the image brings its workflow back.
    carried = json.loads(image.text["workflow"])
    assert {(node["id"], node["type"]) for node in carried["nodes"]} == {
        (node["id"], node["type"]) for node in workflow["nodes"]
    }
    assert prefix in json.dumps(carried)


@pytest.mark.parametrize("canvas", ["classic"], indirect=True)  # how nodes are drawn changes no prompt
@pytest.mark.parametrize("name", RUN)
def test_a_workflow_runs_on_the_canvas(canvas, screenshots, name):
    canvas.load(in_few_steps(ui(name), UnclipLoadModel=["bundled (shapes)"]), name)
    ending, details = canvas.run()
    assert ending == "execution_success", details
    canvas.wait_for_image()
    canvas.fit()
    canvas.screenshot(screenshots / f"{name}-classic-run.png")
    assert canvas.complaints() == []
    assert overlapping(canvas.boxes()) == []  # nodes grow by the text that they show


@pytest.mark.parametrize("canvas", ["classic"], indirect=True)
@pytest.mark.parametrize("name", DOWNLOADED)
def test_workflows_of_other_models_run_on_the_canvas(canvas, screenshots, stable_diffusion, name):
    stable_diffusion("sd21-unclip-l")
    saved = {"SaveImage": [f"canvas-{mode(canvas)}-{name}"]}  # new to the cache
    workflow = in_few_steps(ui(name), **DOWNLOADED[name], **saved)
    canvas.load(workflow, name)
    ending, details = canvas.run()
    assert ending == "execution_success", details
    canvas.wait_for_image()
    canvas.fit()
    canvas.screenshot(screenshots / f"{name}-{mode(canvas)}-run.png")
    assert canvas.complaints() == []
    side = SHOWN.get(name, 128)  # px
    (image,) = canvas.server.images(details["prompt_id"])
    assert image.size == (side, side) and image.getextrema()[0][0] < image.getextrema()[0][1]


def test_the_canvas_is_in_the_users_language(browser, server, screenshots):
    words = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    workflow = ui("text_to_image")
    ours = {node["type"] for node in workflow["nodes"] if node["type"] in words}
    with Canvas(browser, server, vue=True, language="zh") as canvas:
        canvas.load(workflow, "text_to_image")
        canvas.screenshot(screenshots / "text_to_image-vue-zh.png")
        shown = canvas.page.inner_text("body")
    assert len(ours) > 5 and [name for name in ours if words[name]["display_name"] not in shown] == []
    assert words["UnclipLoadModel"]["inputs"]["model"]["name"] in shown


def test_unknown_words_show_on_the_node(canvas, screenshots):
    canvas.load(in_few_steps(ui("text_to_image"), UnclipTextEncode=["a red zorbel"]), "unknown words")
    ending, details = canvas.run()
    assert ending == "execution_success", details
    canvas.page.get_by_text("'zorbel'").first.wait_for()
    canvas.come_to_rest()
    canvas.screenshot(screenshots / f"unknown-words-{mode(canvas)}.png")
    assert overlapping(canvas.boxes()) == []


def needs_download(prompt):
    """Whether a model is loaded that is no bundled one."""
    loaders = [
        node["inputs"] for node in prompt.values() if "Load" in node["class_type"] or "CLIPVision" in node["class_type"]
    ]
    named = [inputs[name] for inputs in loaders for name in ("model", "ckpt_name", "clip_name") if name in inputs]
    return any(isinstance(name, str) and not name.startswith("bundled") for name in named)


@pytest.mark.parametrize("canvas", ["classic"], indirect=True)  # the template browser is the same in both modes
def test_the_template_browser_shows_text_to_image_first_and_what_is_to_be_downloaded_last(canvas, screenshots):
    hands = Hands(canvas)
    hands.begin()
    hands.show_templates()
    canvas.screenshot(screenshots / "templates.png")
    shown = hands.templates()
    hands.open_template(shown[0])
    assert canvas.complaints() == [] and plain(canvas.prompt()) == api(shown[0])
    assert sorted(shown) == NAMES
    far = [needs_download(api(name)) for name in shown]
    assert shown[0] == "text_to_image" and far == sorted(far)
