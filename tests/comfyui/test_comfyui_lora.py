"""Apply LoRA in a real ComfyUI: the file is listed, changes what is drawn, leaves the original be, is read anew."""

import json
from itertools import count

import pytest
import torch
from comfy_server import ROOT

from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.lora.files import write_lora

pytestmark = pytest.mark.comfyui

NAME, LAYER, LORA_NODE = "small.safetensors", "unet.middle.blocks.0.conv1", "lora"
prefixes = count()


def write(folder, factor):
    """A LoRA for the bundled decoder that adds `factor` to every number of a layer's weight."""
    out, *into = load_model(SHAPES).decoder.net.get_submodule(LAYER).weight.shape
    factors = {LAYER: (torch.ones(1, *into), torch.full((out, 1, 1, 1), factor))}
    write_lora(folder / NAME, factors, family="tiny", stage="decoder", rank=1, alpha=1.0)


@pytest.fixture
def file(server):
    folder = server.base / "models" / "loras"
    folder.mkdir(exist_ok=True)
    write(folder, 0.02)
    yield folder / NAME
    (folder / NAME).unlink()


def prompt(strength=None):
    """Text to image, at a strength with the LoRA between loader and decoder; saved anew each time."""
    text = (ROOT / "workflows" / "api" / "text_to_image.json").read_text(encoding="utf-8")
    nodes = json.loads(text.replace("(things)", "(shapes)"))
    of = {node["class_type"]: (key, node["inputs"]) for key, node in nodes.items()}
    of["UnclipPriorSample"][1].pop("decoder", None)
    of["SaveImage"][1]["filename_prefix"] = f"lora{next(prefixes)}"
    if strength is not None:
        loader = of["UnclipLoadModel"][0]
        inputs = {"lora_name": NAME, "strength_prior": 1.0, "strength_decoder": strength, "decoder": [loader, 2]}
        nodes[LORA_NODE] = {"class_type": "UnclipApplyLora", "inputs": inputs}
        of["UnclipDecoderSample"][1]["decoder"] = [LORA_NODE, 1]
    return nodes


def drawn(server, nodes):
    """(bytes of the image, ids of the nodes that ran)."""
    run = server.run(nodes)
    assert run.ending == "execution_success", run.details
    (image,) = server.images(run.prompt_id)
    return image.convert("RGB").tobytes(), set(run.executed)


def test_a_lora_changes_what_is_drawn_and_nothing_else(server, file):
    assert NAME in server.get("/object_info/UnclipApplyLora")["UnclipApplyLora"]["input"]["required"]["lora_name"][0]
    plain, _ = drawn(server, prompt())
    assert drawn(server, prompt(0.0))[0] == plain
    adapted, _ = drawn(server, prompt(1.0))
    again, ran = drawn(server, prompt(1.0))
    assert again == adapted and LORA_NODE not in ran
    assert adapted != plain
    assert drawn(server, prompt())[0] == plain
    write(file.parent, -0.02)
    other, ran = drawn(server, prompt(1.0))
    assert other not in (plain, adapted) and LORA_NODE in ran


def test_a_file_that_is_no_lora_is_said_on_the_node(server, file):
    file.write_bytes((ROOT / "unclip_core" / "bundled" / "shapes" / "prior.safetensors").read_bytes())
    run = server.run(prompt(1.0))
    assert run.ending == "execution_error" and run.details["node_id"] == LORA_NODE
    assert f"{NAME}' is no LoRA in peft's format" in run.details["exception_message"]
