"""Kandinsky 2.2 for `unclip bench speed`: a model of half its widths, and how either program loads and draws."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...families.kandinsky22.random_decoder import DecoderSizes, decoder_params
from ...families.kandinsky22.random_decoder import full_size as full_decoder
from ...families.kandinsky22.random_prior import PriorSizes
from ...families.kandinsky22.random_prior import full_size as full_prior
from ...nets.clip_towers import TextTowerParams, VisionTowerParams
from ...nets.movq_params import MoVQParams
from ...nets.prior import PriorParams
from ...weights.files import DTYPES
from ..random_kandinsky import PRIOR, random_kandinsky
from ..stages import PROMPT
from .parts import place_pipeline, read_parts

GUIDANCE = 4.0
SIDES = {"small": 384, "full": 768}
"""Sides of the images by size, px."""

Draw = Callable[[int], Tensor]


def half_prior() -> PriorSizes:
    """Prior and towers at half their widths and fewer layers."""
    shared: dict[str, Any] = {"activation": "gelu", "embed_dim": 640}
    return PriorSizes(
        text=TextTowerParams(width=640, mlp_width=2560, layers=8, heads=10, vocabulary=514, **shared),
        vision=VisionTowerParams(width=832, mlp_width=4096, layers=12, heads=8, image_size=112, **shared),
        prior=PriorParams(width=1024, layers=10, heads=16, head_dim=64, embed_dim=640, text_width=640, text_tokens=77),
    )


def half_decoder() -> DecoderSizes:
    """UNet and MoVQ at half their widths, one block a level in the UNet."""
    channels = (192, 384, 576, 768)
    shape = {"channels": channels, "blocks": (1,) * 4, "attention": (False, True, True, True), "head_dim": 64}
    movq = MoVQParams((64, 128, 128, 256), codes=4096)
    return DecoderSizes(decoder_params(None, 640, 384, SIDES["small"] // 8, **shape), movq)


def model_folder(folder: Path, size: str, dtype: str) -> Path:
    """The decoder's folder of a random model of that size and dtype below `folder`, written if it is not there yet."""
    prior, decoder = {"small": (half_prior, half_decoder), "full": (full_prior, full_decoder)}[size]
    return random_kandinsky(folder / f"kandinsky22-{size}-{dtype}", prior(), decoder(), dtype)


def load_ours(job: dict[str, Any], device: torch.device) -> Draw:
    """Our program, see `read_parts`."""
    part = read_parts(job, device, ("clip", "prior", "decoder"))
    return lambda seed: _draw_ours(part, job, seed)


def _draw_ours(part: Callable[[str], Any], job: dict[str, Any], seed: int) -> Tensor:
    from ...diffusion.noise import BatchNoise
    from ...pipelines import Canvas, encode_text, sample_decoder, sample_prior

    batch, steps, side = job["batch"], job["steps"], job["side"]
    rest: dict[str, Any] = {"seeds": [0] * batch, "sampler": "ddpm", "guidance_scale": GUIDANCE}
    rest["noise"] = BatchNoise(torch.Generator().manual_seed(seed), batch)
    text = encode_text(part("clip"), [PROMPT] * batch)
    embeds = sample_prior(part("prior"), text, steps=steps[0], **rest)
    return sample_decoder(part("decoder"), embeds, steps=steps[1], canvas=Canvas(size=(side, side)), **rest)


def load_diffusers(job: dict[str, Any], device: torch.device) -> Draw:
    """diffusers' two pipelines, as their documentation loads them."""
    from diffusers import KandinskyV22Pipeline, KandinskyV22PriorPipeline

    folder, dtype = Path(job["folder"]), DTYPES[job["dtype"]]
    prior = KandinskyV22PriorPipeline.from_pretrained(folder.parent / PRIOR, torch_dtype=dtype)
    decoder = KandinskyV22Pipeline.from_pretrained(folder, torch_dtype=dtype)
    for pipeline in (prior, decoder):
        place_pipeline(pipeline, job, device)
        pipeline.set_progress_bar_config(disable=True)
    return lambda seed: _draw_diffusers(prior, decoder, job, seed)


def _draw_diffusers(prior: Any, decoder: Any, job: dict[str, Any], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    made = prior(
        [PROMPT] * job["batch"],
        num_inference_steps=job["steps"][0],
        guidance_scale=GUIDANCE,
        generator=generator,
    )
    images = decoder(
        image_embeds=made.image_embeds,
        negative_image_embeds=made.negative_image_embeds,
        num_inference_steps=job["steps"][1],
        guidance_scale=GUIDANCE,
        height=job["side"],
        width=job["side"],
        generator=generator,
        output_type="np",
    ).images
    return torch.from_numpy(images)
