"""What a script or a hostile prompt can put into a widget."""

import math

import pytest

from unclip import NODE_CLASS_MAPPINGS
from unclip.nodes import inputs, sampling
from unclip.nodes.inputs import InputError
from unclip.nodes.sampling import AUTO, Own, choose


@pytest.mark.parametrize("steps", [0, 1, 2, 1000])
def test_steps_in_range_pass(steps):
    assert sampling.check_steps(steps) == steps


@pytest.mark.parametrize("steps", [-1, 1001, 10_000])
def test_steps_out_of_range_are_refused_with_the_range(steps):
    with pytest.raises(InputError, match=f"'steps' is {steps:,}; it must lie between 0 and 1,000"):
        sampling.check_steps(steps)


@pytest.mark.parametrize("steps", ["10", 10.0, None, True, math.nan])
def test_what_is_no_whole_number_is_refused(steps):
    with pytest.raises(InputError, match="'steps' must be a whole number"):
        sampling.check_steps(steps)


@pytest.mark.parametrize("seed", [0, -1, 2**64 - 1, 2**64, -(2**70)])
def test_every_whole_number_is_a_seed(seed):
    assert inputs.check_seed(seed) == seed


@pytest.mark.parametrize("seed", [0.5, "7", None, math.nan])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(InputError, match="'seed'"):
        inputs.check_seed(seed)


@pytest.mark.parametrize("scale", [0, 0.0, 1, 20.0, -1, -1.0])
def test_guidance_in_range_passes(scale):
    assert sampling.GUIDANCE.check(scale) == scale


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, -0.1, -0.9, -2, 20.1, True, "2", None])
def test_other_guidance_is_refused(scale):
    with pytest.raises(InputError, match="'guidance_scale'"):
        sampling.GUIDANCE.check(scale)


def test_the_interval_of_guidance_is_turned_round():
    assert inputs.check_interval(0, 1) == (0.0, 1.0)
    assert inputs.check_interval(0.25, 0.7) == (0.3, 0.75)
    assert inputs.check_interval(0.5, 0.5) == (0.5, 0.5)


@pytest.mark.parametrize(("start", "end"), [(0.6, 0.5), (-0.1, 1.0), (0.0, 1.1), (math.nan, 1.0), (0.0, None)])
def test_other_intervals_are_refused(start, end):
    with pytest.raises(InputError, match="'guidance_(start|end)'"):
        inputs.check_interval(start, end)


MODEL = Own({"steps": 25, "guidance_scale": 4.0, "sampler": "ddpm"}, "the model's own")


@pytest.mark.parametrize(
    ("given", "own", "settings", "text"),
    [
        (AUTO, [MODEL], (25, 4.0, "ddpm"), "25 steps, guidance 4, ddpm: the model's own"),
        (
            AUTO | {"steps": 8, "sampler": "ddim"}, [MODEL], (8, 4.0, "ddim"),
            "8 steps, ddim: as set; guidance 4: the model's own",
        ),
        (
            {"steps": 1, "guidance_scale": 0.0, "sampler": "ddim"}, [MODEL], (1, 0.0, "ddim"),
            "1 step, guidance 0, ddim: as set",
        ),
        (
            AUTO, [Own({"steps": 50}, "the node's"), MODEL], (50, 4.0, "ddpm"),
            "50 steps: the node's; guidance 4, ddpm: the model's own",
        ),
        ({"steps": 0}, [MODEL], (25,), "25 steps: the model's own"),
    ],
)  # fmt: skip
def test_auto_takes_the_first_of_its_own_settings_and_says_whose_they_are(given, own, settings, text):
    chosen = choose(given, *own)
    assert tuple(chosen.settings.values()) == settings and list(chosen.settings) == list(given)
    assert chosen.text == text and chosen.steps == settings[0]


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"guidance_scale": -0.5}, {"sampler": "Auto"}, {"steps": None}])
def test_nothing_else_is_auto(wrong):
    with pytest.raises(InputError, match=next(iter(wrong)).removesuffix("_scale")):
        choose(AUTO | wrong, MODEL)


def test_an_unknown_sampler_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'euler'.*ddim.*dpmpp_2m"):
        sampling.check_sampler("euler")


@pytest.mark.parametrize(
    ("node_id", "name", "bad"),
    [
        ("UnclipPriorSample", "guidance_scale", math.nan),
        ("UnclipPriorSample", "guidance_scale", 21.0),
        ("UnclipPriorSample", "guidance_scale", -1.5),
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


@pytest.mark.parametrize(
    ("node_id", "values", "said"),
    [
        ("UnclipPriorSample", {"candidates": 2, "keep": 3}, "'keep' is 3, but there are only 2 'candidates'"),
        ("UnclipPriorSample", {"keep": 2}, "'keep' is 2, but there are only 1"),
        ("UnclipPriorSample", {"candidates": 65, "keep": 1}, "'candidates' is 65"),
        ("UnclipPriorSample", {"candidates": 2, "keep": 0}, "'keep' is 0"),
        ("UnclipPriorSample", {"guidance_start": 0.7, "guidance_end": 0.3}, "guidance would never act"),
        ("UnclipDecoderSample", {"guidance_start": 0.7, "guidance_end": 0.3}, "guidance would never act"),
        ("UnclipOutpaint", {"left": 0, "top": 0, "right": 0, "bottom": 0}, "All margins are 0"),
        ("UnclipOutpaint", {"left": -1}, "'left' is -1"),
    ],
)
def test_what_two_inputs_make_of_each_other_is_known_before_the_run(node_id, values, said):
    assert said in NODE_CLASS_MAPPINGS[node_id].VALIDATE_INPUTS(**values)


@pytest.mark.parametrize(
    ("node_id", "values"),
    [
        ("UnclipPriorSample", {"candidates": 3, "keep": 3}),
        ("UnclipPriorSample", {"candidates": None, "keep": 3}),  # linked: it is checked when it arrives
        ("UnclipPriorSample", {"candidates": 2, "keep": None}),
        ("UnclipOutpaint", {"left": 0, "top": 0, "right": None, "bottom": 0}),
    ],
)
def test_inputs_that_fit_or_are_linked_pass(node_id, values):
    assert NODE_CLASS_MAPPINGS[node_id].VALIDATE_INPUTS(**values) is True
