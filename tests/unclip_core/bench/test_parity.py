"""Karlo against diffusers' own networks and pipelines, and against kakaobrain's conventions, on small random models."""

import pytest
import torch

from unclip.unclip_core.bench.parity import native, oracle, runs, table
from unclip.unclip_core.clip.image_input import ImageInput
from unclip.unclip_core.diffusion.schedules import timesteps

try:  # the processor that resizes with Pillow, as it did when these pipelines were written
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as Processor
except ImportError:
    from transformers import CLIPImageProcessor as Processor

SHAPES = {shape.name: shape for shape in oracle.SHAPES}
# The first at Karlo's own counts; `unclip bench parity` runs all of them so.
STEPS = dict(zip(SHAPES, [(25, 25, 7), (7, 7, 3), (5, 5, 2)], strict=True))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """The reference of each shape and its folders, made when first asked for."""
    made = {}

    def pair(name):
        if name not in made:
            made[name] = runs.make_pair(SHAPES[name], tmp_path_factory.mktemp("pair"), seed=len(name))
        return made[name]

    return pair


def assert_holds(rows):
    assert rows
    assert all(row.holds for row in rows), "\n" + table.text(rows)


@pytest.mark.parametrize("name", SHAPES)
def test_every_net_computes_what_diffusers_computes(pairs, name):
    rows = runs.forwards(pairs(name))
    assert len(rows) == 10
    assert_holds(rows)


@pytest.mark.parametrize(("name", "steps"), STEPS.items())
def test_text_to_image_is_diffusers_pipeline(pairs, name, steps):
    assert_holds(runs.text_run(pairs(name), steps))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), STEPS.items())
def test_image_variation_is_diffusers_pipeline(pairs, name, steps):
    assert_holds(runs.variation_run(pairs(name), steps[1:]))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), STEPS.items())
def test_native_mode_follows_kakaobrains_conventions(pairs, name, steps):
    assert_holds(runs.native_run(pairs(name), steps))


class MovedNoise(runs.BatchNoise):
    """The noise of a seed, each number moved by about `by`."""

    def __init__(self, by):
        super().__init__(torch.Generator().manual_seed(5), len(runs.PROMPTS))
        self.by, self.moves = by, torch.Generator().manual_seed(6)

    def normal(self, *args, **kwargs):
        drawn = super().normal(*args, **kwargs)
        return drawn + self.by * torch.randn(drawn.shape, generator=self.moves)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), STEPS.items())
def test_the_reference_makes_little_of_last_bits(pairs, name, steps):
    """Else the comparisons would measure the CPU: with other kernels, nets that are equal differ by about 1e-6."""
    with torch.no_grad():
        calm, moved = (runs._native_reference(pairs(name), steps, MovedNoise(by)) for by in (0.0, 1e-6))
    assert all((a - b).abs().mean() < 1e-5 for a, b in zip(calm, moved, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("count", table.COUNTS)
@pytest.mark.parametrize("run", [runs.text_run, runs.native_run])
def test_odd_step_counts(pairs, count, run):
    assert_holds(run(pairs("two levels"), (count, count, count)))


def test_the_two_modes_are_told_apart(pairs):
    """A test that could not tell them apart would prove neither: 7 steps differ in spacing, tables and clip."""
    pair, steps = pairs("two levels"), (7, 7, 7)
    compatible, exact = (
        runs._ours(pair.model(mode), steps, runs.BatchNoise(torch.Generator().manual_seed(3), 2))
        for mode in ("diffusers", "native")
    )
    assert (compatible[2] - exact[2]).abs().mean() > 1e-4


def test_native_spacing_differs_from_diffusers_where_the_specification_says():
    same = [n for n in range(2, 1001) if torch.equal(timesteps(n, 1000, "karlo"), timesteps(n, 1000, "karlo_native"))]
    differ = sorted(set(range(2, 1001)) - set(same))
    assert len(differ) == 278
    assert differ[:3] == [21, 23, 31]
    assert {7, 25, 50} <= set(same)


@pytest.mark.parametrize("count", [1, 2, 7, 21, 25, 1000])
def test_native_spacing_is_the_formula(count):
    assert timesteps(count, 1000, "karlo_native").tolist() == native.visited(count)[::-1]


def test_a_row_that_is_off_does_not_hold():
    reference = torch.linspace(-2, 2, 100)
    assert runs.compare("x", "y", reference + 1e-6, reference, 1e-5).holds
    assert not runs.compare("x", "y", reference + 1e-4, reference, 1e-5).holds
    off = reference.clone()
    off[0] += 1e-3
    assert runs.compare("x", "y", off, reference, 1e-4, by_mean=True).holds
    assert not runs.compare("x", "y", off, reference, 1e-4).holds
    with pytest.raises(ValueError, match="shape"):
        runs.compare("x", "y", off[:5], reference, 1e-4)


@pytest.mark.parametrize(("height", "width"), [(40, 91), (91, 40), (56, 56), (33, 200)])
def test_images_are_prepared_as_transformers_prepares_them(height, width):
    levels = torch.randint(0, 256, (2, height, width, 3), generator=torch.Generator().manual_seed(7))
    processor = Processor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    reference = processor(images=list(levels.to(torch.uint8).numpy()), return_tensors="pt").pixel_values
    ours = ImageInput(32, 32)(levels.float() / 255)
    assert ours.shape == reference.shape
    assert (ours - reference).abs().max() < 1e-5


def test_native_mode_squashes_images():
    wide = torch.zeros(1, 8, 32, 3)
    wide[:, :, 16:] = 1.0
    squashed, cropped = ImageInput(8, None)(wide), ImageInput(8, 8)(wide)
    assert squashed[0, 0, 4, 0] < squashed[0, 0, 4, -1]
    red = squashed[0, 0]
    assert (red[:, :2] - red.min()).abs().max() < 0.05 and (red[:, -2:] - red.max()).abs().max() < 0.05
    assert cropped.shape == squashed.shape == (1, 3, 8, 8)
    edges = (squashed[0, 0, 4] > 0).tolist()
    assert edges == [False] * 4 + [True] * 4
