"""Strips of features: as many rows as fit, by the widest features on the way to them."""

import pytest
import torch

from unclip.unclip_core.nets import feature_rows
from unclip.unclip_core.nets.feature_rows import Rows
from unclip.unclip_core.nets.movq_layers import Block, Down, Head, Norm, Up


def norm(channels):
    return Norm(8, channels)


@pytest.mark.parametrize(
    "layer",
    [Head(64, 3, norm), Block(64, 16, norm), Block(16, 64, norm), Down(64), Up(64)],
    ids=["head", "narrower", "wider", "down", "up"],
)
@torch.no_grad()
def test_what_is_read_at_once_keeps_to_the_size_of_a_strip(monkeypatch, layer):
    """Three channels that come of 64 were once read as a whole: a gigabyte more at 1024 px."""
    monkeypatch.setattr(feature_rows, "STRIP_ELEMENTS", 64 * 32 * 8)
    x, read = torch.randn(1, layer_input(layer), 128, 32), []
    source = Rows(x.shape, lambda a, b: (read.append(x[:, :, a:b].numel()), x[:, :, a:b])[1], x.shape[1])
    made = layer.rows(source, None).stored()
    torch.testing.assert_close(made, layer(x), rtol=1e-4, atol=1e-4)
    least = 2 * feature_rows.MIN_STRIP_ROWS + 4  # rows: twice as many for half the size, and those around
    assert len(read) > 4 and max(read) <= 64 * 32 * least


@pytest.mark.parametrize("way", [True, False], ids=["winograd", "direct"])
@torch.no_grad()
def test_rows_of_a_convolution_are_the_whole_ones(monkeypatch, way):
    monkeypatch.setattr(feature_rows, "winograd_is_faster", lambda x, weight: way)
    conv, x = torch.nn.Conv2d(12, 7, 3, padding=1), torch.randn(2, 12, 21, 9)
    expected = torch.nn.functional.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
    for first, last in ((0, 21), (0, 6), (5, 14), (20, 21)):
        made = feature_rows.conv_rows(conv, lambda a, b: x[:, :, a:b], 21, first, last)
        torch.testing.assert_close(made.double(), expected[:, :, first:last], rtol=1e-5, atol=1e-5)


def layer_input(layer):
    conv = getattr(layer, "conv", None) or layer.conv1
    return conv.in_channels
