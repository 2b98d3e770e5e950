"""Captions of scenes, and hard negatives: captions that are false in one respect."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from .scenes import Scene, Thing
from .vocabulary import (
    BACKGROUND_WORDS,
    BACKGROUNDS,
    COLOR_WORDS,
    COLORS,
    HELD_OUT,
    OPPOSITE,
    PLACE_WORDS,
    PLACES,
    RELATION_WORDS,
    RELATIONS,
    SHAPE_WORDS,
    SHAPES,
    SIZE_WORDS,
    SIZES,
    UNNAMED,
    split_words,
)

Seen = TypeVar("Seen", Thing, Scene)

OMITTED = 0.1
"""Probability that a caption leaves out a size, the place or the background."""

UNRELATED = 0.05
"""Probability that the caption of a pair says "and" in place of the relation."""

_OPENINGS = ("", "", "", "", "there is", "a picture of", "an image of", "a drawing of")
_BACKGROUND_PHRASES = ("on {} background", "against {} background", "with {} background")

NEGATIVE_KINDS = (
    "color", "shape", "size", "background", "place", "relation", "swap_color", "swap_shape", "swap_size",
)  # fmt: skip


def caption(scene: Scene, rng: random.Random | None = None, full: bool = False) -> str:
    """Describe a scene in a sentence.

    Args:
        scene: what is described.
        rng: draws a paraphrase; without it the canonical sentence is given, which states everything.
        full: whether a paraphrase must state everything, rather than now and then leave out sizes, place, background
            or relation.
    """
    if rng is None:
        return " ".join([_canonical_body(scene), _background_phrase(scene, None)])
    body = _pair_body(scene, rng, full) if scene.relation is not None else _single_body(scene, rng, full)
    text = _with_background(scene, body, rng, full)
    if rng.random() < 0.15:
        text = text[0].upper() + text[1:]
    return text + "." if rng.random() < 0.15 else text


def words() -> frozenset[str]:
    """Every lower-case word that any caption can contain."""
    names = (SHAPE_WORDS, COLOR_WORDS, SIZE_WORDS, BACKGROUND_WORDS, PLACE_WORDS, RELATION_WORDS)
    phrases = [phrase for group in names for synonyms in group for phrase in synonyms]
    phrases += [*_OPENINGS, *_BACKGROUND_PHRASES, "a an", "and", "is"]
    return frozenset(word for phrase in phrases for word in split_words(phrase))


def negatives(scene: Scene, rng: random.Random, count: int, allow_held_out: bool = False) -> list[tuple[str, str]]:
    """Draw captions that are false of a scene in one respect (hard negatives).

    Args:
        scene: what the captions do not describe.
        rng: draws them.
        count: how many; their kinds of change are as different as the scene allows.
        allow_held_out: whether a caption may name a held-out (shape, colour) pair that the scene does not show. Not in
            training, where such pairs would be met as false captions only.

    Returns:
        (kind of change, one of NEGATIVE_KINDS; a paraphrase that states everything), `count` of them.
    """
    found: list[tuple[str, str]] = []
    while len(found) < count:
        for kind in rng.sample(NEGATIVE_KINDS, len(NEGATIVE_KINDS)):
            changed = _change(scene, kind, rng, allow_held_out)
            if changed is not None and len(found) < count:
                found.append((kind, caption(changed, rng, full=True)))
    return found


def _pick(rng: random.Random | None, synonyms: Sequence[str]) -> str:
    return synonyms[0] if rng is None else rng.choice(synonyms)


def _with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _thing_phrase(thing: Thing, rng: random.Random | None, full: bool = True) -> str:
    names = [_pick(rng, SHAPE_WORDS[thing.shape])]
    if thing.color != UNNAMED:
        names.insert(0, _pick(rng, COLOR_WORDS[thing.color]))
    if full or rng is None or rng.random() >= OMITTED:
        names.insert(0, _pick(rng, SIZE_WORDS[thing.size]))
    return _with_article(" ".join(names))


def _background_phrase(scene: Scene, rng: random.Random | None) -> str:
    return _pick(rng, _BACKGROUND_PHRASES).format(_with_article(_pick(rng, BACKGROUND_WORDS[scene.background])))


def _canonical_body(scene: Scene) -> str:
    phrases = [_thing_phrase(thing, None) for thing in scene.things]
    if scene.place is not None:
        return f"{phrases[0]} {PLACE_WORDS[scene.place][0]}"
    return f"{phrases[0]} {RELATION_WORDS[_set(scene.relation)][0]} {phrases[1]}"


def _single_body(scene: Scene, rng: random.Random, full: bool) -> str:
    body = " ".join(filter(None, (rng.choice(_OPENINGS), _thing_phrase(scene.things[0], rng, full))))
    if not full and rng.random() < OMITTED:
        return body
    place = rng.choice(PLACE_WORDS[_set(scene.place)])
    return f"{place}, {body}" if rng.random() < 0.15 else f"{body} {place}"


def _pair_body(scene: Scene, rng: random.Random, full: bool) -> str:
    first, second = (_thing_phrase(thing, rng, full) for thing in scene.things)
    relation = _set(scene.relation)
    if rng.random() < 0.5:
        first, second, relation = second, first, OPPOSITE[relation]
    opening = rng.choice(_OPENINGS)
    link = rng.choice(RELATION_WORDS[relation])
    if not full and rng.random() < UNRELATED:
        link = "and"
    elif not opening and rng.random() < 0.2:
        link = f"is {link}"
    return " ".join(filter(None, (opening, first, link, second)))


def _with_background(scene: Scene, body: str, rng: random.Random, full: bool) -> str:
    if not full and rng.random() < OMITTED:
        return body
    phrase = _background_phrase(scene, rng)
    return f"{phrase}, {body}" if rng.random() < 0.2 else f"{body} {phrase}"


def _change(scene: Scene, kind: str, rng: random.Random, allow_held_out: bool) -> Scene | None:
    """Copy a scene with one change of a kind, or return None where that kind does not apply."""
    changed = _CHANGES[kind](scene, rng)
    if changed is None:
        return None
    looks = [(thing.shape, thing.color) for thing in changed.things]
    shown = {(thing.shape, thing.color) for thing in scene.things}
    if len(set(looks)) < len(looks):  # no true caption has two like things: such a one would be told without looking
        return None
    if not allow_held_out and any(look in HELD_OUT and look not in shown for look in looks):
        return None
    return changed


def _set(value: int | None) -> int:
    """Return a scene's place or relation, or raise ValueError if a scene of its kind has none."""
    if value is None:
        raise ValueError("a scene of one thing has a place, and one of two a relation")
    return value


def _with(instance: Seen, attribute: str, value: int) -> Seen:
    """Copy a thing or scene with another value of one attribute."""
    changed: dict[str, Any] = {attribute: value}
    return replace(instance, **changed)


def _other(rng: random.Random, count: int, current: int) -> int:
    """A random index below `count` that is not `current`."""
    return (current + rng.randrange(1, count)) % count


def _change_thing(attribute: str, count: int) -> Callable[[Scene, random.Random], Scene | None]:
    def change(scene: Scene, rng: random.Random) -> Scene | None:
        things = list(scene.things)
        at = rng.randrange(len(things))
        if attribute == "color" and things[at].color == UNNAMED:
            return None  # it has no name that could be a false one
        value = _other(rng, count, getattr(things[at], attribute))
        things[at] = _with(things[at], attribute, value)
        return replace(scene, things=tuple(things))

    return change


def _change_scene(attribute: str, count: int) -> Callable[[Scene, random.Random], Scene | None]:
    def change(scene: Scene, rng: random.Random) -> Scene | None:
        current = getattr(scene, attribute)
        return None if current is None else _with(scene, attribute, _other(rng, count, current))

    return change


def _change_relation(scene: Scene, rng: random.Random) -> Scene | None:
    """In 7 of 10 cases the opposite relation: the hardest negative, with the same words in another order."""
    if scene.relation is None:
        return None
    flipped = rng.random() < 0.7
    return replace(scene, relation=OPPOSITE[scene.relation] if flipped else _other(rng, len(RELATIONS), scene.relation))


def _swap(attribute: str) -> Callable[[Scene, random.Random], Scene | None]:
    def change(scene: Scene, rng: random.Random) -> Scene | None:
        if len(scene.things) < 2:
            return None
        first, second = (getattr(thing, attribute) for thing in scene.things)
        if first == second:
            return None
        swapped = (
            replace(thing, **{attribute: value}) for thing, value in zip(scene.things, (second, first), strict=True)
        )
        return replace(scene, things=tuple(swapped))

    return change


_CHANGES: dict[str, Callable[[Scene, random.Random], Scene | None]] = {
    "color": _change_thing("color", len(COLORS)),
    "shape": _change_thing("shape", len(SHAPES)),
    "size": _change_thing("size", len(SIZES)),
    "background": _change_scene("background", len(BACKGROUNDS)),
    "place": _change_scene("place", len(PLACES)),
    "relation": _change_relation,
    "swap_color": _swap("color"),
    "swap_shape": _swap("shape"),
    "swap_size": _swap("size"),
}
