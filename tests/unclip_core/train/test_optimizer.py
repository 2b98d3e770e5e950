"""Muon's iterations where bfloat16 would be emulated: in float32, by the same formula."""

import math

import pytest
import torch
from torch import nn

from unclip.unclip_core.train.optimizer import MuonAdamW

LR = 0.1


def stepped(shape, gradient):
    """How far one step moves a matrix of zeros."""
    net = nn.Linear(shape[1], shape[0], bias=False)
    nn.init.zeros_(net.weight)
    optimizer = MuonAdamW(net, LR, 0.0)
    net.weight.grad = gradient.clone()
    optimizer.step()
    return net.weight.detach()


def expected(gradient, momentum=0.95):
    """Jordan et al. 2024, in float64: five iterations on Nesterov's momentum, at AdamW's scale."""
    first = gradient.double() * (1 - momentum)
    x = first * momentum + gradient.double() * (1 - momentum)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return -LR * 0.2 * math.sqrt(max(gradient.shape)) * (x.T if tall else x)


@pytest.mark.parametrize("shape", [(64, 48), (40, 96)])
def test_a_processor_without_bfloat16_iterates_in_float32(emulated, shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    moved, wanted = stepped(shape, gradient), expected(gradient)
    assert (moved - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_elsewhere_they_stay_in_bfloat16(native):
    gradient = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    moved, wanted = stepped((64, 48), gradient), expected(gradient)
    far = (moved - wanted).abs().max() / wanted.abs().max()
    assert 1e-3 < far < 5e-2
    assert torch.bfloat16 == gradient.bfloat16().dtype, "what torch is asked for elsewhere it gives"


def test_a_copy_is_iterated_on_and_the_momentum_stays(emulated):
    """`bfloat16()` of a float32 tensor copies; its stand-in has to as well, or momentum would be normalised too."""
    gradient = torch.randn(48, 48, generator=torch.Generator().manual_seed(0))
    net = nn.Linear(48, 48, bias=False)
    optimizer = MuonAdamW(net, LR, 0.0)
    for _ in range(2):
        net.weight.grad = gradient.clone()
        optimizer.step()
    (state,) = optimizer.state_dict()["muon"]["state"].values()
    torch.testing.assert_close(state["momentum_buffer"], gradient * (1 - 0.95**2))
