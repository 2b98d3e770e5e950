"""The facts of a diffusion process: from JSON and back, and every number within its bounds."""

import json
from dataclasses import asdict

import pytest

from unclip.unclip_core.diffusion.spec import MAX_TRAIN_STEPS, DiffusionSpec


def test_a_trip_through_json_changes_nothing():
    spec = DiffusionSpec(
        schedule="linear", train_steps=77, prediction="v_prediction", clip_range=2.5, beta_range=(0.001, 0.01),
        offset=1, solver_spacing="leading", threshold=(0.99, 3.0),
    )  # fmt: skip
    assert DiffusionSpec.from_dict(json.loads(json.dumps(asdict(spec)))) == spec
    assert DiffusionSpec.from_dict({"clip_range": 2}) == DiffusionSpec(clip_range=2.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_steps": 10**9}, "train_steps must be within 1..100,000, got 1000000000"),
        ({"train_steps": 0}, "train_steps"),
        ({"train_steps": 1000.0}, "train_steps"),
        ({"train_steps": True}, "train_steps"),
        ({"schedule": "sigmoid"}, "schedule must be one of cosine"),
        ({"schedule": ["cosine"]}, "schedule"),
        ({"prediction": "image"}, "prediction"),
        ({"variance": "learned"}, "variance"),
        ({"spacing": "even"}, "spacing"),
        ({"solver_spacing": "even"}, "solver_spacing"),
        ({"clip_range": 0}, "clip_range must be positive"),
        ({"clip_range": float("inf")}, "clip_range"),
        ({"clip_range": float("nan")}, "clip_range"),
        ({"beta_range": [0.1, 0.2]}, "cosine schedule takes no beta_range"),
        ({"schedule": "linear", "beta_range": [0.5, 0.1]}, "0 < start <= end < 1"),
        ({"schedule": "linear", "beta_range": [float("nan"), 0.1]}, "0 < start <= end < 1"),
        ({"schedule": "linear", "beta_range": [0.1]}, "beta_range"),
        ({"threshold": [2.0, 1.0]}, "percentile"),
        ({"offset": -1}, "offset"),
        ({"offset": 10**9}, "offset"),
        ({"compatible": "yes"}, "compatible"),
        ({"compatible": True, "offset": 1}, "offset 1 and ends_noisy False"),
        ({"compatible": True, "ends_noisy": True}, "offset 0 and ends_noisy True"),
        ({"train_steps": 1, "ends_noisy": True}, "ends_noisy needs 2 train_steps"),
        ({"steps": 3}, r"Unknown diffusion settings \['steps'\]"),
    ],
)
def test_what_is_no_process_is_refused_by_name(change, said):
    with pytest.raises(ValueError, match=said):
        DiffusionSpec.from_dict(change)


def test_the_longest_process_is_made():
    assert DiffusionSpec(train_steps=MAX_TRAIN_STEPS).table.shape == (MAX_TRAIN_STEPS,)


@pytest.mark.parametrize(("spacing", "most"), [("linspace", 1), ("leading", 1), ("karlo_native", 1), ("trailing", 66)])
def test_a_process_that_ends_noisy_says_how_many_steps_it_takes(spacing, most):
    """Of 100 steps: all spacings but trailing visit 0 with any two steps, trailing from round(100 / N) = 1 on."""
    spec = DiffusionSpec(train_steps=100, spacing=spacing, ends_noisy=True)
    for count in (most + 1, 100):
        with pytest.raises(ValueError, match=f"{count} steps, spaced {spacing}.* Take {most} at most"):
            spec.steps(count)
    assert float(spec.steps(most).alpha_bar[-1]) == float(spec.table[0])


@pytest.mark.parametrize("data", [None, [], "cosine", 3])
def test_what_is_no_table_is_refused(data):
    with pytest.raises(ValueError, match="table of diffusion settings"):
        DiffusionSpec.from_dict(data)
