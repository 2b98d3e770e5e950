"""Measures from true pictures: what CLIP names, what lies halfway, what edits turn, what upsampling gains."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...clip.adapter import TextCondition
from ...diffusion.noise import sample_seeds
from ...embedding.arithmetic import slerp
from ...embedding.describe import Describer
from ...embedding.phrase_lists import BUILT_IN, read_phrases
from ...models import UnclipModel
from ...pipelines import embed_text, encode_image, sample_decoder
from ...pipelines.images import enlarge
from ...pipelines.settings import arguments
from ...pipelines.upsampler import upscale
from .captions import with_articles
from .dataset import LARGE, SMALL, World
from .drawing import draw
from .judge import Judge
from .pictures import FULL, Picture, Placed, draw_picture, draw_thing, picture_random
from .vocabulary import GROUNDS, STYLES, concepts

BATCH = 32


def pictures_as_tensor(world: World, pictures: Sequence[Picture], pixels: int) -> Tensor:
    """True pictures as `[B, H, W, 3]` in 0..1."""
    return torch.stack([torch.from_numpy(np.array(draw(p, world.sprites, pixels))) for p in pictures]).float() / 255


def zero_shot(model: UnclipModel, world: World, count: int, seed: int) -> dict[str, float]:
    """How many true pictures CLIP finds nearest to their own English name among all: top-1 and top-5."""
    return _named(model, world, [single(world, number, seed) for number in range(count)])


def described(model: UnclipModel, world: World, count: int, seed: int) -> dict[str, float]:
    """What *Describe* says of true pictures of things of any size in any place before any ground.

    The share whose thing it names, "top1", or has among the five most likely in its place, "top5"; and whose style and
    ground are right, which count as wrong where they are not said.
    """
    chances = [picture_random(seed, number, "measure describe") for number in range(count)]
    pictures = [draw_thing(chance, world.sprites) for chance in chances]
    phrases = read_phrases(BUILT_IN["things"])
    names = phrases.choices("thing")  # in the order of the concepts
    describer = Describer(lambda texts: embed_text(model.clip, texts), phrases)
    found: list[tuple[bool, ...]] = []
    for at in range(0, count, BATCH):
        part = pictures[at : at + BATCH]
        for embed, picture in zip(embeds_of(model, world, part), part, strict=True):
            said, thing = describer.describe(embed), picture.things[0]
            wanted = names[thing.concept]
            likely = [choice.text for choice in said.alternatives["thing"]]
            style, ground = STYLES[thing.style], list(GROUNDS)[picture.ground]
            right = (said.slots.get("style") == style, said.slots.get("background") == ground)
            found.append((said.slots["thing"] == wanted, wanted in likely, *right))
    shares = torch.tensor(found).float().mean(dim=0).tolist()
    return {**dict(zip(("top1", "top5", "style", "ground"), shares, strict=True)), "n": count}


def _named(model: UnclipModel, world: World, pictures: Sequence[Picture]) -> dict[str, float]:
    names = [with_articles(f"a/an {name}") for name, _ in world.captions.names["en"]]
    texts = embed_text(model.clip, names)
    hits = []
    for at in range(0, len(pictures), BATCH):
        part = pictures[at : at + BATCH]
        best = (embeds_of(model, world, part) @ texts.T).topk(5).indices.cpu()
        hits.append(best == torch.tensor([p.things[0].concept for p in part])[:, None])
    found = torch.cat(hits).float()
    return {"top1": found[:, 0].mean().item(), "top5": found.amax(dim=1).mean().item(), "n": len(pictures)}


def halfway(model: UnclipModel, world: World, judge: Judge, count: int, seed: int) -> dict[str, float]:
    """Pictures drawn from halfway between two things' embeddings: both among the judge's first ten, or one."""
    pairs = [(single(world, 2 * n, seed), single(world, 2 * n + 1, seed)) for n in range(count)]
    both = one = 0
    for at in range(0, count, BATCH):
        part = pairs[at : at + BATCH]
        first, second = (embeds_of(model, world, [pair[side] for pair in part]) for side in (0, 1))
        for image, pair in zip(drawn_large(model, slerp(first, second, 0.5), seed, at), part, strict=True):
            named = [p.things[0].concept in judge.one(image, most=10).things for p in pair]
            both, one = both + all(named), one + any(named)
    return {"both": both / count, "one": one / count, "n": count}


def upsampling(model: UnclipModel, world: World, count: int, seed: int) -> dict[str, float]:
    """Mean PSNR in dB of the upsampler and of bicubic interpolation, from true pictures reduced to 64 px."""
    ours, bicubic = [], []
    for number in range(count):
        picture = draw_picture(picture_random(seed, number, "measure upsampler"), world.sprites)
        true = pictures_as_tensor(world, [picture], LARGE)
        small = torch.nn.functional.avg_pool2d(true.permute(0, 3, 1, 2), LARGE // SMALL)
        ours.append(psnr(upscale(model.upsampler, small.permute(0, 2, 3, 1), seeds=[seed + number]), true))
        bicubic.append(psnr(enlarge(small, LARGE // SMALL).permute(0, 2, 3, 1), true))
    found = {"upsampler": sum(ours) / count, "bicubic": sum(bicubic) / count}
    return {**found, "gain": found["upsampler"] - found["bicubic"], "n": count}


def psnr(image: Tensor, true: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in 0..1."""
    return -10 * math.log10(max((image.cpu() - true).square().mean().item(), 1e-10))


def single(world: World, number: int, seed: int) -> Picture:
    """One thing in the middle of white."""
    chance = picture_random(seed, number, "measure single")
    concept = chance.randrange(len(concepts()))
    placed = Placed(concept, chance.choice(world.sprites.styles[concept]), 0.5, 0.5, sum(FULL) / 2)
    return Picture("thing", 0, (placed,), says=frozenset({"style", "ground"}))


def embeds_of(model: UnclipModel, world: World, pictures: Sequence[Picture]) -> Tensor:
    """CLIP's embeddings `[B, D]` of true pictures."""
    return encode_image(model.clip, pictures_as_tensor(world, pictures, SMALL))


def drawn(model: UnclipModel, embeds: Tensor, seed: int, at: int, text: TextCondition | None = None) -> Tensor:
    """Drawn by the decoder of embeddings, and of a text each beside them, `[B, 3, H, W]`."""
    seeds = sample_seeds(seed + at, len(embeds))
    images = sample_decoder(model.decoder, embeds, text=text, seeds=seeds, **arguments(model.decoder.settings))
    return images.permute(0, 3, 1, 2)


def drawn_large(model: UnclipModel, embeds: Tensor, seed: int, at: int, text: TextCondition | None = None) -> Tensor:
    """As `drawn`, and then by the upsampler."""
    small = drawn(model, embeds, seed, at, text).permute(0, 2, 3, 1)
    return upscale(model.upsampler, small, seeds=sample_seeds(seed + at, len(embeds))).permute(0, 3, 1, 2)
