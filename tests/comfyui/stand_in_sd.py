"""Checkpoints that stand in for Stable Diffusion, random, in the layout that stock ComfyUI loads them from.

    PYTHON_OF_COMFYUI stand_in_sd.py COMFYUI_FOLDER KIND FILE.ckpt     KIND: sd15, sd21-unclip-l, or sd15-full

Names and shapes are those of ComfyUI's own classes. The UNet has one level of Stable Diffusion's width (320 channels,
26 and 30 million numbers), the VAE is the small one (TAESD's layout); `sd15-full` has Stable Diffusion 1.5's own UNet
and VAE (860 and 84 million). The text encoder is always of the real size (123 and 354 million), since its shape is
fixed in ComfyUI; its layers after the first are zero, so that they hand on what they get, and zeros take no room in the
file. There is no vision tower.
"""

import sys
from pathlib import Path

comfyui, kind, target = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
sys.path.insert(0, comfyui)
import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()
import torch  # noqa: E402
from comfy import ops, sd1_clip, supported_models  # noqa: E402
from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from comfy.taesd.taesd import TAESD  # noqa: E402
from comfy.text_encoders import sd2_clip  # noqa: E402

SMALL = {
    "num_res_blocks": [1],
    "channel_mult": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [1, 1],
    "transformer_depth_middle": 1,
}
FULL = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
}
SD15 = {"context_dim": 768, "num_heads": 8}
SD21_UNCLIP = {
    "context_dim": 1024,
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
    "num_classes": "sequential",
    "adm_in_channels": 1536,
}
KL = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
KINDS = {
    "sd15": (SD15 | SMALL, supported_models.SD15, sd1_clip.SD1ClipModel, False),
    "sd15-full": (SD15 | FULL, supported_models.SD15, sd1_clip.SD1ClipModel, True),
    "sd21-unclip-l": (SD21_UNCLIP | SMALL, supported_models.SD21UnclipL, sd2_clip.SD2ClipModel, False),
}


def unet(config):
    return UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        legacy=False,
        device="meta",
        use_spatial_transformer=True,
        operations=ops.disable_weight_init,
        dtype=torch.float16,
        **config,
    )


def vae(full):
    with torch.device("meta"):
        return AutoencoderKL(ddconfig=KL, embed_dim=4) if full else TAESD(latent_channels=4)


def drawn(net, prefix, zero=lambda name: False):
    """name -> random weights of a net's shapes; those that `zero` names are zeros of one stored number."""
    return {
        prefix + name: zeros(value) if zero(name) else filled(name, value) for name, value in net.state_dict().items()
    }


def zeros(value):
    return torch.zeros((), dtype=torch.float16).expand(value.shape)


def filled(name, value):
    if value.ndim < 2:  # scales of norms, and what is added
        scale = name.endswith("weight") or "vae_scale" in name
        return torch.full(value.shape, 1.0 if scale else 0.0, dtype=torch.float16)
    return (torch.randn(value.shape) * value[0].numel() ** -0.5).half()


def later_layer(name):
    return ".layers." in name and ".layers.0." not in name and ".layer_norm" not in name


def main():
    torch.manual_seed(0)
    config, model, text, full = KINDS[kind]
    with torch.device("meta"):
        encoder = text(device="meta", dtype=torch.float16)
    tokens = model({}).process_clip_state_dict_for_saving(drawn(encoder, "", later_layer))
    state = drawn(unet(config), "model.diffusion_model.") | drawn(vae(full), "first_stage_model.")
    state |= {name: value if value.any() else zeros(value) for name, value in tokens.items()}
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state}, target)


main()
