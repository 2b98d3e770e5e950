"""Measuring on the world that arithmetic of embeddings moves what it should, and nothing else."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ..embeddings import slerp, text_diff
from ..models import UnclipModel, load_model
from ..noise import sample_seeds
from ..pipelines import encode_image, encode_text, sample_decoder
from ..settings import Settings
from ..world.captions import caption
from ..world.judge import judge, score
from ..world.render import render
from ..world.scenes import Scene, sample_scene
from ..world.vocabulary import COLORS, HELD_OUT

THETAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""The text diff's ways that are tried; 0 shows what the decoder alone gets right."""

BATCH = 50


def evaluate_edits(n: int = 200, seed: int = 0, model: str | Path | None = None, as_json: bool = False,
                   settings: Settings | None = None) -> dict[str, Any]:
    """Judge interpolations and text diffs of `n` single things each, and print and return the shares.

    Args:
        n: scenes; each is a single thing in a colour, and the same thing in another.
        seed: of scenes and noise.
        model: a model folder; None for the bundled model.
        as_json: print JSON in place of a table.
        settings: how to draw; None for the defaults.

    Returns:
        `halfway`: of the pictures halfway (slerp) between the thing in one colour and in the other, the shares that
        show one thing (`count`), its `shape` and its `place`, and all `three`. `text_diff`: for each θ the shares
        whose `color` is the new one, whose `shape` and `place` are the old ones, and all `three`.
    """
    settings = settings or Settings()
    drawn_by = load_model(model)
    scenes, others = recolored(n, seed)
    size = drawn_by.clip.adapter.image_size
    before, after = (_embeds(drawn_by, each, size) for each in (scenes, others))
    texts = [encode_text(drawn_by.clip, [caption(scene) for scene in each]).embeds for each in (scenes, others)]
    figures: dict[str, Any] = {"n": n, "seed": seed}
    halfway = _judged(drawn_by, slerp(before, after, 0.5), scenes, seed, settings, "halfway")
    figures["halfway"] = _shares(halfway, ("count", "shape", "place"))
    figures["text_diff"] = {}
    for theta in THETAS:
        turned = text_diff(before, *texts, theta)
        judged = _judged(drawn_by, turned, others, seed, settings, f"θ = {theta}")
        figures["text_diff"][str(theta)] = _shares(judged, ("color", "shape", "place"))
    print(json.dumps(figures, indent=2) if as_json else table(figures))
    return figures


def recolored(n: int, seed: int) -> tuple[list[Scene], list[Scene]]:
    """`n` scenes of a single thing, and the same scenes with that thing in another colour.

    No (shape, colour) pair is held out: what the model never saw together is measured elsewhere.
    """
    rng = random.Random(f"unclip edits {seed}")
    scenes, others = [], []
    for _ in range(n):
        scene = sample_scene(rng, "single", "trained")
        thing = scene.things[0]
        free = [color for color in range(len(COLORS)) if color != thing.color and (thing.shape, color) not in HELD_OUT]
        scenes.append(scene)
        others.append(replace(scene, things=(replace(thing, color=rng.choice(free)),)))
    return scenes, others


def _embeds(model: UnclipModel, scenes: Sequence[Scene], size: int) -> Tensor:
    return encode_image(model.clip, render(scenes, size).permute(0, 2, 3, 1))


def _judged(model: UnclipModel, embeds: Tensor, scenes: Sequence[Scene], seed: int, settings: Settings,
            title: str) -> list[dict[str, bool]]:
    """What the decoder's pictures of the embeddings have right of the scenes."""
    seeds, scores = sample_seeds(seed, len(scenes)), []
    for at in tqdm(range(0, len(scenes), BATCH), desc=title, unit="batch", disable=None):
        rows = slice(at, at + BATCH)
        pictures = sample_decoder(model.decoder, embeds[rows], steps=settings.decoder_steps, seeds=seeds[rows],
                                  guidance_scale=settings.decoder_guidance, sampler=settings.decoder_sampler)
        found = zip(pictures.permute(0, 3, 1, 2), scenes[rows], strict=True)
        scores += [score(judge(picture), scene) for picture, scene in found]
    return scores


def _shares(scores: Sequence[dict[str, bool]], names: Sequence[str]) -> dict[str, float]:
    together = torch.tensor([[found[name] for name in names] for found in scores], dtype=torch.float64)
    return {**dict(zip(names, together.mean(0).tolist(), strict=True)), "three": float(together.all(1).double().mean())}


def table(figures: dict[str, Any]) -> str:
    """The figures as text, in percent."""
    rows = [("halfway", figures["halfway"])]
    rows += [(f"text diff {theta}", row) for theta, row in figures["text_diff"].items()]
    return "\n".join(f"{name:16}" + "".join(f"{key:>8} {100 * value:5.1f}%" for key, value in row.items())
                     for name, row in rows)
