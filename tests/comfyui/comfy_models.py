"""What a server's base folder needs for the workflows: small random models, stand-ins for Stable Diffusion."""

import subprocess
from dataclasses import replace
from pathlib import Path

from comfy_server import environment
from eclipse_folders import random_prior
from PIL import Image

from unclip.unclip_core.families.kandinsky22 import random_decoder
from unclip.unclip_core.families.kandinsky22 import random_prior as random_kandinsky
from unclip.unclip_core.families.karlo.random_weights import full_size, small_size, write_random_karlo

STAND_IN = Path(__file__).with_name("stand_in_sd.py")
STOCK_FILES = {
    "checkpoints": [
        "sd21-unclip-l.ckpt", "sd_xl_base_1.0.safetensors", "stable_cascade_stage_c.safetensors",
        "stable_cascade_stage_b.safetensors",
    ],
    "clip_vision": ["clip_vision_g.safetensors"],
}  # fmt: skip
"""What the workflows name of stock models, by its folder."""


def wide_size():
    """The small Karlo with embeddings of 768 numbers, as Karlo's and SD 2.1 unCLIP-L's are."""
    small, width = small_size(), full_size().prior.embed_dim
    decoder = replace(small.decoder, conditioner=replace(small.decoder.conditioner, embed_dim=width, text_width=width))
    return replace(
        small, text=replace(small.text, width=width, embed_dim=width, heads=12, layers=1),
        prior=replace(small.prior, embed_dim=width, text_width=width), decoder=decoder,
    )  # fmt: skip


KARLO = {"karlo-v1-alpha": wide_size(), "karlo-v1-alpha-image-variations": small_size()}


KANDINSKY = {
    "kandinsky-2-2-decoder": None,
    "kandinsky-2-2-decoder-inpaint": "masked",
    "kandinsky-2-2-controlnet-depth": "hint",
}
KANDINSKY_WIDTH = 1280  # by which ECLIPSE's prior is told to be Kandinsky's


def write_kandinsky(models):
    """Small random Kandinskys and priors of ECLIPSE under the published names."""
    random_kandinsky.write_random_prior(models / "kandinsky-2-2-prior", random_kandinsky.small_size(KANDINSKY_WIDTH))
    for name, beside in KANDINSKY.items():
        sizes = random_decoder.small_size(KANDINSKY_WIDTH, beside)
        random_decoder.write_random_decoder(models / name, sizes, prior="kandinsky-community/kandinsky-2-2-prior")
    random_prior(models / "ECLIPSE_KandinskyV22_Prior", KANDINSKY_WIDTH)
    random_prior(models / "ECLIPSE_Karlo_Prior", full_size().prior.embed_dim)


def furnished(base):
    """The base folder with what the workflows name: small random models, and the image of ComfyUI's own.

    Files of stock models are empty ones until `write_stable_diffusion`: they are listed, but cannot be loaded.
    """
    for name, sizes in KARLO.items():
        write_random_karlo(base / "models" / "unclip" / name, sizes)
    write_kandinsky(base / "models" / "unclip")
    for folder, files in STOCK_FILES.items():
        (base / "models" / folder).mkdir()
        for file in files:
            (base / "models" / folder / file).touch()
    (base / "input").mkdir()
    picture = Image.linear_gradient("L").convert("RGBA")
    picture.paste((0, 0, 0, 0), (64, 64, 160, 160))  # the hole that a mask is read from
    picture.save(base / "input" / "example.png")
    picture.rotate(90).save(base / "input" / "other.png")
    return base


def write_stable_diffusion(comfyui, base, kind):
    """Write a random checkpoint of a kind that `stand_in_sd.py` knows among the models: its name in ComfyUI."""
    folder, python = comfyui
    file = base / "models" / "checkpoints" / f"{kind}.ckpt"
    command = [python, str(STAND_IN), str(folder), kind, str(file)]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return file.name
