"""Small nets, random weights and model folders for tests: look here before you write a helper."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import torch

from unclip.unclip_core.clip.open_clip_adapter import ClipConfig, build_open_clip
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.map_conditioner import MapConditionerParams
from unclip.unclip_core.nets.params import params_to_dict
from unclip.unclip_core.nets.prior import PriorParams, PriorTransformer
from unclip.unclip_core.nets.unet_params import UNetParams
from unclip.unclip_core.nets.upsampler import UpsamplerNet
from unclip.unclip_core.weights.files import save_weights

WIDTH, CONTEXT, SIDE = 16, 32, 16
WORDS = ("a", "red", "blue", "circle", "square")
COMPONENTS = ("clip", "prior", "decoder", "upsampler")


def draw(*shape, seed=1):
    """Gaussian numbers that depend on shape and seed only."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(ours, reference):
    """Greatest difference over max(1, greatest reference value)."""
    return ((ours - reference).abs().max() / reference.abs().max().clamp(min=1)).item()


def unet_params(in_channels, maps, out_channels=3, **changes):
    """A UNet of two levels, without attention: the bundled model's kind."""
    small = UNetParams(
        in_channels=in_channels, out_channels=out_channels, channels=(8, 16), blocks=(1, 1), attention=(False, False),
        map_channels=maps, time_channels=8, time_embed_dim=16, mid_blocks=1, groups=4, patch_size=2, layout="light",
    )  # fmt: skip
    return replace(small, **changes)


def full_unet_params(channels=(8, 16), blocks=(1, 1)):
    """A UNet with attention, over tokens too, in its middle and below its first level: Karlo's kind."""
    deeper = len(channels) - 1
    return UNetParams(
        in_channels=3, out_channels=6, channels=channels, blocks=blocks, attention=(False,) + (True,) * deeper,
        map_channels=(0,) * len(channels), time_channels=8, time_embed_dim=16, mid_attention=True, context_dim=10,
        head_dim=8, groups=4,
    )  # fmt: skip


def turned(net):
    """The net with its convolutions' weights in channels last."""
    return net.to(memory_format=torch.channels_last)


def channels_last(x):
    """The same numbers `[B, C, H, W]`, a pixel's channels side by side in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def is_channels_last(x):
    """Whether a pixel's channels stand side by side in memory."""
    return x.is_contiguous(memory_format=torch.channels_last)


def randomise(net, seed=0):
    """Every parameter random, those that start at zero or one too; returns the net, in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            scale = 0.3 if value.dim() < 2 else 1.5 * value[0].numel() ** -0.5
            around_one = value.dim() == 1 and "norm" in name and name.endswith("weight")
            value.copy_(scale * noise + (1.0 if around_one else 0.0))
    return net.eval()


def randomised(net, scale=0.3, seed=1):
    """The net with all parameters random and none trainable: output layers start at zero, which hides every error."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * (scale / max(1, parameter.ndim))
    return net.eval().requires_grad_(False)


def random_weights(net, seed):
    """Output layers start at zero, which would hide every error."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator) * 0.3 if value.is_floating_point() else value
        for key, value in net.state_dict().items()
    }


def write_model(folder: Path, family="test"):
    """A model folder of one family: text and image embeddings of WIDTH numbers, images of SIDE px."""
    clip = ClipConfig(
        model={
            "embed_dim": WIDTH,
            "vision_cfg": {"image_size": SIDE, "patch_size": 8, "layers": 1, "width": WIDTH, "head_width": 8},
            "text_cfg": {"context_length": CONTEXT, "vocab_size": 515, "layers": 1, "width": WIDTH, "heads": 2},
        },
        merges="r e",
        words=WORDS,
        normalize=True,
    )
    prior = PriorParams(width=16, layers=1, heads=2, head_dim=8, embed_dim=WIDTH, text_width=WIDTH, text_tokens=CONTEXT)
    conditioner = MapConditionerParams(
        embed_dim=WIDTH, hidden=16, time_embed_dim=16, map_channels=(0, 4), map_sizes=(0, SIDE // 4)
    )
    decoder = DecoderParams(conditioner=conditioner, unet=unet_params(3, (0, 4)), image_size=SIDE)
    upsampler = unet_params(6, (0, 0))
    diffusion = asdict(DiffusionSpec(prediction="sample", clip_range=5.0))
    parts = {
        "clip": (build_open_clip(clip), asdict(clip)),
        "prior": (PriorTransformer(prior), {"net": params_to_dict(prior), "unit_norm": True}),
        "decoder": (DecoderNet(decoder), {"net": decoder.to_dict()}),
        "upsampler": (UpsamplerNet(upsampler), {"net": params_to_dict(upsampler), "scale": 4}),
    }
    for seed, (name, (net, config)) in enumerate(parts.items()):
        config = config if name == "clip" else {**config, "diffusion": diffusion}
        save_weights(folder / f"{name}.safetensors", random_weights(net, seed), config)
    index = {name: f"{name}.safetensors" for name in COMPONENTS}
    entries = {"format": "unclip-v1", "family": family, "components": index}
    (folder / "model_index.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def add_second_upsampler(folder: Path, from_size: int, seed: int = 9):
    """A second upsampler of random weights, for images of `from_size` px."""
    params = unet_params(6, (0, 0))
    config = {
        "net": params_to_dict(params),
        "diffusion": asdict(DiffusionSpec(prediction="sample", clip_range=5.0)),
        "scale": 4,
        "from_size": from_size,
    }
    save_weights(folder / "another.safetensors", random_weights(UpsamplerNet(params), seed), config)
    index = json.loads((folder / "model_index.json").read_text())
    index["components"]["second_upsampler"] = "another.safetensors"
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
