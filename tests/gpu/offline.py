"""The bundled workflows that need no download, made quick where the device is a CPU."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from unclip.cli.headless import run

FOLDER = Path(__file__).parents[2] / "workflows" / "api"
QUICK = ("text_to_image", "clip_optimise", "inpaint")  # of those, what a CPU rehearses


def read(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def _is_offline(prompt):
    models = [node["inputs"]["model"] for node in prompt.values() if node["class_type"] == "UnclipLoadModel"]
    known = {node["class_type"] for node in prompt.values()} <= set(run.node_classes())
    return known and all(model.startswith("bundled") for model in models)


OFFLINE = [path.stem for path in sorted(FOLDER.glob("*.json")) if _is_offline(read(path.stem))]


def with_inputs(prompt, **given):
    """The prompt with these inputs set wherever a node has one of that name that is no wire."""
    for node in prompt.values():
        for name, value in given.items():
            if name in node["inputs"] and not isinstance(node["inputs"][name], list):
                node["inputs"][name] = value
    return prompt


def drawn(prompt, folder, device, inputs):
    """The images that a prompt saves `[H, W, 3]` in levels, and the run's report."""
    report = run.run_workflow(prompt, output_dir=folder, input_dirs=(inputs,), device=str(device))
    assert report.status == "ok", report.errors
    return [levels(Image.open(output.path)) for output in report.outputs if output.path.suffix == ".png"], report


def levels(image):
    return np.asarray(image.convert("RGB"), dtype=np.float32)


def apart(ours, reference):
    """The mean difference of lists of images, in levels."""
    assert [image.shape for image in ours] == [image.shape for image in reference] and ours
    return max(float(np.abs(a - b).mean()) for a, b in zip(ours, reference, strict=True))
