"""How well edits by arithmetic of embeddings change what they should and keep the rest, on the world of shapes."""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diffusion.inversion import Inverted
from ..diffusion.noise import sample_seeds
from ..embedding.arithmetic import slerp, text_diff
from ..families.loading import SHAPES, placed_model
from ..models import StageSettings, UnclipModel
from ..output import progress_bar, say
from ..pipelines import embed_text, encode_image, sample_decoder
from ..pipelines.editing import invert_decoder
from ..pipelines.settings import Settings, arguments
from ..weights.choices import AUTO
from ..weights.devices import computing_on
from ..world.captions import caption
from ..world.judge import judge, score
from ..world.render import render
from ..world.scenes import Scene, sample_scene
from ..world.vocabulary import COLORS, HELD_OUT

THETAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""The text diff's angles θ that are tried, as fractions; 0 shows what the decoder alone keeps."""

BATCH = 50
"""Scenes encoded, inverted or drawn together."""

KEPT = ("count", "shape", "place")
"""What an image halfway between a thing in two colours has to show: one thing, of its shape, in its place."""

EDITED = ("color", "shape", "place")
"""What an edited image must show: the new colour, the old shape and place."""


def evaluate_edits(
    n: int = 200,
    seed: int = 0,
    model: str | Path | None = None,
    as_json: bool = False,
    thetas: Sequence[float] = THETAS,
    inverted: bool = False,
    settings: Settings | None = None,
    device: str = AUTO,
) -> dict[str, Any]:
    """Judge interpolations and text diffs of `n` single things each, and print and return the shares.

    Args:
        n: scenes; each is a single thing in a colour, and the same thing in another.
        seed: of scenes and noise.
        model: a model folder; None for the bundled one of shapes.
        as_json: print JSON in place of a table.
        thetas: how far the text diff goes, each in 0..1.
        inverted: whether the text diff is drawn from the noise of the unedited image (DDIM inversion, without
            guidance), which keeps its content; otherwise from fresh noise.
        settings: how to draw; None for the model's own.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.

    Returns:
        `halfway`: of the images halfway (slerp) between the thing in one colour and in the other, the shares that
        show what is `KEPT`, and `all` of it. `text_diff`: for each θ the shares of what is `EDITED`, and `all` of it.
        `theta`: the θ with the largest share of all.

    Raises:
        ValueError: there are no scenes, or θ is none or out of its range.
    """
    if n < 1 or not thetas or not all(0 <= theta <= 1 for theta in thetas):
        raise ValueError(
            f"cannot evaluate edits of {n} scenes by θ of {list(thetas)}: at least 1 is needed of each, "
            "and θ lies between 0 and 1"
        )
    studio = Studio(placed_model(model or SHAPES, device, ("clip", "decoder")), seed, settings or Settings())
    scenes, others = recolored(n, seed)
    before, after = (studio.embeds(each) for each in (scenes, others))
    texts = [embed_text(studio.model.clip, [caption(scene) for scene in each]) for each in (scenes, others)]
    halfway = studio.judged(slerp(before, after, 0.5), scenes, "halfway")
    noise = studio.noise_of(scenes, before) if inverted else None
    edits = {
        f"{theta:g}": studio.judged(text_diff(before, texts[0], texts[1], theta), others, f"θ = {theta:g}", noise)
        for theta in dict.fromkeys(thetas)
    }
    figures: dict[str, Any] = {
        "n": n,
        "seed": seed,
        "inverted": inverted,
        **computing_on(device),
        "halfway": shares(halfway, KEPT),
        "text_diff": {theta: shares(judged, EDITED) for theta, judged in edits.items()},
    }
    figures["theta"] = float(max(figures["text_diff"], key=lambda theta: figures["text_diff"][theta]["all"]))
    say(json.dumps(figures, indent=2) if as_json else table(figures))
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


@dataclass(frozen=True)
class Studio:
    """Draws a model's images and judges them; image i of a measurement has the seed + i."""

    model: UnclipModel
    seed: int
    settings: Settings

    def embeds(self, scenes: Sequence[Scene]) -> Tensor:
        """The image embeddings `[N, D]` of rendered scenes."""
        size = self.model.clip.adapter.image_size
        parts = [encode_image(self.model.clip, _images(scenes[rows], size)) for rows in _batches(len(scenes))]
        return torch.cat(parts)

    def noise_of(self, scenes: Sequence[Scene], embeds: Tensor) -> Inverted:
        """Invert `N` rendered scenes under their embeddings `[N, D]`: the noise that the decoder draws them from."""
        decoder, steps = self.model.decoder, self.settings.inversion_steps
        parts = [
            invert_decoder(
                decoder, _images(scenes[rows], decoder.image_size), embeds[rows], steps=steps, guidance_scale=1.0
            )
            for rows in _batches(len(scenes), "inversion")
        ]
        return Inverted(torch.cat([part.noise for part in parts]), torch.cat([part.error for part in parts]))

    def judged(
        self, embeds: Tensor, scenes: Sequence[Scene], title: str, noise: Inverted | None = None
    ) -> list[dict[str, bool]]:
        """Draw the embeddings `[N, D]`, from `noise` if there is some, and score each image against its scene."""
        settings = self.settings.decoder
        if noise is not None:
            settings = StageSettings(self.settings.inversion_steps, 1.0, "ddim")  # as the noise was found
        seeds, scores = sample_seeds(self.seed, len(scenes)), []
        for rows in _batches(len(scenes), title):
            images = sample_decoder(
                self.model.decoder,
                embeds[rows],
                seeds=seeds[rows],
                **arguments(settings),
                start=None if noise is None else noise.noise[rows],
                start_error=None if noise is None else noise.error[rows],
            )
            found = zip(images.cpu().permute(0, 3, 1, 2), scenes[rows], strict=True)
            scores += [score(judge(image), scene) for image, scene in found]
        return scores


def _images(scenes: Sequence[Scene], size: int) -> Tensor:
    return render(scenes, size).permute(0, 2, 3, 1)


def _batches(count: int, title: str | None = None) -> Iterator[slice]:
    """Yield slices of at most `BATCH`, with a progress bar where there is a title for it."""
    for start in progress_bar(range(0, count, BATCH), desc=title, unit="batch", disable=None if title else True):
        yield slice(start, start + BATCH)


def shares(scores: Sequence[dict[str, bool]], names: Sequence[str]) -> dict[str, float]:
    """The shares that have each of `names` right, and `all` of them."""
    together = torch.tensor([[found[name] for name in names] for found in scores], dtype=torch.float64)
    return {**dict(zip(names, together.mean(0).tolist(), strict=True)), "all": float(together.all(1).double().mean())}


def table(figures: dict[str, Any]) -> str:
    """The figures as text, in percent."""
    rows = [("halfway", figures["halfway"])]
    rows += [(f"text diff {theta}", row) for theta, row in figures["text_diff"].items()]
    lines = [
        f"{name:16}" + "".join(f"{key:>8} {100 * value:5.1f}%" for key, value in row.items()) for name, row in rows
    ]
    return "\n".join([*lines, f"best θ: {figures['theta']:g}"])
