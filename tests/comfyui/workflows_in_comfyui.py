"""Runs workflows that need stock models in ComfyUI's own node classes: PYTHON_OF_COMFYUI this.py PACK COMFYUI MODELS.

The loaders hand out small random models of ComfyUI's own classes: UNets of a level, towers of three layers. By their
files ComfyUI would take none of them: it tells models by shapes of 0.7 billion numbers and more. MODELS is a folder
with a small random Kandinsky.
"""

import importlib.util
import itertools
import json
import sys
from pathlib import Path

root, comfyui, models_folder = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, comfyui)
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import nodes as stock  # noqa: E402, I001
import folder_paths  # noqa: E402
import torch  # noqa: E402
from comfy import model_patcher, sdxl_clip, supported_models, supported_models_base  # noqa: E402
from comfy.clip_vision import ClipVisionModel  # noqa: E402
from comfy.ldm.cascade.stage_a import StageA  # noqa: E402
from comfy.sd import CLIP, VAE  # noqa: E402
from comfy.taesd.taesd import TAESD  # noqa: E402
from comfy_extras import nodes_stable_cascade  # noqa: E402

spec = importlib.util.spec_from_file_location("a_pack", root + "/__init__.py", submodule_search_locations=[root])
pack = importlib.util.module_from_spec(spec)
sys.modules["a_pack"] = pack
spec.loader.exec_module(pack)
folder_paths.add_model_folder_path("unclip", models_folder)
CLASSES = {**stock.NODE_CLASS_MAPPINGS, **pack.NODE_CLASS_MAPPINGS}
CLASSES |= {
    name: getattr(nodes_stable_cascade, name)
    for name in ("StableCascade_EmptyLatentImage", "StableCascade_StageB_Conditioning")
}
G = {"hidden_size": 1280, "num_attention_heads": 20, "intermediate_size": 320, "num_hidden_layers": 3}
VISION = {
    "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 3, "num_channels": 3,
    "hidden_act": "quick_gelu", "image_size": 224, "patch_size": 32, "layer_norm_eps": 1e-5,
    "model_type": "clip_vision_model",
}  # fmt: skip
L = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 192, "num_hidden_layers": 3}
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_res_blocks": [1],
    "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1], "transformer_depth_middle": 1,
    "context_dim": 2048, "use_spatial_transformer": True, "use_linear_in_transformer": True,
    "num_classes": "sequential", "adm_in_channels": 2816, "legacy": False,
}  # fmt: skip
STAGE_C = {"c_cond": 64, "c_hidden": [64, 64], "nhead": [2, 2], "blocks": [[1, 1], [1, 1]]}
STAGE_B = {"c_cond": 64, "c_hidden": [32, 32, 64, 64], "nhead": [-1, -1, 2, 2], "blocks": [[1] * 4] * 2,
           "block_repeat": [[1] * 4] * 2}  # fmt: skip


def randomised(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 and weight.numel() else 0.1
        weight.data.copy_(scale * torch.randn(weight.shape, generator=generator))
    return module


def net(config, sizes, seed):
    made = config(sizes)
    made.set_inference_dtype(torch.float32, None)
    model = made.get_model({}, device=torch.device("cpu"))
    randomised(model.diffusion_model, seed)
    return model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def stage(config, sizes, seed):
    return net(config, {**config.unet_config, **sizes}, seed)


def text_encoder(tokenizer, model):
    target = supported_models_base.ClipTarget(tokenizer, model)
    options = {"clip_g_model_config": G, "clip_l_model_config": L, "dtype": torch.float32}
    clip = CLIP(target, model_options=options)
    randomised(clip.cond_stage_model, 1)
    return clip


def image_encoder(width):
    vision = ClipVisionModel(VISION | {"projection_dim": width})
    randomised(vision.model, 2)
    return vision


def cascade():
    """class of a loader -> what it hands out, for Stable Cascade."""
    clip = text_encoder(sdxl_clip.StableCascadeTokenizer, sdxl_clip.StableCascadeClipModel)
    stages = stage(supported_models.Stable_Cascade_C, STAGE_C, 4), stage(supported_models.Stable_Cascade_B, STAGE_B, 5)
    return {
        "unCLIPCheckpointLoader": (stages[0], clip, None, image_encoder(768)),
        "CheckpointLoaderSimple": (stages[1], clip, VAE(sd=randomised(StageA(), 3).state_dict())),
    }


def sdxl():
    """class of a loader -> what it hands out, for SDXL and ViT-bigG."""
    clip = text_encoder(sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel)
    vae = VAE(sd=randomised(TAESD(latent_channels=4), 3).state_dict())
    model = net(supported_models.SDXL, dict(UNET), 4)
    return {"CheckpointLoaderSimple": (model, clip, vae), "CLIPVisionLoader": (image_encoder(1280),)}


def execute(prompt, given, pictures):
    """The prompt's last image; nodes stand in their order."""
    results = {}
    for key, node in prompt.items():
        kind = node["class_type"]
        inputs = {k: results[v[0]][v[1]] if isinstance(v, list) else v for k, v in node["inputs"].items()}
        if kind == "LoadImage":
            results[key] = (pictures.pop(0),)
        elif kind == "SaveImage":
            return inputs["images"]
        elif given.get(kind):
            results[key] = given[kind]
        else:
            results[key] = called(CLASSES[kind], inputs)
    raise AssertionError("nothing is saved")


def called(node, inputs):
    """A node's results; of a list its first, for which what follows would run first."""
    if hasattr(node, "execute"):
        return node.execute(**inputs).args
    returned = getattr(node(), node.FUNCTION)(**inputs)
    returned = returned["result"] if isinstance(returned, dict) else returned
    lists = getattr(node, "OUTPUT_IS_LIST", [False] * len(returned))
    return tuple(value[0] if is_list else value for value, is_list in zip(returned, lists, strict=True))


QUICK = {
    "KSampler": {"steps": 2}, "StableCascade_EmptyLatentImage": {"width": 128, "height": 128},
    "EmptyLatentImage": {"width": 64, "height": 64}, "UnclipPriorSample": {"steps": 2},
}  # fmt: skip


def draw(name, given, **changes):
    """The image of a workflow on few pixels in few steps, with changes by the nodes' classes."""
    path = Path(root) / "workflows" / "api" / f"{name}.json"
    prompt = json.loads(path.read_text(encoding="utf-8"))
    for node in prompt.values():
        node["inputs"] |= QUICK.get(node["class_type"], {}) | changes.get(node["class_type"], {})
    return execute(prompt, given, pictures())


def pictures():
    """A dark picture and a bright one: to towers of random weights two noises look the same."""
    dark, bright = 0.3 * torch.rand(2, 1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    return [dark * torch.tensor([1.0, 0.2, 0.2]), 1 - bright * torch.tensor([1.0, 0.2, 0.2])]


def told(images):
    return {
        "shape": list(images[0].shape),
        "finite": all(bool(torch.isfinite(image).all()) for image in images),
        "apart": [float((one - other).abs().mean()) for one, other in itertools.pairwise(images)],
    }


with torch.inference_mode():
    small = sdxl()
    found = {
        "sdxl_revision_blend": told([
            draw("sdxl_revision_blend", small),
            draw("sdxl_revision_blend", small, UnclipEmbeddingBlend={"weight_1": -1.0}),
            draw("sdxl_revision_blend", small, UnclipTextDiff={"theta": 0.9}),
        ]),
        "kandinsky_to_sdxl_revision": told([
            draw("kandinsky_to_sdxl_revision", small, UnclipStockTextEncode={"text": text})
            for text in ("a red fox", "a blue whale")
        ]),
    }  # fmt: skip
    small = cascade()
    found["stable_cascade_blend"] = told(
        [draw("stable_cascade_blend", small, UnclipEmbeddingInterpolate={"t": t}) for t in (0.0, 1.0)]
    )
print("RESULT", json.dumps(found))
