"""The depth hint: grey, stretched over black to white, or turned about."""

import pytest
import torch

from unclip.nodes.depth import COLOURED, FLAT, UnclipDepthHint
from unclip.nodes.inputs import InputError
from unclip.unclip_core.pipelines.depth import depth_hint


def run(image, **more):
    returned = UnclipDepthHint().run(image, **more)
    return returned["result"][0], returned["ui"].get("warnings", [])


@pytest.fixture
def ramp():
    """Two pictures `[2, 4, 5, 1]`: from 0.2 to 0.6, and the half of it."""
    one = torch.linspace(0.2, 0.6, 20).view(1, 4, 5, 1)
    return torch.cat([one, one / 2])


def test_each_picture_is_stretched_on_its_own(ramp):
    hint, warnings = run(ramp)
    expected = torch.linspace(0, 1, 20).view(1, 4, 5, 1).expand(2, 4, 5, 3)
    torch.testing.assert_close(hint, expected)
    assert warnings == [] and hint.is_contiguous()


def test_it_is_turned_about_and_left_as_it_is(ramp):
    torch.testing.assert_close(run(ramp, invert=True)[0], 1 - run(ramp)[0])
    torch.testing.assert_close(run(ramp, stretch=False)[0], ramp.expand(-1, -1, -1, 3))


def test_colours_and_a_flat_picture_are_said(ramp):
    red = torch.rand(1, 4, 5, 3, generator=torch.Generator().manual_seed(1))
    assert run(red)[1] == [COLOURED]
    hint, warnings = run(torch.full((1, 4, 5, 3), 0.3))
    assert warnings == [FLAT]
    torch.testing.assert_close(hint, torch.full((1, 4, 5, 3), 0.3))


def test_what_is_no_image_is_refused():
    with pytest.raises(InputError, match="empty"):
        run(torch.zeros(1, 0, 4, 3))
    with pytest.raises(ValueError, match="at least one pixel"):
        depth_hint(torch.zeros(1, 0, 4, 3))
