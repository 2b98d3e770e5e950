"""The judge: right on what the renderer draws, wrong on what it should find wrong."""

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from unclip.unclip_core.world.judge import SCORES, judge, score
from unclip.unclip_core.world.render import render
from unclip.unclip_core.world.scenes import Scene, Thing, sample_scenes
from unclip.unclip_core.world.vocabulary import BACKGROUNDS, COLORS, RADII, SHAPES

LARGE = 2


def thing(shape="circle", color="red", size=1, x=0.5, y=0.5):
    return Thing(SHAPES.index(shape), list(COLORS).index(color), size, x, y, RADII[size])


def single(**options):
    return Scene(0, (thing(**options),), 4, None)


def pair(first=None, second=None, relation=0):
    first = first or thing("circle", "red", 1, 0.25, 0.5)
    second = second or thing("star", "blue", 2, 0.7, 0.5)
    return Scene(0, (first, second), None, relation)


def scores(drawn, asked):
    return score(judge(render([drawn], 64)[0]), asked)


def wrong(drawn, asked):
    return {name for name, right in scores(drawn, asked).items() if not right}


def blur(image, sigma):
    kernel = torch.exp(-0.5 * (torch.arange(-15, 16) / sigma) ** 2)
    kernel /= kernel.sum()
    padded = F.pad(image[:, None], (15,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[:, 0]


@pytest.mark.parametrize("split", ["trained", "held_out"])
@pytest.mark.parametrize(
    ("size", "sigma", "count"),
    [(64, 0.0, 100), pytest.param(64, 12 / 255, 200, marks=pytest.mark.slow), (256, 12 / 255, 40)],
)
def test_reads_every_render_right(split, size, sigma, count):
    scenes = sample_scenes(random.Random(size + count), count, split)
    images = render(scenes, size)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    for scene, image in zip(scenes, (images + sigma * noise).clamp(0, 1), strict=True):
        assert score(judge(image), scene) == dict.fromkeys(SCORES, True), scene


def test_measures_where_and_how_large():
    for scene in sample_scenes(random.Random(1), 100, "trained"):
        found = judge(render([scene], 64)[0]).things
        for asked in scene.things:
            nearest = min(found, key=lambda f: abs(f.x - asked.x) + abs(f.y - asked.y))
            assert nearest.x == pytest.approx(asked.x, abs=0.3 / 64)
            assert nearest.y == pytest.approx(asked.y, abs=0.3 / 64)
            assert nearest.radius == pytest.approx(asked.radius, rel=0.04)
            assert nearest.iou > 0.9


@pytest.mark.parametrize(
    ("drawn", "asked", "expected"),
    [
        (single(color="pink"), single(), {"color", "bound", "all"}),
        (single(shape="square"), single(), {"shape", "bound", "all"}),
        (single(size=LARGE), single(), {"size", "all"}),
        (single(x=0.2), single(), {"place", "all"}),
        (single(y=0.8), single(), {"place", "all"}),
        (replace(single(), background=4), single(), {"background", "all"}),
        (pair(relation=1), pair(), set()),
        (pair(), pair(relation=1), {"place", "all"}),
        (pair(), pair(relation=2), {"place", "all"}),
        (pair(second=thing("star", "green", 2, 0.7, 0.5)), pair(), {"color", "bound", "all"}),
        (pair(second=thing("heart", "blue", 2, 0.7, 0.5)), pair(), {"shape", "bound", "all"}),
        (pair(second=thing("star", "blue", 1, 0.7, 0.5)), pair(), {"size", "all"}),
    ],
)
def test_finds_the_one_thing_that_is_wrong(drawn, asked, expected):
    assert wrong(drawn, asked) == expected


def test_things_may_be_named_in_either_order():
    scene = pair()
    assert not wrong(scene, Scene(0, scene.things[::-1], None, 1))


def test_swapped_colors_are_wrong():
    drawn = pair(thing("circle", "blue", 1, 0.25, 0.5), thing("star", "red", 2, 0.7, 0.5))
    assert {"all"} < wrong(drawn, pair())
    assert not scores(drawn, pair())["color"] or not scores(drawn, pair())["shape"]
    assert not scores(drawn, pair())["bound"]


def test_a_missing_thing_is_wrong():
    scene = pair()
    lone = Scene(0, scene.things[:1], None, None)
    assert wrong(lone, scene) == {"count", "color", "shape", "bound", "size", "place", "all"}


def test_a_third_thing_makes_the_count_wrong():
    scene = pair()
    crowd = Scene(0, (*scene.things, thing("heart", "green", 0, 0.2, 0.85)), None, 0)
    assert wrong(crowd, scene) == {"count", "all"}


def test_an_empty_image_has_only_its_background_right():
    result = score(judge(torch.ones(3, 64, 64)), single())
    assert [name for name, right in result.items() if right] == ["background"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [0, 1])
def test_a_blurred_blob_is_not_right(shape, size):
    scene = single(shape=shape, size=size)
    image = render([scene], 64)[0]
    assert score(judge(image), scene)["all"]
    assert not score(judge(blur(image, 3.0)), scene)["all"]


def test_crispness_alone_can_fail_an_image():
    scene = single(shape="ring", size=LARGE)
    result = score(judge(blur(render([scene], 64)[0], 1.5)), scene)
    assert [name for name, right in result.items() if not right] == ["all"]


def test_specks_are_not_things():
    scene = single(x=0.5)
    image = render([scene], 64)[0]
    image[:, 5:7, 5:7] = 0
    assert score(judge(image), scene)["all"]
    image[:, 5:9, 5:9] = 0
    assert not score(judge(image), scene)["count"]


def test_things_that_touch_at_a_corner_only_are_one():
    image = torch.ones(3, 64, 64)
    image[:, 10:20, 10:20] = 0
    image[:, 20:30, 20:30] = 0
    assert len(judge(image).things) == 1
    image[:, 19:21, 19:21] = 1
    assert len(judge(image).things) == 2


def test_components_follow_a_winding_path():
    """A label must find its way through a spiral, longer than any shape's."""
    image = torch.ones(3, 64, 64)
    low, high = 4, 60
    while high - low > 8:
        image[:, low : low + 2, low:high] = 0
        image[:, low:high, high - 2 : high] = 0
        image[:, high - 2 : high, low + 4 : high] = 0
        image[:, low + 4 : high, low + 4 : low + 6] = 0
        low, high = low + 4, high - 4
    assert len(judge(image).things) == 1


def test_every_background_is_known():
    for index, color in enumerate(BACKGROUNDS.values()):
        image = (torch.tensor(color) / 255)[:, None, None].expand(3, 64, 64)
        assert judge(image).background == index


@pytest.mark.parametrize("shape", [(64, 64, 3), (1, 3, 64, 64), (3, 64, 96), (3, 32, 32)])
def test_other_formats_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[3, H, W\]"):
        judge(torch.zeros(shape))


def test_a_diverged_image_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        judge(torch.full((3, 64, 64), float("nan")))
