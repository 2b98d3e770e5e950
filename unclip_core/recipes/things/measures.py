"""Measures from true pictures: what CLIP names, what lies halfway, what edits turn, what upsampling gains."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...diffusion.noise import sample_seeds
from ...embedding.arithmetic import slerp, text_diff
from ...models import UnclipModel
from ...pipelines import encode_image, encode_text, sample_decoder
from ...pipelines.images import enlarge
from ...pipelines.settings import arguments
from ...pipelines.upsampler import upscale
from .captions import with_articles
from .dataset import LARGE, SMALL, World
from .drawing import draw
from .judge import Judge
from .pictures import FULL, Picture, Placed, draw_picture, picture_random
from .vocabulary import GROUNDS, concepts

BATCH = 32
THETA = 0.35
"""How far text diffs go."""


def pictures_as_tensor(world: World, pictures: Sequence[Picture], pixels: int) -> Tensor:
    """True pictures as `[B, H, W, 3]` in 0..1."""
    return torch.stack([torch.from_numpy(np.array(draw(p, world.sprites, pixels))) for p in pictures]).float() / 255


def zero_shot(model: UnclipModel, world: World, count: int, seed: int) -> dict[str, float]:
    """How many true pictures CLIP finds nearest to their own English name among all: top-1 and top-5."""
    names = [with_articles(f"a/an {name}") for name, _ in world.captions.names["en"]]
    texts = torch.cat([encode_text(model.clip, names[at : at + 64]).embeds for at in range(0, len(names), 64)])
    pictures = [_single(world, number, seed) for number in range(count)]
    hits = []
    for at in range(0, count, BATCH):
        part = pictures[at : at + BATCH]
        best = (encode_image(model.clip, pictures_as_tensor(world, part, SMALL)) @ texts.T).topk(5).indices
        hits.append(best == torch.tensor([p.things[0].concept for p in part])[:, None])
    found = torch.cat(hits)
    return {"top1": found[:, 0].float().mean().item(), "top5": found.any(dim=1).float().mean().item(), "n": count}


def halfway(model: UnclipModel, world: World, judge: Judge, count: int, seed: int) -> dict[str, float]:
    """Pictures drawn from halfway between two things' embeddings: both among the judge's first ten, or one."""
    pairs = [(_single(world, 2 * n, seed), _single(world, 2 * n + 1, seed)) for n in range(count)]
    both = one = 0
    for at in range(0, count, BATCH):
        part = pairs[at : at + BATCH]
        first, second = (_embeds(model, world, [pair[side] for pair in part]) for side in (0, 1))
        for image, pair in zip(_drawn(model, slerp(first, second, 0.5), seed, at), part, strict=True):
            named = [p.things[0].concept in judge.one(image, most=10).things for p in pair]
            both, one = both + all(named), one + any(named)
    return {"both": both / count, "one": one / count, "n": count}


def edits(model: UnclipModel, world: World, judge: Judge, count: int, seed: int) -> dict[str, float]:
    """Text diffs of true pictures to another ground or style: what was asked turned, and the thing stayed (top-5)."""
    before = [_single(world, n, seed) for n in range(count)]
    after = [_edited(world, picture, n, seed) for n, picture in enumerate(before)]
    turned, stayed, right = [], [], []
    for at in range(0, count, BATCH):
        rows = slice(at, at + BATCH)
        old_text, new_text = (_texts(model, world, part[rows], seed) for part in (before, after))
        embeds = text_diff(_embeds(model, world, before[rows]), old_text, new_text, THETA)
        for image, old, new in zip(_drawn(model, embeds, seed, at), before[rows], after[rows], strict=True):
            seen = judge.one(image)
            ground = judge.ground(image) == new.ground
            turned.append(ground if new.ground != old.ground else seen.style == new.things[0].style)
            stayed.append(old.things[0].concept in seen.things)
            right.append(turned[-1] and stayed[-1])
    names = {"turned": turned, "stayed": stayed, "all": right}
    return {**{name: sum(values) / count for name, values in names.items()}, "n": count}


def upsampling(model: UnclipModel, world: World, count: int, seed: int) -> dict[str, float]:
    """Mean PSNR in dB of the upsampler and of bicubic interpolation, from true pictures reduced to 64 px."""
    ours, bicubic = [], []
    for number in range(count):
        picture = draw_picture(picture_random(seed, number, "measure upsampler"), world.sprites)
        true = pictures_as_tensor(world, [picture], LARGE)
        small = torch.nn.functional.avg_pool2d(true.permute(0, 3, 1, 2), LARGE // SMALL).permute(0, 2, 3, 1)
        ours.append(psnr(upscale(model.upsampler, small, seeds=[seed + number]), true))
        bicubic.append(psnr(enlarge(small, LARGE // SMALL), true))
    found = {"upsampler": sum(ours) / count, "bicubic": sum(bicubic) / count}
    return {**found, "gain": found["upsampler"] - found["bicubic"], "n": count}


def psnr(image: Tensor, true: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in 0..1."""
    return -10 * math.log10(max((image.cpu() - true).square().mean().item(), 1e-10))


def _single(world: World, number: int, seed: int) -> Picture:
    """One thing in the middle of white."""
    chance = picture_random(seed, number, "measure single")
    concept = chance.randrange(len(concepts()))
    placed = Placed(concept, chance.choice(world.sprites.styles[concept]), 0.5, 0.5, sum(FULL) / 2)
    return Picture("thing", 0, (placed,), says=frozenset({"style", "ground"}))


def _edited(world: World, picture: Picture, number: int, seed: int) -> Picture:
    chance, thing = picture_random(seed, number, "measure edit"), picture.things[0]
    others = [style for style in world.sprites.styles[thing.concept] if style != thing.style]
    if others and number % 2:
        return replace(picture, things=(replace(thing, style=chance.choice(others)),))
    return replace(picture, ground=chance.randrange(1, len(GROUNDS)))


def _texts(model: UnclipModel, world: World, pictures: Sequence[Picture], seed: int) -> Tensor:
    said = [
        world.captions.caption(picture, "en", picture_random(seed, 0, "measure wording"), plain=True)
        for picture in pictures
    ]
    return encode_text(model.clip, said).embeds


def _embeds(model: UnclipModel, world: World, pictures: Sequence[Picture]) -> Tensor:
    return encode_image(model.clip, pictures_as_tensor(world, pictures, SMALL))


def _drawn(model: UnclipModel, embeds: Tensor, seed: int, at: int) -> Tensor:
    """Drawn of embeddings alone, `[B, 3, H, W]`."""
    seeds = sample_seeds(seed + at, len(embeds))
    images = sample_decoder(model.decoder, embeds, seeds=seeds, **arguments(model.decoder.settings))
    return images.permute(0, 3, 1, 2)
