"""Our graph and a stock Stable Diffusion graph in turn leave no growth in the server's memory."""

import json
from pathlib import Path

import pytest
from comfy_server import ROOT

pytestmark = pytest.mark.comfyui

RUNS, SETTLED = 20, 8
GROWTH = 64  # MiB that the allocator may keep for itself; the parts of the bundled model weigh more than that
STOCK = {
    "1": ("CheckpointLoaderSimple", {}),
    "2": ("CLIPTextEncode", {"clip": ["1", 1], "text": "a photograph of a frog"}),
    "3": ("CLIPTextEncode", {"clip": ["1", 1], "text": ""}),
    "4": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
    "5": ("KSampler", {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0],
                       "steps": 2, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}),
    "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
    "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "stock"}),
}  # fmt: skip


def resident(server):
    """MiB of the server's process."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.is_file():
        pytest.skip("this system does not say how much memory a process has")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def ours(turn):
    """Text to image with another seed, and the model read anew: its dtype changes from one turn to the next.

    In few steps: what stays behind is the model's, or a run's, and not a step's.
    """
    text = (ROOT / "workflows" / "api" / "text_to_image.json").read_text(encoding="utf-8")
    prompt = json.loads(text.replace("(things)", "(shapes)"))
    for node in prompt.values():
        if "seed" in node["inputs"]:
            node["inputs"] |= {"seed": 1000 + turn} | ({"steps": 2} if "steps" in node["inputs"] else {})
        if node["class_type"] == "UnclipLoadModel":
            node["inputs"]["dtype"] = ("auto", "fp32")[turn // 2 % 2]
    return prompt


def stock(turn, checkpoint):
    """Text to image as ComfyUI's own nodes do it with Stable Diffusion, with another seed."""
    prompt = {key: {"class_type": kind, "inputs": dict(inputs)} for key, (kind, inputs) in STOCK.items()}
    prompt["1"]["inputs"]["ckpt_name"] = checkpoint
    prompt["5"]["inputs"]["seed"] = turn
    return prompt


def test_alternating_with_stable_diffusion_leaves_no_growth(server, stable_diffusion):
    sizes, images = [], set()
    for turn in range(RUNS):
        run = server.run(ours(turn) if turn % 2 == 0 else stock(turn, stable_diffusion("sd15")))
        assert run.ending == "execution_success", run.details
        sizes.append(round(resident(server)))
        (image,) = server.images(run.prompt_id)
        images.add(image.convert("RGB").tobytes())
    print("MiB after each run:", sizes)
    assert len(images) == RUNS  # every run drew, and nothing came from a cache
    assert max(sizes[SETTLED:]) - max(sizes[:SETTLED]) < GROWTH, sizes
