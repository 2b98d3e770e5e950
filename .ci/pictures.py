"""Draw the help pages' pictures: each node as the canvas draws it, into nodes/web/docs/<node>.png, and show them there.

Needs what the tests in a real ComfyUI need (see tests/comfyui): ComfyUI, Chromium, playwright.
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "comfyui"))

from comfy_canvas import Canvas, find_chromium, launch  # noqa: E402
from comfy_server import Server, find_comfyui  # noqa: E402

DOCS = ROOT / "nodes" / "web" / "docs"
COLOURS = 64
ALONE = """(type) => {
    app.graph.clear()
    const node = LiteGraph.createNode(type)
    node.pos = [0, 0]
    app.graph.add(node)
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [160, 160]
    app.canvas.setDirty(true, true)
    return String(node.id)
}"""


def draw(canvas: Any, node_id: str) -> None:
    """Draw one node, alone on the canvas, and save its picture."""
    key = canvas.page.evaluate(ALONE, node_id)
    element = canvas.page.wait_for_selector(f'[data-node-id="{key}"]')
    canvas.page.wait_for_timeout(300)  # its widgets come in one by one
    picture = Image.open(io.BytesIO(element.screenshot())).convert("RGB")
    picture.quantize(COLOURS).save(DOCS / f"{node_id}.png", optimize=True)
    show(node_id)


def show(node_id: str) -> None:
    """Put the picture under the title of the node's help page, if it is not there."""
    page = DOCS / f"{node_id}.md"
    title, _, rest = page.read_text(encoding="utf-8").partition("\n")
    line = f"![{title.removeprefix('# ')}]({node_id}.png)"
    if line not in rest:
        page.write_text(f"{title}\n\n{line}\n{rest}", encoding="utf-8")


def main() -> None:
    """Draw all nodes of the pack."""
    from unclip import NODE_CLASS_MAPPINGS

    server = Server(*find_comfyui(), Path(tempfile.mkdtemp()))
    try:
        server.wait_until_ready()
        with launch(find_chromium()) as browser, Canvas(browser, server, vue=True) as canvas:
            for node_id in NODE_CLASS_MAPPINGS:
                draw(canvas, node_id)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
