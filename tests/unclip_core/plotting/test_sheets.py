"""Contact sheets: where each image lies, and what is left white."""

import pytest
import torch

from unclip.unclip_core.plotting.sheets import levels, tiled


def test_images_lie_in_rows_and_the_rest_is_white():
    images = [torch.full((2, 3, 3), number, dtype=torch.uint8) for number in (10, 20, 30)]
    sheet = tiled(images, columns=2)
    assert sheet.shape == (4, 6, 3) and sheet.dtype == torch.uint8
    assert sheet[:, :, 0].tolist() == [[10] * 3 + [20] * 3] * 2 + [[30] * 3 + [255] * 3] * 2


def test_levels_round_and_clip():
    assert levels(torch.tensor([-0.5, 0.0, 0.499 / 255, 0.501 / 255, 0.5, 1.0, 1.5])).tolist() == [
        0,
        0,
        0,
        1,
        128,
        255,
        255,
    ]


@pytest.mark.parametrize(("sizes", "columns"), [([], 2), ([(2, 2), (2, 3)], 2), ([(2, 2)], 0)])
def test_what_makes_no_sheet_is_refused(sizes, columns):
    with pytest.raises(ValueError, match="images of one size and 1 column or more"):
        tiled([torch.zeros(*size, 3, dtype=torch.uint8) for size in sizes], columns)
