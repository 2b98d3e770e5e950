"""How much of what is drawn is memory: its distance to the training's drawings; and how much variations vary."""

from itertools import combinations

import torch
from torch import Tensor

from ...diffusion.noise import sample_seeds
from ...models import UnclipModel
from ...pipelines import text_to_image
from .crops import ground_color
from .dataset import World
from .measures import BATCH, drawn, embeds_of, single
from .neighbours import boxed, crop_of
from .pictures import Picture, picture_random

VARIATIONS = 4
"""Drawings of a picture that are compared with each other."""


def memory(model: UnclipModel, world: World, count: int, seed: int) -> dict[str, float]:
    """Distance of drawings of prompts to the nearest of all training drawings, and that of art that was left out.

    Distances are root mean squares over pixels in 0..1 of things in their boxes on white. For "left_out" the true
    drawings of the same things are taken, and all drawings of their own style left out: what a drawing by another
    hand has for its nearest. "nearest_is_it": share of drawings whose nearest is a drawing of the thing asked for.
    """
    known, keys = torch.stack(boxed(world.sprites, torch.ones(3))), list(world.sprites.keys)
    styles = torch.tensor([style for style, _ in keys])
    pictures = [single(world, number, seed) for number in range(count)]
    seeds = sample_seeds(seed, count)
    ours, others, same = [], [], []
    for at in range(0, count, BATCH):
        part = pictures[at : at + BATCH]
        prompts = [_prompt(world, picture, seed) for picture in part]
        images = text_to_image(model, prompts, seeds[at : at + BATCH]).small
        for image, picture in zip(images.permute(0, 3, 1, 2), part, strict=True):
            thing = picture.things[0]
            image = image.float().cpu()
            near = distances(crop_of(image, ground_color(image)), known)
            ours.append(near.min().item())
            same.append(keys[int(near.argmin())][1] == thing.concept)
            own = known[world.sprites.index[thing.style, thing.concept]]
            others.append(distances(own, known)[styles != thing.style].min().item())
    means = {"drawn": ours, "left_out": others, "nearest_is_it": same}
    return {**{name: sum(values) / count for name, values in means.items()}, "n": count}


def diversity(model: UnclipModel, world: World, count: int, seed: int) -> dict[str, float]:
    """Mean distance of variations of one picture to each other, and of those of different pictures.

    `count` drawings in all, VARIATIONS a picture; distances as of `memory`, over whole images.
    """
    pictures = [single(world, number, seed) for number in range(max(2, count // VARIATIONS))]
    rows = [picture for picture in pictures for _ in range(VARIATIONS)]
    images = torch.cat(
        [
            drawn(model, embeds_of(model, world, rows[at : at + BATCH]), seed, at).cpu()
            for at in range(0, len(rows), BATCH)
        ]
    )
    within: list[float] = []
    between: list[float] = []
    for first, second in combinations(range(len(rows)), 2):
        apart = distances(images[first], images[second : second + 1]).item()
        (within if first // VARIATIONS == second // VARIATIONS else between).append(apart)
    return {"within": sum(within) / len(within), "between": sum(between) / len(between), "n": len(rows)}


def distances(one: Tensor, many: Tensor) -> Tensor:
    """Root mean square distances `[N]` of an image `[3, H, W]` to others `[N, 3, H, W]`."""
    return (many - one).square().flatten(1).mean(dim=1).sqrt()


def _prompt(world: World, picture: Picture, seed: int) -> str:
    return world.captions.caption(picture, "en", picture_random(seed, 0, "measure wording"), plain=True)
