"""Layers that widen their own weights: against torch's, with weights that were rounded and made float32 again."""

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from factories import draw
from torch import nn

from unclip.unclip_core.nets import buffers, widening
from unclip.unclip_core.nets.convolutions import Conv3x3
from unclip.unclip_core.nets.inference_gradients import enable_gradients
from unclip.unclip_core.nets.linear import Conv1x1, Linear
from unclip.unclip_core.nets.memory_formats import Conv2d

LAYERS = {
    "linear": (lambda: Linear(8, 12), (3, 5, 8)),
    "conv1x1": (lambda: Conv1x1(8, 12, 1), (2, 8, 5, 6)),
    "conv3x3": (lambda: Conv3x3(8, 12), (2, 8, 5, 6)),
    "wide conv3x3": (lambda: Conv3x3(128, 128), (1, 128, 64, 64)),
    "conv3x3 of one pixel": (lambda: Conv3x3(64, 64), (1, 64, 2, 2)),
    "strided": (lambda: Conv2d(8, 12, 3, stride=2, padding=1), (2, 8, 6, 6)),
    "patches": (lambda: widening.Conv2d(3, 8, 4, 4, bias=False), (2, 3, 8, 8)),
    "group norm": (lambda: widening.GroupNorm(2, 8), (2, 8, 5, 6)),
    "layer norm": (lambda: widening.LayerNorm(8), (2, 5, 8)),
}


def a_layer(name):
    make, shape = LAYERS[name]
    layer = make().eval().requires_grad_(False)
    for index, parameter in enumerate(layer.parameters()):
        parameter.data = 0.3 * draw(*parameter.shape, seed=index + 3)
    return layer, draw(*shape)


@pytest.mark.parametrize("dtype", widening.HALVES)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("gradients", [False, True])
def test_a_layer_in_half_computes_what_its_rounded_weights_do(name, gradients, last, dtype):
    layer, x = a_layer(name)
    if last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
        layer.to(memory_format=torch.channels_last)
    half = copy.deepcopy(layer).to(dtype)
    exact = copy.deepcopy(half).float()
    with torch.set_grad_enabled(gradients):
        made, wanted = half(x), exact(x)
        with buffers.shared_buffers():
            shared = half(x)
    assert made.dtype == torch.float32 and torch.equal(made, wanted) and torch.equal(shared, wanted)
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_pass_through_weights_in_half(name):
    layer, x = a_layer(name)
    half = copy.deepcopy(layer).bfloat16()
    exact = copy.deepcopy(half).float()
    x.requires_grad_()
    found = [torch.autograd.grad(each(x).square().sum(), x)[0] for each in (half, exact)]
    assert torch.equal(*found) and float(found[0].abs().max()) > 0


@pytest.mark.parametrize("name", ["linear", "conv1x1", "conv3x3", "strided"])
def test_the_way_back_widens_anew_what_it_needs(name, monkeypatch):
    """What was widened on the way there is gone before."""
    layer, x = a_layer(name)
    half = copy.deepcopy(layer).bfloat16()
    exact = copy.deepcopy(half).float()
    made, once = [], widening.widened

    def watched(stored, x):
        found = once(stored, x)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(widening, "widened", watched)
    x.requires_grad_()
    with enable_gradients(half):
        out = half(x)
        assert len(made) == 2 and not any(each() is not None for each in made)
        (found,) = torch.autograd.grad(out.square().sum(), x)
    (wanted,) = torch.autograd.grad(exact(x).square().sum(), x)
    assert torch.equal(found, wanted)


def test_layers_take_turns_in_one_piece_of_memory():
    first, second, x = Linear(64, 64).bfloat16(), Linear(64, 64).bfloat16(), draw(2, 64)
    with torch.no_grad(), buffers.shared_buffers():
        one = widening.widened(first.weight, x).data_ptr()
        assert widening.widened(second.weight, x).data_ptr() == one
        assert list(buffers.BUFFERS.buffers) == [("weights", torch.float32)]
    assert buffers.BUFFERS.buffers is None


def test_vectors_of_a_table_come_in_what_is_computed_in(emulated):
    table = widening.Embedding(10, 4).requires_grad_(False).bfloat16()
    ids = torch.tensor([[1, 9, 1]])
    assert table(ids).dtype == torch.float32 and torch.equal(table(ids), F.embedding(ids, table.weight.float()))


def test_nothing_else_is_widened():
    """Neither features in half, nor float64, nor what lies on another device."""
    half, whole = torch.zeros(2, 2, dtype=torch.bfloat16), torch.zeros(2, 2)
    assert widening.widened(half, half) is half and widening.widened(whole, half) is whole
    assert widening.widened(whole, whole.double()) is whole and widening.widened(half, whole.double()) is half
    there = half.to("meta")
    assert widening.widened(there, whole.to("meta")) is there


def test_a_norm_without_weights_has_none_to_widen():
    norm, x = nn.Sequential(widening.LayerNorm(8, elementwise_affine=False)), draw(2, 8)
    assert torch.equal(norm(x), F.layer_norm(x, (8,)))
