"""Fold workflows so that all of them is legible as they open: positions, sizes and groups' frames, nothing else.

    COMFYUI_PATH=/path/to/ComfyUI python .ci/layout.py [NAME …]     all of workflows/, or those named

A workflow's groups keep their order, titles and nodes (a node belongs to the group it lies in; the order in a group is
from top to bottom, then left to right). How large nodes are, and how far they grow by a live preview, is measured on
ComfyUI's canvas, classic and Vue; `.ci/folding.py` finds the fold. Run twice, it changes nothing more.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from folding import TITLE, Block, Node, fold, frame

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "comfyui")]

from comfy_canvas import EVERY_TEXT, Canvas, find_chromium, launch  # noqa: E402
from comfy_models import furnished  # noqa: E402
from comfy_server import Server, find_comfyui  # noqa: E402

WORKFLOWS = ROOT / "workflows"
WIDTH = 248
WIDTHS = {"MarkdownNote": 300, "SaveImage": 380, "PreviewImage": 380, "ImageCompare": 400, "PreviewAny": 380,
          "UnclipTextEncodeLines": 440}  # fmt: skip
HEIGHTS = {"SaveImage": 360, "PreviewImage": 360, "ImageCompare": 400, "UnclipTextEncode": 150, "CLIPTextEncode": 130}
"""Of nodes that take any height; other such nodes keep theirs."""
NARROWED = {"MarkdownNote", "SaveImage", "PreviewImage"}
"""One that has been made narrower than WIDTHS says stays so, where a workflow would be too wide."""
ELASTIC = {*HEIGHTS, "MarkdownNote", "PreviewAny", "UnclipTextEncodeLines", "LoadImage"}
LEAST, NOTE_LEAST = 20, 60
SLACK = 8
FONT = 20
"""Of groups' titles."""
Workflow = dict[str, Any]
Sizes = dict[int, tuple[float, float, float, float]]
"""node -> width of its box, its height, its height with a live preview or words, and with a preview at least."""


def main(names: list[str]) -> None:
    """Start ComfyUI, measure and fold the workflows of these names, or all."""
    names = names or sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    with tempfile.TemporaryDirectory() as folder:
        server = Server(*find_comfyui(), furnished(Path(folder)))
        try:
            server.wait_until_ready()
            with launch(find_chromium()) as browser:
                lay_out(names, browser, server)
        finally:
            server.stop()


def lay_out(names: list[str], browser: Any, server: Any) -> None:
    """Measure the workflows in both modes of the canvas, fold them, and write them back."""
    read = {name: json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")) for name in names}
    titles, small = measure_texts(read, browser, server)
    for name, sizes in measure_all(small, browser, server).items():
        write(name, refold(read[name], sizes, titles[name]))


def measure_texts(
    workflows: dict[str, Workflow], browser: Any, server: Any
) -> tuple[dict[str, list[float]], dict[str, Workflow]]:
    """Measure texts: the room that groups' titles take, and the workflows with nodes as small as theirs let them be."""
    titles, small = {}, {}
    with Canvas(browser, server, vue=False, settings=EVERY_TEXT) as canvas:
        for name, workflow in workflows.items():
            titles[name] = canvas.title_widths([group["title"] for group in workflow["groups"]], FONT)
            small[name] = shrunk(workflow)
            canvas.load(small[name], name)
            widths = canvas.widen()
            for node in small[name]["nodes"]:
                node["size"][0] = widths.get(str(node["id"]), node["size"][0])
    return titles, small


def measure_all(workflows: dict[str, Workflow], browser: Any, server: Any) -> dict[str, Sizes]:
    """Measure the nodes of workflows, which are as small as they can be, in both modes."""
    sizes: dict[str, Sizes] = {name: {} for name in workflows}
    for vue in (False, True):
        with Canvas(browser, server, vue=vue, settings=EVERY_TEXT) as canvas:
            for name, workflow in workflows.items():
                for key, size in measure(canvas, workflow, name).items():
                    known = sizes[name].get(key, size)
                    sizes[name][key] = (*map(max, known[:3], size[:3]), min(known[3], size[3]))
    return sizes


def measure(canvas: Canvas, workflow: Workflow, name: str) -> Sizes:
    """Load it: each node's size, alone and with its preview or its words."""
    grown = []
    for grow in (canvas.show_words, canvas.show_previews):
        canvas.load(workflow, name)
        canvas.fit()
        needs = {node["id"]: node["needs"] for node in canvas.nodes()}
        plain, hidden = canvas.boxes(), canvas.hidden_heights()
        grow()
        grown.append(canvas.boxes())
    sizes = {}
    for key, (_, _, width, height) in plain.items():
        tallest = max(height, *(boxes[key][3] for boxes in grown))
        more = hidden.get(key, 0)
        previewed = max(height, grown[1][key][3])
        sizes[int(key)] = (max(width, needs[key][0] + SLACK), height + more, tallest + more, previewed + more)
    return sizes


def shrunk(workflow: Workflow) -> Workflow:
    """The workflow with its nodes as wide as they are to be, and as low as they can be."""
    small = json.loads(json.dumps(workflow))
    for node in small["nodes"]:
        kind, height = node["type"], node["size"][1]
        lowest = NOTE_LEAST if kind == "MarkdownNote" else HEIGHTS.get(kind, height if kind in ELASTIC else LEAST)
        width = WIDTHS.get(kind, WIDTH)
        node["size"] = [min(width, node["size"][0]) if kind in NARROWED else width, lowest]
    return small


def refold(workflow: Workflow, sizes: Sizes, titles: list[float]) -> Workflow:
    """The workflow with new positions, sizes and frames."""
    members = [inside(group["bounding"], workflow["nodes"]) for group in workflow["groups"]]
    groups = [[Node(node["id"], *map(round, sizes[node["id"]])) for node in nodes] for nodes in members]
    if sorted(node.id for nodes in groups for node in nodes) != sorted(node["id"] for node in workflow["nodes"]):
        raise ValueError("Some node lies in no group, or in two.")
    blocks = fold(groups, titles, [(link[1], link[3]) for link in workflow["links"]])
    by_id = {node["id"]: node for node in workflow["nodes"]}
    for part in blocks:
        workflow["groups"][part.group]["font_size"] = FONT
        workflow["groups"][part.group]["bounding"] = [round(value) for value in frame(part)]
        for key, x, y, width, height in part.places:
            by_id[key]["pos"] = [round(x), round(y + TITLE)]
            by_id[key]["size"] = [round(width), round(height - TITLE)]
    report(blocks)
    return workflow


def inside(bounding: list[float], nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes whose corner lies in a frame, column by column from top to bottom."""
    x, y, width, height = bounding
    found = [node for node in nodes if x <= node["pos"][0] < x + width and y <= node["pos"][1] < y + height]
    return sorted(found, key=lambda node: (node["pos"][0], node["pos"][1]))


def report(blocks: list[Block]) -> None:
    """Print how large the whole is."""
    places = [place for part in blocks for place in part.places]
    width = max(x + w for _, x, _, w, _ in places) - min(x for _, x, _, _, _ in places)
    height = max(y + h for _, _, y, _, h in places) - min(y for _, _, y, _, _ in places)
    print(f"{width:.0f} x {height:.0f}, {width / height:.2f} : 1, zoom {min(1200 / width, 750 / height):.2f}")


def write(name: str, workflow: Workflow) -> None:
    """Write the canvas form back as it was written."""
    workflow["extra"].pop("ds", None)  # without a view of its own it opens fitted to whatever window there is
    text = json.dumps(workflow, indent=2, ensure_ascii=False)
    (WORKFLOWS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
