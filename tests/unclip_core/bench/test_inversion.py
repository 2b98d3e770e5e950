"""The figures of inversion on the bundled model: images come back, better with more steps."""

import pytest

from unclip.unclip_core.bench.inversion import bench_inversion, held_out, redrawn
from unclip.unclip_core.diffusion.inversion import psnr
from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.pipelines import encode_image, sample_decoder


@pytest.mark.slow
def test_more_steps_bring_images_back_better(capsys):
    rows = bench_inversion(2, steps=(5, 20, 50), iterations=(1,))
    few, more, many = (row.mean for row in rows)
    assert few > 30 and more > few + 1 and many > more + 2
    assert all(row.lowest <= row.mean for row in rows)
    assert "PSNR in dB" in capsys.readouterr().out


@pytest.mark.slow
def test_the_found_noise_draws_the_image_as_no_other_does():
    model, images = load_model(SHAPES), held_out(2, 64, 1)
    embeds = encode_image(model.clip, images)
    other = sample_decoder(model.decoder, embeds, seeds=[1, 2], steps=20, guidance_scale=1.0, sampler="ddim")
    again = redrawn(model, images, embeds, 20, 1)
    assert bool((psnr(images, again) > psnr(images, other) + 3).all())
