"""Vocabulary and scenes: what may be drawn, and where."""

import math
import random

import pytest

from unclip.unclip_core.world.scenes import sample_scene, sample_scenes, with_unnamed_colors
from unclip.unclip_core.world.vocabulary import (
    BACKGROUNDS,
    COLORS,
    HELD_OUT,
    SHAPES,
    UNNAMED,
    UNNAMED_DISTANCE,
    split_words,
)

PIXELS = 64
RADII = (6.5, 9.5, 13.0)


def held_out_things(scene):
    return sum((thing.shape, thing.color) in HELD_OUT for thing in scene.things)


def test_each_shape_and_each_color_is_held_out_once():
    shapes, colors = zip(*HELD_OUT, strict=True)
    assert sorted(shapes) == list(range(len(SHAPES)))
    assert sorted(colors) == list(range(len(COLORS)))
    names = {(SHAPES[shape], list(COLORS)[color]) for shape, color in HELD_OUT}
    assert names.isdisjoint({("circle", "red"), ("square", "blue"), ("star", "blue")})


@pytest.mark.parametrize(
    ("first", "second", "least"),
    [(COLORS, BACKGROUNDS, 95), (COLORS, COLORS, 85), (BACKGROUNDS, BACKGROUNDS, 80)],
)
def test_palette_is_told_apart(first, second, least):
    apart = [math.dist(a, b) for n, a in first.items() for m, b in second.items() if n != m]
    assert min(apart) >= least


@pytest.mark.parametrize("split", ["trained", "held_out"])
def test_scenes_keep_their_split(split):
    scenes = sample_scenes(random.Random(1), 2000, split)
    assert {held_out_things(scene) for scene in scenes} == {0 if split == "trained" else 1}
    if split == "held_out":
        roles = {(s.things[0].shape, s.things[0].color) in HELD_OUT for s in scenes if s.kind == "pair"}
        assert roles == {True, False}


def test_scenes_reach_every_look_size_background_place_and_relation():
    rng = random.Random(2)
    scenes = sample_scenes(rng, 4000, "trained") + sample_scenes(rng, 1000, "held_out")
    assert {(t.shape, t.color) for s in scenes for t in s.things} == {(s, c) for s in range(8) for c in range(8)}
    assert {t.size for s in scenes for t in s.things} == {0, 1, 2}
    assert {s.background for s in scenes} == set(range(6))
    assert {s.place for s in scenes} == {None, *range(9)}
    assert {s.relation for s in scenes} == {None, *range(4)}


def test_things_have_their_size_and_lie_in_the_frame():
    for scene in sample_scenes(random.Random(3), 2000, "trained"):
        for thing in scene.things:
            assert abs(thing.radius * PIXELS / RADII[thing.size] - 1) <= 0.05 + 1e-9
            edge = thing.radius + 1 / PIXELS - 1e-9
            assert edge <= thing.x <= 1 - edge and edge <= thing.y <= 1 - edge


def test_a_single_lies_in_its_cell():
    for scene in sample_scenes(random.Random(4), 1000, "trained", pair_fraction=0):
        (thing,) = scene.things
        assert scene.relation is None
        assert scene.place == 3 * int(3 * thing.y) + int(3 * thing.x)
        # Well inside: clearly nearer to its own cell than to another.
        for value in (thing.x, thing.y):
            assert min(abs(value - border) for border in (1 / 3, 2 / 3)) * PIXELS > 5


def test_a_pair_shows_its_relation_clearly():
    for scene in sample_scenes(random.Random(5), 2000, "trained", pair_fraction=1):
        first, second = scene.things
        assert scene.place is None
        assert (first.shape, first.color) != (second.shape, second.color)
        dx, dy = second.x - first.x, second.y - first.y
        along, across = ((dx, dy), (-dx, dy), (dy, dx), (-dy, dx))[scene.relation]
        assert along - first.radius - second.radius >= 2 / PIXELS - 1e-9
        assert abs(across) <= 0.5 * along + 1e-9


def test_scenes_repeat_with_their_seed():
    draws = [sample_scenes(random.Random(seed), 20, "trained") for seed in (6, 6, 7)]
    assert draws[0] == draws[1] != draws[2]


def test_pair_fraction():
    kinds = [scene.kind for scene in sample_scenes(random.Random(8), 2000, "trained", pair_fraction=0.25)]
    assert abs(kinds.count("pair") / len(kinds) - 0.25) < 0.05


@pytest.mark.parametrize(("kind", "split", "named"), [("triple", "trained", "triple"), ("pair", "test", "test")])
def test_unknown_kind_or_split_is_refused(kind, split, named):
    with pytest.raises(ValueError, match=named):
        sample_scene(random.Random(0), kind, split)


def test_split_words():
    assert split_words("A medium-sized Disc, over it.") == ["a", "medium", "sized", "disc", "over", "it"]


def test_unnamed_colors_keep_their_distance_and_change_nothing_else():
    scenes = sample_scenes(random.Random(4), 300, "trained")
    changed = with_unnamed_colors(scenes, random.Random(5), 0.5)
    unnamed = 0
    for scene, other in zip(scenes, changed, strict=True):
        for thing, new in zip(scene.things, other.things, strict=True):
            assert (thing.shape, thing.size, thing.x, thing.y, thing.radius) == (
                new.shape,
                new.size,
                new.x,
                new.y,
                new.radius,
            )
            if new.color != UNNAMED:
                assert new == thing
                continue
            unnamed += 1
            named = [*COLORS.values(), list(BACKGROUNDS.values())[scene.background]]
            assert min(math.dist(new.ink, rgb) for rgb in named) >= UNNAMED_DISTANCE
    share = unnamed / sum(len(scene.things) for scene in scenes)
    assert 0.4 < share < 0.6
    assert with_unnamed_colors(scenes, random.Random(5), 0.0) == scenes
