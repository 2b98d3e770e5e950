"""The bridge to Stable Diffusion 2.1 unCLIP in ComfyUI's own code: Karlo's prior, unCLIPConditioning, its vector.

The last test runs the bundled workflow to its end, with random weights: a Karlo with embeddings of the real width,
and a checkpoint that ComfyUI takes for SD 2.1 unCLIP-L, of one level of its UNet (stand_in_sd.py).
"""

import json
import subprocess

import pytest
from comfy_models import wide_size
from comfy_server import ROOT, environment

from unclip.unclip_core.families.karlo.random_weights import write_random_karlo

pytestmark = pytest.mark.comfyui

SCRIPT = """
import importlib.util, json, sys
models, root, comfyui = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, comfyui)
import comfy.options
comfy.options.enable_args_parsing()
import torch
import nodes as stock
from comfy import model_base
from comfy.ldm.modules.encoders.noise_aug_modules import CLIPEmbeddingNoiseAugmentation

spec = importlib.util.spec_from_file_location("a_pack", root + "/__init__.py", submodule_search_locations=[root])
pack = importlib.util.module_from_spec(spec)
sys.modules["a_pack"] = pack
spec.loader.exec_module(pack)
nodes = pack.NODE_CLASS_MAPPINGS

def first(result):
    return (result["result"] if isinstance(result, dict) else result)[0]

import folder_paths
folder_paths.add_model_folder_path("unclip", models)
assert "karlo" in nodes["UnclipLoadModel"].INPUT_TYPES()["required"]["model"][0]
with torch.inference_mode():
    clip, prior, _, _ = nodes["UnclipLoadModel"]().run("karlo", "fp32")
    text = first(nodes["UnclipTextEncode"]().run(clip, "a red cat"))
    sampled = nodes["UnclipPriorSample"]().run(prior, text, seed=1, steps=2, guidance_scale=4.0, sampler="ddpm")
    embedding = first(sampled)
    output = first(nodes["UnclipToClipVision"]().run(embedding))
    (conditioning,) = stock.unCLIPConditioning().apply_adm([[torch.zeros(1, 77, 1024), {}]], output, 1.0, 0.0)
    width = output.image_embeds.shape[1]
    noise = CLIPEmbeddingNoiseAugmentation(
        noise_schedule_config={"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}, timestep_dim=width)
    adm = model_base.unclip_adm(conditioning[0][1]["unclip_conditioning"], torch.device("cpu"), noise)
print("RESULT", json.dumps({
    "shape": list(output.image_embeds.shape), "dtype": str(output.image_embeds.dtype), "adm": adm[0].tolist(),
    "embeds": output.image_embeds[0].tolist(), "is_the_priors": bool((output.image_embeds == embedding.embeds).all()),
}))
"""


@pytest.fixture(scope="module")
def told(comfyui, tmp_path_factory):
    """What the script tells, run in ComfyUI's Python with a random Karlo of CLIP's real width."""
    folder, python = comfyui
    models = tmp_path_factory.mktemp("bridge")
    write_random_karlo(models / "karlo", wide_size(), vision=False)
    done = subprocess.run(
        [python, "-c", SCRIPT, str(models), str(ROOT), str(folder)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


def test_one_float32_row_of_768_goes_over(told):
    assert told["shape"] == [1, 768] and told["dtype"] == "torch.float32" and told["is_the_priors"]


def test_comfyui_makes_the_1536_numbers_that_the_checkpoint_takes_of_it(told):
    """q(x_0 | embedding) and the embedding of level 0: noise of sqrt(1 - 0.99996) beside the embedding itself."""
    adm, embeds = told["adm"], told["embeds"]
    assert len(adm) == 1536
    assert max(abs(a - e) for a, e in zip(adm[:768], embeds, strict=True)) < 6 * 0.0065 + 1e-3 * max(map(abs, embeds))
    assert sum(map(abs, embeds)) / 768 > 0.1
    assert sorted(set(adm[768:])) == [0.0, 1.0]  # cos 0 and sin 0


def quick(seed):
    """The workflow on 64 px in three steps, with this seed of Karlo's prior."""
    prompt = json.loads((ROOT / "workflows" / "api" / "karlo_to_sd21_unclip.json").read_text(encoding="utf-8"))
    changes = {"UnclipPriorSample": {"seed": seed, "steps": 2}, "KSampler": {"steps": 3},
               "EmptyLatentImage": {"width": 64, "height": 64}}  # fmt: skip
    for node in prompt.values():
        node["inputs"] |= changes.get(node["class_type"], {})
    return prompt


def test_the_workflow_runs_through_stable_diffusion_and_shows_what_the_prior_drew(server, stable_diffusion):
    stable_diffusion("sd21-unclip-l")
    drawn = []
    for seed in (1, 2):
        prompt = quick(seed)
        run = server.run(prompt)
        assert run.ending == "execution_success", run.details
        (image,) = server.images(run.prompt_id)
        assert image.size == (64, 64)
        drawn.append(image.convert("RGB").tobytes())
    changed = {prompt[node]["class_type"] for node in run.executed}
    assert changed == {"UnclipPriorSample", "UnclipToClipVision", "unCLIPConditioning", "KSampler", "VAEDecode",
                       "SaveImage"}  # fmt: skip
    assert drawn[0] != drawn[1]  # the conditioning reaches the UNet


def test_pad_and_pick_stand_between_the_prior_and_stable_diffusion(server, stable_diffusion):
    """The picked one of two embeddings, which the pad made: a corner's image is that of it alone."""
    stable_diffusion("sd21-unclip-l")
    prompt = quick(1)
    (prior,) = [key for key, node in prompt.items() if node["class_type"] == "UnclipPriorSample"]
    (output,) = [key for key, node in prompt.items() if node["class_type"] == "UnclipToClipVision"]
    more = {"inputs": prompt[prior]["inputs"] | {"seed": 2}, "class_type": "UnclipPriorSample"}
    inputs = {"embedding_1": [prior, 0], "embedding_2": ["50", 0], "x": 1.0, "y": 0.0}
    pad = {"inputs": inputs, "class_type": "UnclipEmbeddingPad"}
    batch = {"inputs": {"embedding_1": [prior, 0], "embedding_2": ["51", 0]}, "class_type": "UnclipEmbeddingBatch"}
    pick = {"inputs": {"embedding": ["52", 0], "indices": "1"}, "class_type": "UnclipPick"}
    drawn = []
    for source in ("53", "50"):  # the second of the batch, which is the pad's second corner; that corner itself
        prompt[output]["inputs"]["embedding"] = [source, 0 if source == "50" else 1]
        run = server.run(prompt | {"50": more, "51": pad, "52": batch, "53": pick})
        assert run.ending == "execution_success", run.details
        (image,) = server.images(run.prompt_id)
        drawn.append(image.convert("RGB").tobytes())
    assert drawn[0] == drawn[1]
