"""What test_comfyui_stock_clip.py asks of ComfyUI's classes: PYTHON_OF_COMFYUI this.py PACK COMFYUI."""

import importlib.util
import json
import sys
from types import SimpleNamespace

root, comfyui = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, comfyui)
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import torch  # noqa: E402
from comfy import model_base, model_management, sd1_clip, sdxl_clip, supported_models_base  # noqa: E402
from comfy.clip_vision import ClipVisionModel  # noqa: E402
from comfy.ldm.modules.encoders.noise_aug_modules import CLIPEmbeddingNoiseAugmentation  # noqa: E402
from comfy.sd import CLIP  # noqa: E402
from transformers import (  # noqa: E402
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

import nodes as stock  # noqa: E402

spec = importlib.util.spec_from_file_location("a_pack", root + "/__init__.py", submodule_search_locations=[root])
pack = importlib.util.module_from_spec(spec)
sys.modules["a_pack"] = pack
spec.loader.exec_module(pack)
ours = pack.NODE_CLASS_MAPPINGS
told = {}

G = {"hidden_size": 1280, "num_attention_heads": 20, "intermediate_size": 320, "num_hidden_layers": 3}
L = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 192, "num_hidden_layers": 3}
VISION = {
    "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 3, "num_channels": 3,
    "hidden_act": "gelu", "image_size": 224, "patch_size": 32, "projection_dim": 1280, "layer_norm_eps": 1e-5,
}  # fmt: skip
PROMPT = "a big red cat on a chair"


def randomise(module, seed):
    """Random weights in place: matrices of std 1 / sqrt(fan in), scales of norms about 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        if weight.ndim < 2:
            drawn = 0.1 * drawn + ("norm" in name and name.endswith("weight"))
        else:
            drawn = drawn * (0.05 if "embedding" in name else weight[0].numel() ** -0.5)
        weight.data.copy_(drawn)


def made(tokenizer, model):
    options = {"clip_g_model_config": G, "clip_l_model_config": L, "dtype": torch.float32}
    clip = CLIP(supported_models_base.ClipTarget(tokenizer, model), model_options=options)
    randomise(clip.cond_stage_model, 1)
    return clip


def run(name, *values, **named):
    returned = ours[name]().run(*values, **named)
    return returned["result"] if isinstance(returned, dict) else returned


def apart(a, b):
    return float((a - b).abs().max() / max(1.0, float(b.abs().max())))


def reference(tower, sizes, act, ids):
    """transformers' embeddings and states of token ids, with the tower's weights."""
    config = CLIPTextConfig(**sizes, projection_dim=sizes["hidden_size"], hidden_act=act, eos_token_id=49407)
    model = CLIPTextModelWithProjection(config).eval()
    model.load_state_dict(tower.transformer.state_dict(), strict=False)
    found = model(input_ids=torch.tensor([ids]))
    return found.text_embeds, found.last_hidden_state


def texts(sdxl):
    before = sdxl.encode_from_tokens(sdxl.tokenize(PROMPT), return_pooled=True)
    told["families"], told["lengths"] = [], []
    for name, key, sizes, act in (("clip_g", "g", G, "gelu"), ("clip_l", "l", L, "quick_gelu")):
        (text,) = run("UnclipStockTextEncode", sdxl, PROMPT, name)
        ids = [token for token, _ in sdxl.tokenize(PROMPT)[key][0]]
        embeds, states = reference(getattr(sdxl.cond_stage_model, name), sizes, act, ids)
        mask = text.condition.mask[0]
        told[name] = {
            "embeds": apart(text.condition.embeds, embeds), "states": apart(text.condition.states[0], states[0])
        }  # fmt: skip
        told["lengths"].append(int(mask.sum()))
        told["families"].append(text.family)
    (text,) = run("UnclipStockTextEncode", sdxl, PROMPT)
    told["pooled"] = apart(text.condition.embeds, before[1])
    after = sdxl.encode_from_tokens(sdxl.tokenize(PROMPT), return_pooled=True)
    told["own_encoding_unchanged"] = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    (weighted,) = run("UnclipStockTextEncode", sdxl, "a big (red:1.5) cat on a chair")
    told["weighted"] = apart(weighted.condition.embeds, text.condition.embeds)
    long = " ".join(["a big red cat"] * 30)
    returned = ours["UnclipStockTextEncode"]().run(sdxl, long)
    told["long_warning"] = " ".join(returned["ui"]["warnings"])
    pooled = sdxl.encode_from_tokens(sdxl.tokenize(long), return_pooled=True)[1]
    told["long"] = apart(returned["result"][0].condition.embeds, pooled)


def refusal():
    clip = made(sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel)
    clip.cond_stage_model.clip_l.transformer.text_projection.weight.data.zero_()
    try:
        run("UnclipStockTextEncode", clip, PROMPT)
    except ValueError as error:
        told["refused"] = str(error)


def images(vision, picture):
    told["images"] = {}
    for crop in ("center", "none"):
        embedding, zero = run("UnclipStockImageEncode", vision, picture, crop)
        theirs = stock.CLIPVisionEncode().encode(vision, picture, crop)[0].image_embeds
        told["images"][crop] = torch.equal(embedding.embeds, theirs.float())
    told["image_family"] = embedding.family
    told["image_norms_apart"] = float((embedding.embeds.norm(dim=1) - 1).abs().min())
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)).eval()
    weights = {name: weight.float() for name, weight in vision.model.state_dict().items()}
    model.load_state_dict(weights, strict=False)
    told["zero"] = apart(zero.embeds, model(pixel_values=torch.zeros(1, 3, 224, 224)).image_embeds)
    return embedding


def toolbox(sdxl, vision, embedding, picture):
    (before,), (after,) = (run("UnclipStockTextEncode", sdxl, text) for text in ("a cat", "a dog"))
    (clip,) = run("UnclipStockClip", "auto", sdxl, vision)
    (lines,) = run("UnclipTextEncodeLines", clip, "a cat\na dog")
    (batch,) = run("UnclipEmbeddingBatch", embedding_1=embedding, embedding_2=embedding)
    basis = run("UnclipPcaFit", embedding)[0]
    told["tools"] = {
        "blend": run("UnclipEmbeddingBlend", embedding_1=embedding, embedding_2=embedding)[0].family,
        "interpolate": run("UnclipEmbeddingInterpolate", embedding, embedding)[0].family,
        "diff": run("UnclipTextDiff", embedding, before, after)[0].family,
        "batch": batch.family,
        "pca": run("UnclipPcaReconstruct", basis, embedding, "1,2")[0].family,
        "lines": lines.family,
    }
    matrix = run("UnclipEmbeddingSimilarity", before, embedding)[1]
    cosine = torch.nn.functional.cosine_similarity(before.condition.embeds, embedding.embeds)
    told["similarity"] = [float(number) for number in matrix.split("\n")[1].split()[-len(cosine) :]]
    told["similarity_expected"] = cosine.tolist()
    phrases = "template: a {color} thing\n\ncolor:\n  red\n  blue\n"
    one = run("UnclipEmbeddingBatch", embedding_1=type(embedding)(embedding.embeds[:1], embedding.family, "image"))[0]
    told["caption"] = run("UnclipDescribe", clip, one, custom=phrases)[0]
    told["reranked"] = len(run("UnclipRerank", clip, before, picture, 1)[0])


def exits(embedding):
    output = run("UnclipToClipVision", embedding)[1][0]
    (conditioning,) = stock.unCLIPConditioning().apply_adm([[torch.zeros(1, 77, 2048), {}]], output, 1.0, 0.0)
    noise = CLIPEmbeddingNoiseAugmentation(
        noise_schedule_config={"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}, timestep_dim=1280
    )
    sdxl = model_base.SDXL.__new__(model_base.SDXL)
    torch.nn.Module.__init__(sdxl)
    sdxl.embedder, sdxl.noise_augmentor = model_base.Timestep(256), noise
    adm = sdxl.encode_adm(device=torch.device("cpu"), **conditioning[0][1])
    told["sdxl_width"], told["sdxl"] = adm.shape[1], apart(adm[0, :1280], embedding.embeds[0])
    rows = type(embedding)(torch.randn(2, 768), "karlo", "image")
    (conditioning,) = stock.unCLIPConditioning().apply_adm(
        [[torch.zeros(1, 77, 1280), {"pooled_output": None}]], run("UnclipToClipVision", rows)[0], 1.0, 0.0
    )
    conds = model_base.StableCascade_C.extra_conds(None, **conditioning[0][1])
    told["cascade_shape"] = list(conds["clip_img"].cond.shape)
    told["cascade"] = apart(conds["clip_img"].cond[0], rows.embeds)


def late_vision():
    core = importlib.import_module("a_pack.unclip_core.clip.tower_adapter")
    towers = importlib.import_module("a_pack.unclip_core.nets.clip_towers")
    models = importlib.import_module("a_pack.unclip_core.models")
    image_input = importlib.import_module("a_pack.unclip_core.clip.image_input").ImageInput(8, 8)
    tokenizers = importlib.import_module("a_pack.unclip_core.clip.tokenizer")
    host = importlib.import_module("a_pack.nodes.host")
    text = towers.TextTower(towers.TextTowerParams(32, 64, 1, 2, 16, vocabulary=49408, context=77))
    params = towers.VisionTowerParams(32, 64, 1, 2, 16, image_size=8, patch_size=4)
    late = core.LateVision(params, image_input, lambda dtype: towers.VisionTower(params).to(dtype))
    adapter = core.TowerAdapter(text, late, tokenizers.openai_tokenizer(), None, "here")
    value = host.manage(models.Clip("karlo", adapter))
    found = told["late"] = {"text_bytes": model_management.module_size(adapter.model)}

    def counted():
        return [value.patcher.model_size(), value.patcher.loaded_size()]

    run("UnclipTextEncode", value, "a cat")
    found["text_alone"] = counted()
    run("UnclipImageEncode", value, torch.rand(1, 8, 8, 3))
    found["with_vision"] = counted()
    found["vision_bytes"] = model_management.module_size(adapter.model.vision)
    run("UnclipImageEncode", value, torch.rand(1, 8, 8, 3))
    run("UnclipTextEncode", value, "a dog")
    found["again"] = counted()


def crowded(vision):
    """A stage that runs out of memory, once, beside a stock CLIP_VISION that ComfyUI has loaded."""
    host = importlib.import_module("a_pack.nodes.host")
    values = [host.manage(SimpleNamespace(family="x", module=torch.nn.Linear(8, 8))) for _ in range(2)]
    with host.loaded_together(*values):
        model_management.load_models_gpu([vision.patcher])
        sizes = []

        def attempt(chunks):
            sizes.append(chunks[0].stop)
            if len(sizes) == 1:
                told["crowded"] = [is_loaded(each) for each in (vision, *values)]
                raise torch.OutOfMemoryError("full")
            return [is_loaded(each) for each in (vision, *values)]

        told["alone"] = host.halving(attempt, 2, 2, "x")
    told["tried"] = sizes


def is_loaded(value):
    return any(each.model is value.patcher for each in model_management.current_loaded_models)


with torch.inference_mode():
    torch.manual_seed(0)
    sdxl = made(sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel)
    vision = ClipVisionModel(VISION | {"model_type": "clip_vision_model"})
    randomise(vision.model, 2)
    picture = torch.rand(3, 160, 200, 3)
    texts(sdxl)
    refusal()
    embedding = images(vision, picture)
    toolbox(sdxl, vision, embedding, picture)
    exits(embedding)
    late_vision()
    crowded(vision)
print("RESULT", json.dumps(told))
