"""ComfyUI hands None to VALIDATE_INPUTS for what a link brings: that must pass, and NaN must not."""

import math

import pytest

import unclip

NAMED = [
    ("UnclipPriorSample", "guidance_scale"),
    ("UnclipDecoderSample", "guidance_scale"),
    ("UnclipDecoderSample", "eta"),
    ("UnclipEmbeddingInterpolate", "t"),
    ("UnclipEmbeddingInterpolate", "t_end"),
]


@pytest.mark.parametrize(("node", "name"), NAMED)
def test_a_linked_number_is_checked_when_it_arrives(node, name):
    validate = unclip.NODE_CLASS_MAPPINGS[node].VALIDATE_INPUTS
    assert validate(**{name: None}) is True
    assert isinstance(validate(**{name: math.nan}), str)
