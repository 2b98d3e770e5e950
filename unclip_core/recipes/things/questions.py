"""What a model is asked to draw when it is measured, row by row, and how a drawing is scored."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from .dataset import World
from .judge import Judge, Verdict
from .pictures import Kind, Picture, Split, draw_scene, draw_shape, draw_thing, picture_random
from .vocabulary import LANGUAGES, RELATIONS

Scores = dict[str, bool]
"""Name of a fact → whether it is right; facts that a picture has not are left out."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        kind: "thing", "shape" or "scene".
        split: "trained" or "held_out" pairs.
        language: of the prompts.
        asked: in words of requests that no caption has.
    """

    kind: Kind
    split: Split = "trained"
    language: str = "en"
    asked: bool = False


ROWS = {
    "thing": Row("thing"),
    "thing_other_words": Row("thing", asked=True),
    **{f"thing_{language}": Row("thing", language=language) for language in LANGUAGES[1:]},
    "thing_held_out": Row("thing", "held_out"),
    "shape": Row("shape"),
    "shape_held_out": Row("shape", "held_out"),
    "scene": Row("scene"),
    "scene_held_out": Row("scene", "held_out"),
}
"""The rows by their names. The pictures of things are the same in all languages."""


@dataclass(frozen=True)
class Question:
    """A prompt, and the picture that it asks for."""

    picture: Picture
    prompt: str


def questions(world: World, name: str, count: int, seed: int) -> list[Question]:
    """The first `count` questions of a row; each depends on the seed and its number alone."""
    row = ROWS[name]
    return [_question(world, row, number, seed) for number in range(count)]


def _question(world: World, row: Row, number: int, seed: int) -> Question:
    chance = picture_random(seed, number, f"measure {row.kind} {row.split}")
    picture = _MAKERS[row.kind](world, chance, row.split)
    return Question(picture, world.captions.caption(picture, row.language, chance, row.asked, plain=not row.asked))


def _thing(world: World, chance: random.Random, split: Split) -> Picture:
    picture = draw_thing(chance, world.sprites, split)
    while picture.size is not None:
        picture = draw_thing(chance, world.sprites, split)
    return replace(picture, says=frozenset({"style", "ground"}))


def _shape(world: World, chance: random.Random, split: Split) -> Picture:
    picture = draw_shape(chance, split)
    where = {"place", "size"} if picture.size == 0 else set()
    return replace(picture, says=frozenset({"color", "ground", *where}))


def _scene(world: World, chance: random.Random, split: Split) -> Picture:
    picture = draw_scene(chance, world.sprites, split)
    same = picture.things[0].style == picture.things[1].style
    return replace(picture, says=frozenset({"ground", "style"} if same else {"ground"}))


_MAKERS: dict[str, Callable[..., Picture]] = {"thing": _thing, "shape": _shape, "scene": _scene}


def score(judge: Judge, image: Tensor, picture: Picture) -> Scores:
    """What is right in an image `[3, H, W]` in 0..1 that is to be the picture."""
    ground = judge.ground(image) == picture.ground
    if picture.kind == "scene":
        return {**_scene_scores(judge, image, picture), "ground": ground}
    seen = judge.one(image)
    wanted = picture.things[0]
    if picture.kind == "thing":
        right = {"top1": seen.things[:1] == (wanted.concept,), "top5": wanted.concept in seen.things}
        return {**right, "style": seen.style == wanted.style, "ground": ground}
    scores = {"shape": seen.shape == wanted.concept, "color": seen.color == wanted.style, "ground": ground}
    if picture.size == 0:
        scores["place"] = seen.place == picture.place
    return {**scores, "all": all(scores.values())}


def _scene_scores(judge: Judge, image: Tensor, picture: Picture) -> Scores:
    """Both things in the judge's first five, whatever their order; and their relation, given that."""
    wanted = [thing.concept for thing in picture.things]
    beside = RELATIONS[picture.relation or 0] == "beside"
    as_asked, otherwise = (judge.halves(image, along) for along in (beside, not beside))
    ordered = _named(as_asked, wanted)
    others = ((as_asked, wanted[::-1]), (otherwise, wanted), (otherwise, wanted[::-1]))
    both = ordered or any(_named(halves, names) for halves, names in others)
    return {"both": both, "relation": ordered} if both else {"both": False}


def _named(halves: Sequence[Verdict], wanted: Sequence[int]) -> bool:
    return all(concept in half.things for half, concept in zip(halves, wanted, strict=True))


def shares(scores: Sequence[Scores]) -> dict[str, float]:
    """The share of each fact that is right, of the pictures that have it; and `n`, the pictures."""
    names = dict.fromkeys(name for each in scores for name in each)
    found = {name: [each[name] for each in scores if name in each] for name in names}
    return {**{name: sum(values) / len(values) for name, values in found.items()}, "n": len(scores)}
