"""People's own photos through Inpaint and Outpaint, and bundled workflows with one node or another bypassed."""

import json

import numpy as np
import pytest
from comfy_server import ROOT
from PIL import Image

pytestmark = pytest.mark.comfyui

WIDTH, HEIGHT = 300, 200
HOLE = (150, 50, 250, 150)  # px of the photo
MARGIN = 32  # px in the decoder's scale, of 64: 100 px of the photo
TYPES = ("UnclipPriorSample", "UnclipDecoderSample", "UnclipUpscale", "UnclipInpaint")
QUICK = {**{kind: [0, "fixed", 1] for kind in TYPES}, "UnclipOutpaint": [MARGIN, 0, MARGIN, 0, 0, "fixed", 1],
         "UnclipDdimInversion": [2]}  # fmt: skip


def photo():
    """Noise of every colour with a transparent hole: no resizing would give its pixels back."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("RGBA")
    image.paste((0, 0, 0, 0), HOLE)
    return image


def own(server, kind, **inputs):
    """What a node draws of the photo, and the photo: levels of 0..255."""
    server.upload("photo.png", photo())
    node = {"decoder": ["1", 2], "embedding": ["3", 0], "image": ["2", 0], "seed": 0, "steps": 2, "resamples": 1,
            "guidance_scale": -1.0}  # fmt: skip
    prompt = {
        "1": {"class_type": "UnclipLoadModel", "inputs": {"model": "bundled (shapes)", "dtype": "auto"}},
        "2": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "3": {"class_type": "UnclipImageEncode", "inputs": {"clip": ["1", 0], "image": ["2", 0]}},
        "4": {"class_type": kind, "inputs": node | inputs},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "own"}},
    }
    run = server.run(prompt)
    assert run.ending == "execution_success", run.details
    (image,) = server.images(run.prompt_id)
    return np.asarray(image.convert("RGB")), np.asarray(photo().convert("RGB"))


def test_inpaint_gives_a_photo_back_in_its_own_size_and_keeps_every_other_pixel(server):
    drawn, given = own(server, "UnclipInpaint", mask=["2", 1])
    left, top, right, bottom = HOLE
    kept = np.ones((HEIGHT, WIDTH), dtype=bool)
    kept[top:bottom, left:right] = False
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    assert (drawn[kept] == given[kept]).all() and (drawn[~kept] != given[~kept]).mean() > 0.9


def test_outpaint_gives_a_photo_back_with_its_margins_and_keeps_its_pixels(server):
    drawn, given = own(server, "UnclipOutpaint", left=MARGIN, top=0, right=MARGIN, bottom=0)
    side = MARGIN * HEIGHT // 64
    assert drawn.shape == (HEIGHT, WIDTH + 2 * side, 3)
    assert (drawn[:, side:-side] == given).all()
    assert drawn[:, :side].std() > 1 and drawn[:, -side:].std() > 1


def quick(name, modes):
    """A bundled workflow in a step each, some of its nodes in another mode (0 used, 4 bypassed)."""
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        values = QUICK.get(node["type"], [])
        node["widgets_values"][: len(values)] = values
        node["mode"] = modes.get(node["id"], node["mode"])
        if node["type"] == "SaveImage":
            node["widgets_values"][0] = f"bypassed-{name}"  # new to the cache
        if node["type"] == "LoadImage":
            node["widgets_values"][0] = "photo.png"
    return workflow


CASES = {
    "rerank": ("text_to_image", {8: 4}, 2 * [(256, 256)]),
    "upscale": ("text_to_image", {5: 4}, [(64, 64)]),
    "inpaint": ("inpaint", {11: 4}, [(1024, 1024)]),
    "outpaint": ("outpaint", {6: 4}, [(1024, 1024)]),
    "own_inpaint": ("inpaint", {15: 0, 6: 4, 7: 4, 11: 4, 12: 4}, [(WIDTH, HEIGHT)]),
    "own_outpaint": ("outpaint", {12: 0, 4: 4, 5: 4}, [(640, 256)]),
    "own_variations": ("variations", {16: 0, 4: 4}, [(1024, 768)]),
    "own_pictures": ("interpolate_pictures", {19: 0, 20: 0, 6: 4, 7: 4}, [(1024, 512)]),
}


@pytest.fixture(scope="module")
def uploaded(canvas):
    """The photo is among those that the page lists for Load Image."""
    canvas.server.upload("photo.png", photo())
    canvas.refresh()


@pytest.mark.usefixtures("uploaded")
@pytest.mark.parametrize("canvas", ["classic"], indirect=True)  # how nodes are drawn changes no prompt
@pytest.mark.parametrize("case", CASES)
def test_a_bypassed_node_passes_on_what_fits(canvas, case):
    name, modes, sizes = CASES[case]
    workflow = quick(name, modes)
    canvas.load(workflow, case)
    used = {str(node["id"]) for node in workflow["nodes"] if node["mode"] == 0 and node["type"] != "MarkdownNote"}
    assert set(canvas.prompt()) == used
    ending, details = canvas.run()
    assert ending == "execution_success", details
    assert [image.size for image in canvas.server.images(details["prompt_id"])] == sizes
    assert canvas.complaints() == []
