"""What a script or a hostile prompt can put into a widget."""

import math

import pytest

from unclip import NODE_CLASS_MAPPINGS
from unclip.nodes import inputs
from unclip.nodes.inputs import InputError


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_steps_in_range_pass(steps):
    assert inputs.check_steps(steps) == steps


@pytest.mark.parametrize("steps", [0, -1, 1001, 10_000])
def test_steps_out_of_range_are_refused_with_the_range(steps):
    with pytest.raises(InputError, match=f"'steps' is {steps:,}; it must lie between 1 and 1,000"):
        inputs.check_steps(steps)


@pytest.mark.parametrize("steps", ["10", 10.0, None, True, math.nan])
def test_what_is_no_whole_number_is_refused(steps):
    with pytest.raises(InputError, match="'steps' must be a whole number"):
        inputs.check_steps(steps)


@pytest.mark.parametrize("seed", [0, -1, 2**64 - 1, 2**64, -(2**70)])
def test_every_whole_number_is_a_seed(seed):
    assert inputs.check_seed(seed) == seed


@pytest.mark.parametrize("seed", [0.5, "7", None, math.nan])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(InputError, match="'seed'"):
        inputs.check_seed(seed)


@pytest.mark.parametrize("scale", [0, 0.0, 1, 20.0])
def test_guidance_in_range_passes(scale):
    assert inputs.GUIDANCE.check(scale) == scale


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, -0.1, 20.1, "2", None])
def test_other_guidance_is_refused(scale):
    with pytest.raises(InputError, match="'guidance_scale'"):
        inputs.GUIDANCE.check(scale)


def test_the_interval_of_guidance_is_turned_round():
    assert inputs.check_interval(0, 1) == (0.0, 1.0)
    assert inputs.check_interval(0.25, 0.7) == (0.3, 0.75)
    assert inputs.check_interval(0.5, 0.5) == (0.5, 0.5)


@pytest.mark.parametrize(("start", "end"), [(0.6, 0.5), (-0.1, 1.0), (0.0, 1.1), (math.nan, 1.0), (0.0, None)])
def test_other_intervals_are_refused(start, end):
    with pytest.raises(InputError, match="'guidance_(start|end)'"):
        inputs.check_interval(start, end)


def test_an_unknown_sampler_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'euler'.*ddim.*dpmpp_2m"):
        inputs.check_sampler("euler")


@pytest.mark.parametrize(
    ("node_id", "name", "bad"),
    [
        ("UnclipPriorSample", "guidance_scale", math.nan),
        ("UnclipPriorSample", "guidance_scale", 21.0),
        ("UnclipPriorSample", "guidance_scale", -1.0),
        ("UnclipDecoderSample", "guidance_scale", math.nan),
        ("UnclipDecoderSample", "eta", math.nan),
        ("UnclipDecoderSample", "eta", 1.5),
        ("UnclipPriorSample", "guidance_start", math.nan),
        ("UnclipDecoderSample", "guidance_end", 1.01),
        ("UnclipEmbeddingInterpolate", "t", math.nan),
        ("UnclipEmbeddingInterpolate", "t_end", 2.0),
    ],
)
def test_the_prompt_is_refused_before_it_runs(node_id, name, bad):
    """What ComfyUI's own check lets pass (NaN), and the range, which it leaves to VALIDATE_INPUTS."""
    answer = NODE_CLASS_MAPPINGS[node_id].VALIDATE_INPUTS(**{name: bad})
    assert isinstance(answer, str)
    assert f"'{name}'" in answer
