"""Draw the README's images: text_to_image on ComfyUI's canvas after it has run, and all nodes side by side.

    COMFYUI_PATH=/path/to/ComfyUI python .ci/canvas_image.py

Starts that ComfyUI with the pack in it, opens its page in a headless Chromium (as tests/comfyui do), runs the workflow
with the bundled model, and saves what is on the canvas. The seeds stand in the workflow: the same weights, the same
image.
"""

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "comfyui")]

from comfy_canvas import Canvas, find_chromium, launch  # noqa: E402
from comfy_server import Server, find_comfyui  # noqa: E402

DOCS = ROOT / "nodes" / "web" / "docs"
WORKFLOW = ROOT / "workflows" / "text_to_image.json"
WIDTH, QUALITY, MARGIN = 1800, 88, 14
WINDOW = {"width": 2400, "height": 1500}
"""Larger than a usual one, so that what is small in the image can be read."""
COLUMN, GAP = 1400, 40
"""Height of a column of nodes, and the room between nodes, in the graph's unit."""
PLACED = """() => {
    const { scale, offset } = app.canvas.ds
    const origin = app.canvas.canvas.getBoundingClientRect()
    return [scale, origin.x + offset[0] * scale, origin.y + offset[1] * scale]
}"""
ADD_ALL = """() => {
    for (const type of Object.keys(LiteGraph.registered_node_types).filter((name) => name.startsWith('Unclip'))) {
        const node = LiteGraph.createNode(type)
        app.graph.add(node)
    }
    return app.graph.nodes.map((node) => [String(node.id), node.constructor.category ?? ''])
}"""
PLACE = """(places) => { for (const node of app.graph.nodes) node.pos = places[String(node.id)] }"""
TITLE = 30


def main() -> None:
    """Start ComfyUI and save both images."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(*find_comfyui(), Path(folder))
        try:
            server.wait_until_ready()
            with launch(find_chromium()) as browser, Canvas(browser, server, vue=True, window=WINDOW) as canvas:
                save(canvas, draw_workflow(canvas), DOCS / "canvas.jpg")
                save(canvas, lay_out_nodes(canvas), DOCS / "nodes.jpg")
        finally:
            server.stop()


Box = list[float]
"""`[x, y, width, height]` in the graph's unit."""


def draw_workflow(canvas: Canvas) -> list[Box]:
    """Run the workflow on the canvas: the boxes of its groups and nodes."""
    # The seed that is shown afterwards is the one that it was drawn from.
    text = WORKFLOW.read_text(encoding="utf-8").replace('"randomize"', '"fixed"')
    workflow = json.loads(text)
    canvas.load(workflow, WORKFLOW.stem)
    ending, details = canvas.run()
    if ending != "execution_success":
        raise RuntimeError(f"The workflow ended with {ending}: {details}")
    canvas.wait_for_image()
    canvas.fit()
    # What a node has to show can make it longer than its group.
    return [*(group["bounding"] for group in workflow["groups"]), *canvas.boxes().values()]


def lay_out_nodes(canvas: Canvas) -> list[Box]:
    """Lay every node of the pack on an empty canvas, category by category in columns: their boxes."""
    canvas.page.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    canvas.page.wait_for_function("app.graph.nodes.length === 0")
    nodes = canvas.page.evaluate(ADD_ALL)
    canvas.page.wait_for_timeout(3000)  # until Vue has drawn them, and their boxes are known
    boxes = canvas.boxes()
    ordered = [node for node, _ in sorted(nodes, key=lambda node: node[1])]
    canvas.page.evaluate(PLACE, columns((node, boxes[node][2:]) for node in ordered))
    canvas.page.wait_for_timeout(1000)  # until they lie there: the view is fitted to where they are known to be
    canvas.fit()
    return list(canvas.boxes().values())


def columns(sizes: Iterable[tuple[str, list[float]]]) -> dict[str, list[float]]:
    """node -> `[x, y]`: one below the other as long as a column has room."""
    x, y, widest, places = 0.0, 0.0, 0.0, {}
    for node, (width, height) in sizes:
        if y and y + height > COLUMN:
            x, y, widest = x + widest + GAP, 0.0, 0.0
        places[node] = [x, y + TITLE]
        y, widest = y + height + GAP, max(widest, width)
    return places


def save(canvas: Canvas, boxes: list[Box], target: Path) -> None:
    """Save the part of the page in which these boxes lie."""
    scale, x, y = canvas.page.evaluate(PLACED)
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    clip = {"x": x + left * scale - MARGIN, "y": y + top * scale - MARGIN,
            "width": (right - left) * scale + 2 * MARGIN, "height": (bottom - top) * scale + 2 * MARGIN}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        canvas.page.screenshot(path=Path(folder, "page.png"), clip=clip)
        image = Image.open(Path(folder, "page.png")).convert("RGB")
    image.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    image.save(target, quality=QUALITY, optimize=True)
    print(f"{target.relative_to(ROOT)}: {image.width} x {image.height} px")


if __name__ == "__main__":
    main()
