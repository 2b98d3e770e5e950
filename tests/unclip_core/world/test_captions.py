"""Captions against a reader of our own, which knows the grammar but not how captions are made."""

import random
import re

import pytest

from unclip.unclip_core.world.captions import NEGATIVE_KINDS, caption, negatives, words
from unclip.unclip_core.world.scenes import Scene, Thing, sample_scenes
from unclip.unclip_core.world.vocabulary import BACKGROUNDS, COLORS, HELD_OUT, SHAPES, SIZES, split_words

SYNONYMS = {
    "disc": "circle", "box": "square", "rhombus": "diamond", "plus": "cross", "donut": "ring",
    "tiny": "small", "little": "small", "big": "large", "huge": "large", "medium-sized": "medium",
    "grey": "gray", "tan": "beige", "dark blue": "navy", "light green": "mint",
    "violet": "purple", "turquoise": "cyan",
}  # fmt: skip
THING = re.compile(rf"an? (?:({'|'.join(SIZES)}) )?({'|'.join(COLORS)}) ({'|'.join(SHAPES)})(?! background)")
GROUND = re.compile(rf"an? ({'|'.join(BACKGROUNDS)}) background")
RELATIONS = (("left of", 0), ("right of", 1), ("above", 2), ("over", 2), ("on top of", 2),
             ("below", 3), ("under", 3), ("beneath", 3), ("underneath", 3))  # fmt: skip


def read(text):
    """What a caption says: background, things in the order left to right or top to bottom, place, axis."""
    text = text.lower().rstrip(".")
    for word, plain in SYNONYMS.items():
        text = re.sub(rf"\b{word}\b", plain, text)
    ground = GROUND.search(text)
    rest = GROUND.sub("", text)
    found = list(THING.finditer(rest))
    things = [match.groups() for match in found]
    background = ground.group(1) if ground else None
    if len(things) == 1:
        rest = rest.replace(found[0].group(0), "")
        rows = [i for i, name in enumerate(("top|upper", None, "bottom|lower")) if name and re.search(name, rest)]
        columns = [i for i, name in enumerate(("left", None, "right")) if name and re.search(name, rest)]
        middle = re.search("center|middle", rest)
        place = None
        if rows or columns or middle:
            place = 3 * (rows or [1])[0] + (columns or [1])[0]
        return background, tuple(things), place, None
    link = rest[found[0].end() : found[1].start()].strip()
    named = [relation for name, relation in RELATIONS if re.fullmatch(rf"(is )?((to|on) the )?{name}", link)]
    if not named:
        assert link == "and"
        return background, frozenset(things), None, None
    if named[0] in (1, 3):
        things.reverse()
    return background, tuple(things), None, named[0] // 2


def truth(scene):
    things = [(SIZES[t.size], list(COLORS)[t.color], SHAPES[t.shape]) for t in scene.things]
    if scene.relation in (1, 3):
        things.reverse()
    axis = None if scene.relation is None else scene.relation // 2
    return list(BACKGROUNDS)[scene.background], tuple(things), scene.place, axis


def scenes(count, split="trained", seed=0, **options):
    return sample_scenes(random.Random(seed), count, split, **options)


def thing(shape, color, size):
    return Thing(SHAPES.index(shape), list(COLORS).index(color), SIZES.index(size), 0.5, 0.5, 0.1)


def test_canonical_captions():
    single = Scene(0, (thing("circle", "red", "small"),), 0, None)
    assert caption(single) == "a small red circle in the top left corner on a white background"
    pair = Scene(0, (thing("circle", "red", "large"), thing("square", "blue", "small")), None, 2)
    assert caption(pair) == "a large red circle above a small blue square on a white background"


@pytest.mark.parametrize("split", ["trained", "held_out"])
def test_full_captions_say_the_whole_truth(split):
    rng = random.Random(1)
    for scene in scenes(1500, split):
        assert read(caption(scene)) == truth(scene)
        assert read(caption(scene, rng, full=True)) == truth(scene)


def test_captions_leave_out_but_never_lie():
    rng = random.Random(2)
    missing = {"size": 0, "background": 0, "place": 0, "relation": 0}
    world = scenes(3000)
    for scene in world:
        background, things, place, axis = read(caption(scene, rng))
        said = truth(scene)
        missing["background"] += background is None
        missing["place"] += place is None and scene.place is not None
        missing["relation"] += axis is None and scene.relation is not None
        missing["size"] += sum(t[0] is None for t in things)
        assert background in (None, said[0]) and place in (None, said[2]) and axis in (None, said[3])
        expected = said[1] if isinstance(things, tuple) else sorted(said[1], key=lambda t: t[1:])
        given = things if isinstance(things, tuple) else sorted(things, key=lambda t: t[1:])
        for (size, *look), (true_size, *true_look) in zip(given, expected, strict=True):
            assert look == true_look and size in (None, true_size)
    total = sum(len(scene.things) for scene in world)
    assert abs(missing["size"] / total - 0.1) < 0.03
    assert abs(missing["background"] / len(world) - 0.1) < 0.03
    assert abs(missing["place"] / sum(s.kind == "single" for s in world) - 0.1) < 0.03
    assert abs(missing["relation"] / sum(s.kind == "pair" for s in world) - 0.05) < 0.03


def test_words_are_exactly_those_of_captions():
    rng = random.Random(3)
    heard = {word for scene in scenes(6000) for word in split_words(caption(scene, rng))}
    assert heard == words()


def test_captions_vary_and_repeat_with_their_seed():
    scene = scenes(1)[0]
    rng = random.Random(4)
    assert len({caption(scene, rng) for _ in range(100)}) > 50
    assert caption(scene, random.Random(5)) == caption(scene, random.Random(5))


def test_articles():
    rng = random.Random(6)
    texts = [caption(scene, rng).lower() for scene in scenes(2000)]
    assert any(re.search(r"\ban orange", text) for text in texts)
    assert not any(re.search(r"\ba [aeiou]|\ban [^aeiou]", text) for text in texts)


@pytest.mark.parametrize("split", ["trained", "held_out"])
@pytest.mark.parametrize("allow_held_out", [False, True])
def test_negatives_are_false_in_the_respect_they_say(split, allow_held_out):
    rng = random.Random(7)
    met = set()
    for scene in scenes(800, split, seed=8):
        for kind, text in negatives(scene, rng, 4, allow_held_out):
            met.add(kind)
            background, things, place, axis = read(text)
            true_background, true_things, true_place, true_axis = truth(scene)
            assert (background, things, place, axis) != truth(scene), (kind, text)
            assert (background != true_background) == (kind == "background")
            assert (place != true_place) == (kind == "place")
            if kind != "relation":
                assert axis == true_axis
            at = {"size": 0, "color": 1, "shape": 2}
            attribute = kind.removeprefix("swap_")
            if attribute in at:
                wrong = [
                    [i for i in range(3) if said[i] != true[i]] for said, true in zip(things, true_things, strict=True)
                ]
                differing = sum(map(len, wrong))
                assert differing == (2 if kind.startswith("swap") else 1)
                assert {i for one in wrong for i in one} == {at[attribute]}
                if kind.startswith("swap"):
                    values = [sorted(t[at[attribute]] for t in side) for side in (things, true_things)]
                    assert values[0] == values[1]
            else:
                assert sorted(things) == sorted(true_things)
    assert met == set(NEGATIVE_KINDS)


def held_out_named(text):
    return {
        look for _, *look in ((None, *t[1:]) for t in read(text)[1]) for look in [tuple(look)]
        if (SHAPES.index(look[1]), list(COLORS).index(look[0])) in HELD_OUT
    }  # fmt: skip


@pytest.mark.parametrize("split", ["trained", "held_out"])
def test_negatives_name_no_held_out_pair_that_is_not_shown(split):
    rng = random.Random(9)
    world = scenes(1000, split, seed=10)
    shown = [{(list(COLORS)[t.color], SHAPES[t.shape]) for t in scene.things} for scene in world]
    for scene, looks in zip(world, shown, strict=True):
        for _, text in negatives(scene, rng, 6):
            assert held_out_named(text) <= looks
    allowed = [negatives(scene, rng, 6, allow_held_out=True) for scene in world]
    assert any(held_out_named(t) - looks for many, looks in zip(allowed, shown, strict=True) for _, t in many)


def test_negatives_differ_in_kind_while_the_scene_allows():
    rng = random.Random(11)
    for scene in scenes(200, seed=12):
        kinds = [kind for kind, _ in negatives(scene, rng, 3)]
        assert len(set(kinds)) == 3
    assert len(negatives(scene, rng, 40)) == 40
    assert negatives(scene, rng, 0) == []
