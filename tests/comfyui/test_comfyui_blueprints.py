"""The subgraph blueprints in a real ComfyUI: it lists them, the search box finds them, and each draws an image."""

import json

import pytest
from comfy_hands import Hands
from comfy_server import PLUGIN, ROOT

pytestmark = pytest.mark.comfyui

PATHS = sorted((ROOT / "subgraphs").glob("*.json"))
# What a blueprint needs beside it, to be run; its stages take two steps each.
SURROUND = """() => {
    const node = app.graph.nodes[0]
    for (const inner of node.subgraph.nodes)
        for (const widget of inner.widgets ?? []) if (widget.name === 'steps') widget.value = 2
    const add = (type, x, y) => {
        const made = LiteGraph.createNode(type)
        made.pos = [x, y]
        app.graph.add(made)
        for (const widget of made.widgets ?? []) if (['width', 'height'].includes(widget.name)) widget.value = 64
        return made
    }
    node.inputs.forEach((slot, index) => {
        const source = { IMAGE: 'EmptyImage', MASK: 'SolidMask' }[slot.type]
        if (source) add(source, -400, index * 200).connect(0, node, index)
    })
    node.connect(0, add('PreviewImage', 500, 0), 0)
}"""


def test_comfyui_lists_the_blueprints(server):
    listed = server.get("/global_subgraphs").values()
    ours = {entry["name"] for entry in listed if entry["info"]["node_pack"] == f"custom_nodes.{PLUGIN}"}
    assert ours == {path.stem for path in PATHS} and len(ours) == 5


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_blueprint_draws_an_image(canvas, screenshots, path):
    canvas.load(json.loads(path.read_text(encoding="utf-8")), path.stem)
    canvas.page.evaluate(SURROUND)
    canvas.fit()
    ending, details = canvas.run()
    assert ending == "execution_success", details
    canvas.wait_for_image()
    canvas.screenshot(screenshots / f"blueprint-{path.stem}-{'vue' if canvas.vue else 'classic'}.png")
    assert canvas.complaints() == []
    images = canvas.server.images(details["prompt_id"])
    sides = 64 if path.stem.startswith("Inpaint") else 256
    assert {image.size for image in images} == {(sides, sides)}
    assert len(images) == (4 if "Variations" in path.stem else 1)


@pytest.mark.parametrize("canvas", ["vue"], indirect=True)  # the search box is the same in both
def test_the_search_box_adds_a_blueprint(canvas):
    hands = Hands(canvas)
    hands.begin()
    hands.add("unclip text to image", "Text to Image (unCLIP)", (700, 200))
    (node,) = canvas.page.evaluate("app.graph.nodes.map((node) => [node.title, node.inputs.map((slot) => slot.name)])")
    assert node == ["Text to Image (unCLIP)", ["text", "model", "seed"]]
