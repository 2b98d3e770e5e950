"""How much of an image CLIP Describe names rightly: the share of attributes, on the world of shapes."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..embedding.describe import WIDTH, Describer
from ..embedding.phrase_lists import BUILT_IN, read_phrases
from ..families.loading import SHAPES, placed_model
from ..models import Clip
from ..output import progress_bar, say
from ..pipelines import embed_text, encode_image
from ..weights.choices import AUTO
from ..world.evaluation import Prompt, evaluation_scenes
from ..world.render import render
from ..world.scenes import SPLITS, Scene, Thing
from ..world.vocabulary import (
    BACKGROUND_WORDS,
    COLOR_WORDS,
    OPPOSITE,
    PLACE_WORDS,
    RELATION_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
)

WORDS = {"size": SIZE_WORDS, "color": COLOR_WORDS, "shape": SHAPE_WORDS}

BATCH = 64
"""Images that are encoded together."""


def evaluate_describe(
    n: int = 500,
    seed: int = 0,
    model: str | Path | None = None,
    as_json: bool = False,
    split: str | None = None,
    width: int = WIDTH,
    device: str = AUTO,
) -> dict[str, Any]:
    """Describe rendered scenes that were in no training set, and print and return what is named rightly.

    Of a pair, either thing may be named first: the order counts in which most is right. An attribute that is not
    named counts as wrong; so does everything about a thing that is not named.

    Args:
        n: scenes a split, half of them single things.
        seed: of the scenes.
        model: a model folder; None for the bundled one of shapes.
        as_json: print JSON in place of a table.
        split: "trained" or "held_out" (pairs of shape and colour that are in no training image); None for both.
        width: of the beam search: captions that are carried on from slot to slot.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.

    Returns:
        For each split `all`, the share of all attributes that are right, `exact`, the share of scenes with all of them
        right, the share of each attribute (`size`, `color`, `shape`, `place`, `relation`, `background`), and `n`.
    """
    clip = placed_model(model or SHAPES, device, ("clip",)).clip
    describer = Describer(lambda texts: embed_text(clip, texts).cpu(), read_phrases(BUILT_IN["world"]), width)
    prompts = [prompt for prompt in evaluation_scenes(n, seed) if split in (None, prompt[0])]
    tallies = _describe(prompts, describer, clip)
    figures: dict[str, Any] = {name: _shares(*tallies[name]) for name in SPLITS if name in tallies}
    figures |= {"scenes_per_split": n, "seed": seed, "width": width}
    say(json.dumps(figures, indent=2) if as_json else table(figures))
    return figures


def _describe(prompts: list[Prompt], describer: Describer, clip: Clip) -> dict[str, tuple[Counter, Counter]]:
    """split → (attributes right, attributes asked for), with "exact" among them for whole scenes."""
    tallies: dict[str, tuple[Counter, Counter]] = defaultdict(lambda: (Counter(), Counter()))
    with torch.inference_mode():
        embeds = _embeds([scene for _, _, scene, _ in prompts], clip)
        for (split, _, scene, _), embed in zip(
            progress_bar(prompts, desc="describe", unit="scene", disable=None), embeds, strict=True
        ):
            right, asked = tallies[split]
            found = named_rightly(describer.describe(embed, top_k=1).slots, scene)
            for name, is_right in found:
                right[name] += is_right
                asked[name] += 1
            right["exact"] += all(is_right for _, is_right in found)
            asked["exact"] += 1
    return tallies


def _embeds(scenes: list[Scene], clip: Clip) -> Tensor:
    """The image embeddings [N, D] of rendered scenes, on the CPU."""
    parts = (scenes[at : at + BATCH] for at in range(0, len(scenes), BATCH))
    side = clip.adapter.image_size
    return torch.cat([encode_image(clip, render(part, side).permute(0, 2, 3, 1)).cpu() for part in parts])


def named_rightly(said: Mapping[str, str], scene: Scene) -> list[tuple[str, bool]]:
    """Each attribute of a scene, and whether the filled slots of the list "world" name it.

    Things named are matched with those that are there in the order in which most is right.
    """
    whole = [("background", said.get("background") in BACKGROUND_WORDS[scene.background])]
    told = [{name: said.get(name + mark) for name in WORDS} for mark in ("", " 2")]
    if len(scene.things) == 1:
        placed = scene.place is not None and said.get("place") in PLACE_WORDS[scene.place]
        alone = "relation" not in said
        return [*whole, ("place", placed and alone), *_thing(told[0], scene.things[0])]
    ways = []
    relation_of_pair: Any = scene.relation  # two things always have one
    opposite = OPPOSITE[relation_of_pair]
    for things, relation in ((scene.things, relation_of_pair), (scene.things[::-1], opposite)):
        related = ("relation", said.get("relation") in RELATION_WORDS[relation])
        ways.append([*whole, related, *_thing(told[0], things[0]), *_thing(told[1], things[1])])
    return max(ways, key=lambda way: sum(is_right for _, is_right in way))


def _thing(told: Mapping[str, str | None], thing: Thing) -> list[tuple[str, bool]]:
    return [(name, told[name] in words[getattr(thing, name)]) for name, words in WORDS.items()]


def _shares(right: Counter, asked: Counter) -> dict[str, float]:
    attributes = [name for name in asked if name != "exact"]
    total = sum(right[name] for name in attributes) / sum(asked[name] for name in attributes)
    return {"all": total, **{name: right[name] / asked[name] for name in asked}, "n": asked["exact"]}


def table(figures: dict[str, Any]) -> str:
    """The figures as text, in percent."""
    names = ("all", "exact", "background", "size", "color", "shape", "place", "relation")
    lines = [f"{'':10}{'n':>6}" + "".join(f"{name:>12}" for name in names)]
    for split in SPLITS:
        if row := figures.get(split):
            lines.append(f"{split:10}{row['n']:>6}" + "".join(f"{100 * row.get(name, 0):>11.1f}%" for name in names))
    return "\n".join(lines)
