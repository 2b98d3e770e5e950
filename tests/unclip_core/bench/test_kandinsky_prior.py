"""Kandinsky 2.2's prior folder against diffusers' own networks and pipelines, on small random models."""

import pytest

from unclip.unclip_core.bench.parity import kandinsky_prior, table

SHAPES = {shape.name: shape for shape in kandinsky_prior.SHAPES}


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    shape = SHAPES[request.param]
    return kandinsky_prior.make_pair(shape, tmp_path_factory.mktemp("pair") / "prior", seed=len(shape.name))


def assert_holds(rows):
    assert rows
    assert all(row.holds for row in rows), "\n" + table.text(rows)


def test_every_net_computes_what_diffusers_computes(pair):
    assert_holds(kandinsky_prior.forwards(pair))


@pytest.mark.parametrize("steps", [2, 7, 25])
def test_text_to_embedding_is_diffusers_pipeline(pair, steps):
    assert_holds(kandinsky_prior.text_run(pair, steps))


@pytest.mark.parametrize(("steps", "strength"), [(25, 0.3), (100, 0.29), (7, 1.0)])
def test_a_start_from_images_is_diffusers_pipeline(pair, steps, strength):
    assert_holds(kandinsky_prior.image_run(pair, steps, strength))


def test_a_mixture_is_diffusers_interpolation(pair):
    assert_holds(kandinsky_prior.mixture_run(pair))
