"""Our graph and a stock one in turn leave no growth in the server's memory."""

import copy
import json
from pathlib import Path

import pytest
from comfy_server import ROOT

pytestmark = pytest.mark.comfyui

RUNS, SETTLED = 20, 8
GROWTH = 64  # MiB that the allocator may keep for itself; the parts of the bundled model weigh more than that
STOCK = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 4, "color": 0}},
    "2": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "upscale_method": "lanczos", "scale_by": 2.0}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "stock"}},
}


def resident(server):
    """MiB of the server's process."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.is_file():
        pytest.skip("this system does not say how much memory a process has")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def ours(turn):
    """Text to image with another seed, and the model read anew: its dtype changes from one turn to the next."""
    prompt = json.loads((ROOT / "workflows" / "api" / "text_to_image.json").read_text(encoding="utf-8"))
    for node in prompt.values():
        if "seed" in node["inputs"]:
            node["inputs"]["seed"] = 1000 + turn
        if node["class_type"] == "UnclipLoadModel":
            node["inputs"]["dtype"] = ("auto", "fp32")[turn // 2 % 2]
    return prompt


def stock(turn):
    """A graph of ComfyUI's own nodes that has to run each time."""
    prompt = copy.deepcopy(STOCK)
    prompt["1"]["inputs"]["color"] = turn
    return prompt


def test_alternating_with_a_stock_graph_leaves_no_growth(server):
    sizes = []
    for turn in range(RUNS):
        run = server.run(ours(turn) if turn % 2 == 0 else stock(turn))
        assert run.ending == "execution_success", run.details
        sizes.append(round(resident(server)))
    print("MiB after each run:", sizes)
    assert max(sizes[SETTLED:]) - max(sizes[:SETTLED]) < GROWTH, sizes
