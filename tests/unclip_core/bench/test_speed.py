"""The measurement beside diffusers: both programs draw the same images, and ratios are what they are called."""

import json

import pytest
import torch
from PIL import Image

from unclip.unclip_core.bench.speed import bars, sizes, steps, table, worker
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo

STEPS = [3, 3, 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_karlo(tmp_path_factory.mktemp("speed") / "karlo", small_size(), vision=False)


def measured(program, folder, tmp_path, dtype="fp32"):
    images = tmp_path / f"{program}.pt"
    figures = worker.measure(
        {
            "program": program,
            "folder": str(folder),
            "dtype": dtype,
            "batch": 2,
            "steps": STEPS,
            "images": 2,
            "device": "cpu",
            "save_to": str(images),
        }
    )
    assert len(figures["per_image"]) == 1 and min(figures["load"], figures["first"], figures["peak_memory"]) > 0
    assert len(figures["cpu_per_image"]) == 1 and figures["cpu_per_image"][0] > 0
    assert figures["peak_device_memory"] is None
    json.dumps(figures)
    return torch.load(images, weights_only=True)


def test_both_programs_draw_the_same_images(folder, tmp_path):
    ours, theirs = (measured(program, folder, tmp_path) for program in ("ours", "diffusers"))
    assert ours.shape == theirs.shape == (2, 64, 64, 3)
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().mean() < 4e-5


@pytest.mark.slow
def test_both_programs_draw_in_bfloat16_too(folder, tmp_path):
    """diffusers' own enlargement refuses bfloat16 on a CPU; the measurement lends it a cast."""
    ours, theirs = (measured(program, folder, tmp_path, "bf16") for program in ("ours", "diffusers"))
    assert ours.shape == theirs.shape == (2, 64, 64, 3) and ours.isfinite().all() and theirs.isfinite().all()
    assert (ours - theirs).abs().mean() < 0.1 < theirs.std()


def run(load, per_image, memory, value):
    theirs = {
        "load": load[0],
        "first": 4.0,
        "per_image": [per_image[0]] * 2,
        "cpu_per_image": [10.0],
        "peak_memory": memory[0],
    }
    ours = {
        "load": load[1],
        "first": 2.0,
        "per_image": [per_image[1]] * 2,
        "cpu_per_image": [4.0],
        "peak_memory": memory[1],
    }
    image = torch.full((1, 2, 2, 3), 0.5)
    return {"diffusers": theirs | {"image": image}, "ours": ours | {"image": image + value}}


def test_ratios_by_definition():
    one = [
        run((8, 2), (6.0, 3.0), (10, 5), 0.0),
        run((6, 2), (8.0, 2.0), (10, 4), 0.25),
        run((9, 2), (9.0, 3.0), (8, 4), 0.0),
    ]
    four = [run((8, 2), (4.0, 1.5), (10, 5), 0.0) for _ in range(3)]
    figures = {"ratios": {}, "range": {}, "difference": {}, "medians": {}}
    table._sum_up(figures, "fp32", {1: one, 4: four})
    ratios = figures["ratios"]["fp32"]
    assert ratios == pytest.approx(
        {
            "load": 4.0,
            "first": 2.0,
            "seconds_per_image": 3.0,
            "peak_memory": 0.5,
            "batch_4": 4 / 1.5,
            "batch_4_over_one": 0.5,
            "cpu_seconds_per_image": 2.5,
            "cpu_batch_4": 2.5,
            "cpu_batch_4_over_one": 1.0,
        }
    )
    assert figures["range"]["fp32"]["seconds_per_image"] == [2.0, 4.0]
    assert figures["difference"]["fp32"] == 0.25
    assert figures["medians"]["fp32"]["ours"]["per_image"] == 3.0


def test_bars_are_as_long_as_their_values(tmp_path):
    path = tmp_path / "bars.png"
    bars.save_bars([bars.Bar("a", 1.0, 1.0, 1.0), bars.Bar("b", 2.0, 2.0, 2.0)], "title", path)
    image = Image.open(path).convert("RGB")
    middles = [int(bars.TOP + bars.ROW * (row + 0.5)) - 5 for row in range(2)]
    lengths = [sum(image.getpixel((x, y)) == bars.BAR for x in range(image.width)) for y in middles]
    assert lengths[1] == pytest.approx(2 * lengths[0], abs=4)
    with pytest.raises(ValueError, match="at least one"):
        bars.save_bars([], "title", path)


def test_the_small_size_has_karlos_shape():
    small, full = sizes.half_size(), sizes.full_size()
    assert [2 * width for width in small.decoder.unet.channels] == list(full.decoder.unet.channels)
    assert small.decoder.unet.attention == full.decoder.unet.attention
    assert small.super_res.time_shift == full.super_res.time_shift


@torch.no_grad()
def test_more_steps_come_nearer(folder):
    model = steps.placed_model(folder, "cpu")
    found = steps.Study(model, ["the red cat"], (1.0, 1.0)).run([2, 12], 40)
    assert set(found) == {"prior", "decoder"} and "ddim" in found["decoder"]
    for measure in found.values():
        assert measure["ddim"][12] < measure["ddim"][2]
