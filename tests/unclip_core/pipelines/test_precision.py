"""Where nets in bfloat16 part from those in float32, by sampler: what `diffusion/samplers.py` says of it."""

import copy
from dataclasses import replace

import pytest
import torch
from factories import draw, randomised, unet_params

from unclip.unclip_core import pipelines
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.models import Decoder
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.map_conditioner import MapConditionerParams
from unclip.unclip_core.pipelines.decoder import decoder_denoiser

WIDTH, SIDE, COUNT = 12, 16, 8


def a_decoder(prediction):
    conditioner = MapConditionerParams(
        embed_dim=WIDTH, hidden=16, time_embed_dim=16, map_channels=(0, 4), map_sizes=(0, 4)
    )
    net = DecoderNet(DecoderParams(conditioner=conditioner, unet=unet_params(3, (0, 4)), image_size=SIDE))
    return Decoder("test", randomised(net), DiffusionSpec(prediction=prediction, clip_range=1.0), image_size=SIDE)


def farthest(prediction, sampler, exact_steps=0):
    """The greatest difference of a pixel (0..1) in bfloat16, the first steps in float32."""
    exact = a_decoder(prediction)
    coarse = replace(exact, net=copy.deepcopy(exact.net).to(torch.bfloat16))
    embeds, settings = draw(COUNT, WIDTH), {"seeds": range(COUNT), "steps": 10, "guidance_scale": 1.0}
    first = set(exact.diffusion.steps(10, sampler).timesteps[:exact_steps].tolist())
    fine = decoder_denoiser(exact, embeds, None, 1.0)

    def adapt(rough):
        return lambda x, t: (fine if int(t[0]) in first else rough)(x, t)

    drawn, there = (
        pipelines.sample_decoder(each, embeds, sampler=sampler, adapt=how, **settings)
        for each, how in ((exact, None), (coarse, adapt))
    )
    return float((drawn - there).abs().max())


@pytest.mark.parametrize("sampler", ["ddim", "deis", "dpmpp_2m"])
def test_without_noise_the_first_steps_rounding_of_epsilon_stays(sampler, native):
    assert farthest("epsilon", sampler) > 3 * farthest("epsilon", sampler, exact_steps=1)
    assert farthest("epsilon", sampler) > 3 * farthest("epsilon", "dpmpp_sde")


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_what_predicts_no_epsilon_does_not_part_so(prediction, native):
    assert farthest(prediction, "dpmpp_2m") < 2 * farthest(prediction, "dpmpp_sde") < 0.1
