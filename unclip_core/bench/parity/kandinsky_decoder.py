"""Kandinsky 2.2's decoder folders against diffusers' own nets and pipelines, on small random models."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...diffusion.noise import BatchNoise
from ...families.kandinsky22.decoder_writer import PIPELINES
from ...families.kandinsky22.random_decoder import small_size, write_random_decoder
from ...families.loading import load_model
from ...models import Decoder
from ...pipelines import Canvas, sample_decoder
from ...pipelines.masked import inpaint_masked
from .oracle import quiet
from .runs import FORWARD, LARGE, Row, compare

WIDTH, STEPS, GUIDANCE, SIZE = 20, 8, 4.0, (64, 128)
NAMES = {None: "Kandinsky's decoder", "masked": "Kandinsky's inpainting", "hint": "Kandinsky's controlnet"}


def rows(folder: Path) -> list[Row]:
    """All comparisons of the three kinds of decoder."""
    found: list[Row] = []
    for number, (beside, kind) in enumerate(PIPELINES.items()):
        place = folder / f"kandinsky-decoder-{number}"
        write_random_decoder(place, small_size(WIDTH, beside), seed=30 + number)
        found += [*forwards(pipe := _pipeline(kind, place), decoder := load_model(place).decoder), run(pipe, decoder)]
    return found


@torch.no_grad()
def forwards(pipe: Any, decoder: Decoder) -> list[Row]:
    """Compare one forward pass of the UNet, and both directions of MoVQ."""
    name, x, t = NAMES[decoder.reads_beside], _drawn(2, 4, 8, 16), torch.tensor([981, 1])
    embeds, picture = _drawn(2, WIDTH, seed=2), _pictures(*SIZE).movedim(-1, 1)
    condition, added = decoder.net.condition(embeds), {"image_embeds": embeds}
    sample = x
    if decoder.reads_beside == "hint":
        condition["beside"], added["hint"] = decoder.net.conditioner.read_hint(picture), picture
    elif decoder.reads_beside == "masked":
        condition["beside"] = _drawn(2, 5, 8, 16, seed=3)
        sample = torch.cat([x, condition["beside"]], dim=1)
    reference = pipe.unet(sample, t, encoder_hidden_states=None, added_cond_kwargs=added).sample
    latents = pipe.movq.encode(picture * 2 - 1).latents
    decoded = pipe.movq.decode(latents, force_not_quantize=True).sample
    return [
        compare("UNet", name, decoder.net(x, t, condition), reference, FORWARD),
        compare("MoVQ: encode", name, decoder.codec.encode(picture * 2 - 1), latents, FORWARD),
        compare("MoVQ: decode", name, decoder.codec.decode(latents), decoded, FORWARD),
    ]


@torch.no_grad()
def run(pipe: Any, decoder: Decoder, seed: int = 5) -> Row:
    """Compare images of a whole run; random nets draw saturated ones, so it is the mean that tells."""
    embeds, negative = _drawn(2, WIDTH, seed=6), _drawn(2, WIDTH, seed=7)
    settings: dict[str, Any] = {"steps": STEPS, "guidance_scale": GUIDANCE, "sampler": "ddpm", "seeds": [0, 0]}
    settings |= {"negative_embeds": negative, "noise": BatchNoise(_seeded(seed), 2)}
    pictures, mask = _pictures(*SIZE), torch.zeros(2, *SIZE)
    mask[:, 13:40, 20:70] = 1
    more: dict[str, Any] = {}
    if decoder.reads_beside == "masked":
        pictures = pictures[:1].expand(2, -1, -1, -1)  # diffusers keeps the first one in all of a batch
        more = {"image": pictures.movedim(-1, 1) * 2 - 1, "mask_image": mask[:, None].clone()}
        ours = inpaint_masked(decoder, pictures, mask, embeds, compatible=True, **settings)
    else:
        hint = pictures if decoder.reads_beside == "hint" else None
        more = {} if hint is None else {"hint": hint.movedim(-1, 1)}
        ours = sample_decoder(decoder, embeds, canvas=Canvas(size=SIZE, hint=hint), **settings)
    reference = pipe(
        image_embeds=embeds,
        negative_image_embeds=negative,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        height=SIZE[0],
        width=SIZE[1],
        generator=_seeded(seed),
        output_type="np",
        **more,
    ).images
    what, name = f"embedding to image, {STEPS} steps", NAMES[decoder.reads_beside]
    return compare(what, name, ours, torch.from_numpy(reference), LARGE, by_mean=True)


def _pipeline(kind: str, folder: Path) -> Any:
    import diffusers

    return quiet(getattr(diffusers, kind).from_pretrained(folder))


def _drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=_seeded(seed))


def _pictures(height: int, width: int) -> Tensor:
    return torch.rand(2, height, width, 3, generator=_seeded(4))


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
