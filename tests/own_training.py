"""Sixteen images with captions, and trainings of small nets on them."""

import json
import math

import torch
from PIL import Image

from unclip.unclip_core.train.run import train as train_on_own

NAMES = [
    "anchor",
    "bell",
    "cloud",
    "drum",
    "eagle",
    "flute",
    "grape",
    "hat",
    "ink",
    "jar",
    "kite",
    "lamp",
    "moon",
    "nut",
    "owl",
    "pear",
]
CLIP_NET = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"context_length": 8, "layers": 1, "width": 16, "heads": 2},
}
PRIOR_NET = {"width": 64, "layers": 2, "heads": 4, "head_dim": 16, "embed_dim": 24, "text_width": 16, "text_tokens": 8}
UNET = {
    "channels": [32, 48],
    "blocks": [1, 1],
    "attention": [False, False],
    "time_channels": 32,
    "time_embed_dim": 64,
    "mid_blocks": 1,
    "groups": 8,
    "patch_size": 2,
    "layout": "light",
}
DECODER_NET = {
    "conditioner": {"kind": "map", "hidden": 96, "time_embed_dim": 64, "map_channels": [16, 16], "map_sizes": [8, 4]},
    "unet": UNET | {"in_channels": 3, "out_channels": 3, "map_channels": [16, 16]},
    "image_size": 16,
}
UPSAMPLER_NET = UNET | {"in_channels": 6, "out_channels": 3, "map_channels": [0, 0], "scale": 2}
NETS = {"clip": CLIP_NET, "prior": PRIOR_NET, "decoder": DECODER_NET, "upsampler": UPSAMPLER_NET}
LOSSES = {
    "clip": {},
    "prior": {"drop_text": 0.0},
    "decoder": {"drop_image": 0.0, "drop_text": 0.0},
    "upsampler": {"size": 16, "crop": 16, "degrade": False},
}


def write_images(folder, count=16, size=20):
    """Smooth images that differ in colour and direction, `size` px high and a little wider."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES[:count]):
        angle = 2 * math.pi * number / count
        x, y = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size + 4), indexing="ij")
        wave = 0.5 + 0.5 * torch.sin(2 * (math.cos(angle) * x + math.sin(angle) * y))
        color = torch.tensor([(number % 4) / 3, (number // 4) / 3, 0.5])
        levels = (wave[..., None] * color * 255).round().to(torch.uint8)
        Image.fromarray(levels.numpy()).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {name}")
    return folder


def config_of(stage, steps, **training):
    """A training from scratch without chance in what is dropped; `training` may hold `base` too."""
    base = training.pop("base", "output")
    settings = {
        "steps": steps,
        "batch": 16,
        "lr": 2e-3,
        "warmup": 10,
        "ema": 0.9,
        "log_every": 1,
        "weight_decay": 0.0,
    } | training
    return {"start": "scratch", "base": base, "training": settings, "loss": dict(LOSSES[stage]), "net": NETS[stage]}


def train(stage, data, output, config, **options):
    """Write the configuration and train; returns the exit code."""
    path = output.parent / f"{output.name}-{stage}.json"
    path.write_text(json.dumps(config))
    return train_on_own(stage, str(data), str(path), str(output), **options)


def curve(output, stage, name="loss"):
    """The logged values by step."""
    lines = (output / "training" / stage / "log.jsonl").read_text().splitlines()
    return {line["step"]: line[name] for line in map(json.loads, lines)}
