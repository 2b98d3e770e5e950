"""The renderer against shapes drawn by Pillow from their vertices, and against closed-form areas."""

import math
import random

import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from unclip.unclip_core.world.render import render
from unclip.unclip_core.world.scenes import Scene, Thing, sample_scenes
from unclip.unclip_core.world.shapes import DISTANCES
from unclip.unclip_core.world.vocabulary import BACKGROUNDS, COLORS, SHAPES

WHITE, RED = 0, 0


def single(shape, x=0.5, y=0.5, radius=0.25, color=RED, background=WHITE):
    return Scene(background, (Thing(SHAPES.index(shape), color, 1, x, y, radius),), 4, None)


def coverage(image):
    """Of red on white, from the blue channel."""
    ink = COLORS["red"][2] / 255
    return (1 - image[2]) / (1 - ink)


def star_points():
    angles = [math.pi * i / 5 for i in range(10)]
    drop = (1 - math.cos(math.pi / 5)) / 2
    radii = [1 if i % 2 == 0 else 0.45 for i in range(10)]
    return [(r * math.sin(a), -r * math.cos(a) + drop) for r, a in zip(radii, angles, strict=True)]


def cross_points(length=0.97, width=0.33):
    quarter = [(width, -length), (width, -width), (length, -width)]
    points = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


H = 2 / (1 + math.sqrt(2))  # half the diagonal of the heart's square
DROP = -(H - 1) / 2
DISC = H / math.sqrt(2)
POLYGONS = {
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "triangle": [(0, -0.49 * math.sqrt(3)), (0.98, 0.49 * math.sqrt(3)), (-0.98, 0.49 * math.sqrt(3))],
    "diamond": [(0, -1), (1, 0), (0, 1), (-1, 0)],
    "star": star_points(),
    "cross": cross_points(),
    "heart": [(0, H + DROP), (H, DROP), (0, DROP - H), (-H, DROP)],
}
DISCS = {
    "circle": [(0, 0, 1, 1)],
    "ring": [(0, 0, 1, 1), (0, 0, 0.55, 0)],
    "heart": [(side * H / 2, DROP - H / 2, DISC, 1) for side in (-1, 1)],
}
AREAS = {
    "circle": math.pi,
    "square": 1.76**2,
    "triangle": 0.98**2 * math.sqrt(3),
    "diamond": 2.0,
    "star": 5 * 0.45 * math.sin(math.pi / 5),
    "cross": 2 * 1.94 * 0.66 - 0.66**2,
    "ring": math.pi * (1 - 0.55**2),
    "heart": 2 * H * H + math.pi * DISC**2,
}


def drawn(shape, size, x, y, radius):
    """The shape as Pillow draws it, [size, size] of 0 and 1."""
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)

    def place(px, py):
        return ((x + px * radius) * size - 0.5, (y + py * radius) * size - 0.5)

    if shape in POLYGONS:
        draw.polygon([place(*point) for point in POLYGONS[shape]], fill=1)
    for cx, cy, r, ink in DISCS.get(shape, ()):
        draw.ellipse([place(cx - r, cy - r), place(cx + r, cy + r)], fill=ink)
    return torch.tensor(list(image.tobytes())).reshape(size, size).float()


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_those_of_their_vertices(shape):
    where = {"x": 0.45, "y": 0.56, "radius": 0.3}
    ours = coverage(render([single(shape, **where)], 256)[0])
    theirs = F.avg_pool2d(drawn(shape, 1024, **where)[None], 4)[0]
    common, either = torch.minimum(ours, theirs).sum(), torch.maximum(ours, theirs).sum()
    assert common / either > 0.985


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [64, 256])
def test_area_is_that_of_the_closed_form(shape, size):
    radius = 13 / 64
    area = coverage(render([single(shape, radius=radius)], size)[0]).sum() / size**2
    assert float(area) == pytest.approx(AREAS[shape] * radius**2, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_touch_no_more_than_their_box(shape):
    image = coverage(render([single(shape, radius=0.25)], 256)[0])
    assert image.sum() > 0
    inside = torch.zeros(256, 256, dtype=torch.bool)
    inside[63:193, 63:193] = True
    assert image[~inside].abs().max() < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_are_distances(shape):
    """Outside, the distance is the Euclidean one to the drawn shape."""
    from scipy.ndimage import distance_transform_edt

    size, radius = 400, 0.25
    axis = ((torch.arange(size) + 0.5) / size - 0.5) / radius
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    ours = DISTANCES[SHAPES.index(shape)](x, y)
    theirs = torch.from_numpy(distance_transform_edt(1 - drawn(shape, size, 0.5, 0.5, radius).numpy()))
    outside = ours > 0.03
    assert ((ours - theirs / (size * radius))[outside]).abs().max() < 0.025


def test_an_image_is_the_same_at_every_size():
    scenes = sample_scenes(random.Random(0), 200, "trained")
    small = render(scenes, 64)
    shrunk = F.avg_pool2d(render(scenes, 256), 4)
    difference = (small - shrunk).abs()
    assert difference.mean() < 5e-4
    assert difference.max() < 0.35  # a pixel on a star's tip, which a distance cannot see is thinner
    assert (difference > 0.1).float().mean() < 5e-4


def test_things_lie_where_the_scene_says_and_have_its_colors():
    for scene in sample_scenes(random.Random(1), 60, "held_out"):
        (image,) = render([scene], 64)
        ground = torch.tensor(list(BACKGROUNDS.values())[scene.background]) / 255
        assert torch.allclose(image[:, 0, 0], ground)
        for thing in scene.things:
            if SHAPES[thing.shape] == "ring":
                continue  # its middle is background
            ink = torch.tensor(list(COLORS.values())[thing.color]) / 255
            assert torch.allclose(image[:, int(thing.y * 64), int(thing.x * 64)], ink, atol=1e-6)


def test_edges_are_one_pixel_wide():
    row = coverage(render([single("square", x=0.5, radius=0.3)], 128)[0])[64]
    partly = (row > 1e-4) & (row < 1 - 1e-4)
    assert int(partly.sum()) <= 4
    assert int((row >= 1 - 1e-4).sum()) in range(65, 69)  # 2 · 0.88 · 0.3 · 128 = 67.6 px


def test_an_image_does_not_depend_on_its_batch():
    scenes = sample_scenes(random.Random(2), 40, "trained")
    together = render(scenes, 64)
    alone = torch.cat([render([scene], 64) for scene in scenes])
    assert torch.allclose(together, alone, atol=1e-5)


def test_format():
    images = render(sample_scenes(random.Random(3), 5, "trained"), 96)
    assert images.shape == (5, 3, 96, 96) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert render([], 64).shape == (0, 3, 64, 64)
