"""Every short way against the plain one: same weights, same inputs, same numbers."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from factories import draw, error, full_unet_params, randomise

from unclip.unclip_core.nets import batch_chunks as turns
from unclip.unclip_core.nets import buffers, convolutions, winograd
from unclip.unclip_core.nets import linear as products
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.layers import ResBlock, TimeTable
from unclip.unclip_core.nets.token_conditioner import TokenConditionerParams
from unclip.unclip_core.nets.unet import UNet

FULL = full_unet_params((8, 16, 16), (1, 2, 1))
TOKENS = TokenConditionerParams(embed_dim=12, text_width=12, time_embed_dim=16, context_dim=10)


@pytest.mark.parametrize("turn", [1, 500, 2000, 10**6])
@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (3, 5, 8, 12), (2, 4, 1, 7), (5, 2, 9, 6), (2, 9, 9, 6)])
def test_winograd_equals_the_sum_it_shortens(monkeypatch, shape, turn):
    monkeypatch.setattr(winograd, "MAX_SPECTRUM_ELEMENTS", turn)
    monkeypatch.setattr(winograd, "MAX_KERNEL_ELEMENTS", 100 if turn < 1000 else 10**6)
    x, weight, bias = draw(*shape), draw(7, shape[1], 3, 3, seed=2), draw(7, seed=3)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        made = winograd.winograd(given, weight, bias)
        exact = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
        assert made.shape == exact.shape and error(made.double(), exact) < 3e-6
    assert error(winograd.winograd(x, weight).double(), F.conv2d(x.double(), weight.double(), padding=1)) < 3e-6


def test_convolutions_may_share_their_memory():
    """Larger, smaller and of another dtype, one after the other: nothing of one is left for the next."""
    shapes = [(1, 3, 4, 4), (3, 5, 8, 12), (2, 4, 1, 7), (3, 5, 8, 12)]
    cases = [
        (draw(*shape).to(dtype), draw(7, shape[1], 3, 3, seed=2).to(dtype))
        for shape in shapes
        for dtype in (torch.float32, torch.float64)
    ]
    alone = [winograd.winograd(*case) for case in cases]
    with buffers.shared_buffers():
        shared = [winograd.winograd(*case) for case in cases]
        with buffers.shared_buffers():
            within = winograd.winograd(*cases[0])
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))
    assert torch.equal(within, alone[0]) and buffers.BUFFERS.buffers is None


def test_a_block_without_gradients_equals_one_with_them():
    """Without gradients it works in place."""
    for shift, resample, norm in (
        ("add", None, "group"),
        ("scale_shift", "up", "group"),
        ("add", "down", "group"),
        ("scale_shift", None, "group"),
        ("scale_shift", None, "none"),
        ("add", None, "none"),
    ):
        block = randomise(ResBlock(8, 8, 6, groups=2, eps=1e-5, time_shift=shift, resample=resample, norm=norm))
        x, embed = draw(2, 8, 4, 6), draw(2, 6, seed=2)
        kept, expected = x.clone(), block(x, embed)
        with torch.no_grad():
            assert error(block(x, embed), expected) < 1e-6
        assert torch.equal(x, kept)


def test_winograd_is_exact_in_exact_arithmetic(monkeypatch):
    """In float64 nothing but float64's rounding is left: the matrices are right to the last digit."""
    x, weight = draw(2, 3, 8, 8).double(), draw(4, 3, 3, 3, seed=2).double()
    assert error(winograd.winograd(x, weight), F.conv2d(x, weight, padding=1)) < 1e-14


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1.5e-6), (torch.bfloat16, 9e-3)])
def test_winograd_at_a_width_of_karlos_loses_little(dtype, bound):
    """Of the result: 6e-7 and 7e-3 were seen, of the direct sum 3e-7 and 1.7e-3."""
    x, weight = F.silu(draw(1, 320, 8, 8)).to(dtype), (draw(64, 320, 3, 3, seed=2) / (9 * 320) ** 0.5).to(dtype)
    exact, short = F.conv2d(x.double(), weight.double(), padding=1), winograd.winograd(x, weight)
    assert short.dtype == dtype
    assert (short - exact).square().mean().sqrt() < bound * exact.square().mean().sqrt()


def test_winograds_matrices_multiply_polynomials():
    """Each point's product of two polynomials is the polynomials' values multiplied; the bias comes through whole."""
    matrices = winograd.transform_matrices(torch.float64)
    assert error(matrices.synthesis @ matrices.ones, torch.ones(4, dtype=torch.float64)) < 1e-14
    lines, column = draw(6, 1).double(), draw(3, seed=2).double()
    spectrum = torch.empty(6, 1, 1, dtype=torch.float64)
    winograd.transform_lines(lines[:, :, None], spectrum)
    taps = matrices.taps[::3, ::3] @ column
    made = matrices.synthesis @ (taps * spectrum[:, 0, 0])
    expected = torch.stack([(lines[i : i + 3, 0] * column).sum() for i in range(4)])
    assert error(made, expected) < 1e-14


@torch.no_grad()
def test_a_small_image_and_not_its_weights_changes_layout():
    conv, x = randomise(convolutions.Conv3x3(64, 48)), draw(2, 64, 4, 6).contiguous(memory_format=torch.channels_last)
    assert convolutions.weight_reorder_is_costly(x, conv.weight)
    assert error(conv(x), F.conv2d(x.contiguous(), conv.weight, conv.bias, padding=1)) < 1e-6
    assert conv(x).is_contiguous(memory_format=torch.channels_last)
    assert not convolutions.weight_reorder_is_costly(x.contiguous(), conv.weight)
    assert not convolutions.weight_reorder_is_costly(x, conv.weight.contiguous(memory_format=torch.channels_last))
    assert not convolutions.weight_reorder_is_costly(
        draw(2, 64, 16, 24).contiguous(memory_format=torch.channels_last), conv.weight
    )
    with torch.enable_grad():
        assert not convolutions.weight_reorder_is_costly(x, conv.weight)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_of_few_pixels_is_unrolled(dtype):
    conv, x = randomise(convolutions.Conv3x3(6, 300)).to(dtype), draw(2, 6, 3, 5).to(dtype)
    expected = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        assert convolutions.im2col_is_faster(given, conv.weight)
        made = conv(given)
        assert made.dtype == dtype and made.is_contiguous(memory_format=torch.channels_last)
        assert error(made.double(), expected) < (1e-6 if dtype == torch.float32 else 8e-3)
    assert error(
        convolutions.im2col(x, conv.weight).double(), F.conv2d(x.double(), conv.weight.double(), padding=1)
    ) < (1e-6 if dtype == torch.float32 else 8e-3)
    assert not convolutions.im2col_is_faster(draw(3, 6, 3, 5), conv.weight)  # 45 pixels for 300 outputs
    with torch.enable_grad():
        assert not convolutions.im2col_is_faster(x, conv.weight)


@pytest.fixture
def onednn(monkeypatch):
    """Products by oneDNN, however small they are and whatever the processor; gives the number of them."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    asked = []
    monkeypatch.setattr(products, "MIN_MULTIPLICATIONS", 0)
    monkeypatch.setattr(products, "mkl_is_slow", lambda: asked.append(1) or True)
    return asked


@pytest.mark.parametrize("shape", [(1, 8), (5, 8), (2, 3, 8), (2, 3, 4, 8)])
@torch.no_grad()
def test_products_by_onednn_equal_the_plain_ones(onednn, shape):
    x, layer = draw(*shape), randomise(products.Linear(8, 6))
    expected = x.double() @ layer.weight.double().T + layer.bias.double()
    assert error(layer(x).double(), expected) < 1e-6 and len(onednn) == 1
    strided = x.transpose(0, -2) if x.ndim > 2 else x.repeat(2, 1)[::2]
    assert error(layer(strided).double(), strided.double() @ layer.weight.double().T + layer.bias.double()) < 1e-6
    without = products.linear(x, layer.weight)
    assert error(without.double(), x.double() @ layer.weight.double().T) < 1e-6


@torch.no_grad()
def test_products_keep_to_torchs_own_where_onednn_is_not_asked(onednn):
    x, layer = draw(2, 8), products.Linear(8, 6)
    assert layer(x.bfloat16().float()).dtype == torch.float32 and len(onednn) == 1
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16 and len(onednn) == 1
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(x).dtype == torch.bfloat16
    with torch.enable_grad():
        assert layer(x).requires_grad
    assert len(onednn) == 1


@torch.no_grad()
def test_a_1x1_convolution_equals_a_product():
    conv, x = randomise(products.Conv1x1(5, 7, 1)), draw(2, 5, 3, 4)
    expected = F.conv2d(x.double(), conv.weight.double(), conv.bias.double())
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        assert error(conv(given).double(), expected) < 1e-6
    assert conv(given).is_contiguous(memory_format=torch.channels_last)


def test_winograd_keeps_out_of_training_and_of_what_is_too_small():
    x, weight = torch.zeros(2, 320, 32, 32), torch.zeros(320, 320, 3, 3)
    assert not convolutions.winograd_is_faster(x, weight)
    with torch.no_grad():
        assert convolutions.winograd_is_faster(x, weight) and convolutions.winograd_is_faster(
            x.bfloat16(), weight.bfloat16()
        )
        assert not convolutions.winograd_is_faster(x.half(), weight.half())
        assert not convolutions.winograd_is_faster(x[:, :, :16, :16], weight)  # 512 pixels
        assert not convolutions.winograd_is_faster(x[:1], weight)  # 320 x 1024 numbers
        assert not convolutions.winograd_is_faster(torch.zeros(8, 64, 64, 64), weight[:64, :64])


@torch.no_grad()
def test_a_net_by_winograd_equals_the_plain_one(monkeypatch):
    net = randomise(UNet(dataclasses.replace(FULL, context_dim=None)))
    x, t = draw(2, 3, 16, 12), torch.tensor([3, 900])
    plain = net(x, t)
    made = []
    monkeypatch.setattr(convolutions, "winograd", lambda *given: made.append(given) or winograd.winograd(*given))
    for fewest in ("MIN_CHANNELS", "MIN_PIXELS", "MIN_ELEMENTS"):
        monkeypatch.setattr(convolutions, fewest, 1)
    assert error(net(x, t), plain) < 1e-5 and len(made) > 10
    assert error(net.to(memory_format=torch.channels_last)(x, t), plain) < 1e-5


@torch.no_grad()
def test_channels_last_changes_nothing():
    net = randomise(UNet(dataclasses.replace(FULL, context_dim=None)))
    x, t = draw(2, 3, 16, 12), torch.tensor([3, 900])
    plain = net(x, t)
    assert error(net.to(memory_format=torch.channels_last)(x, t), plain) < 1e-5


@pytest.mark.parametrize("lengths", [[5, 2, 1], [5, 5, 5]])
@torch.no_grad()
def test_a_prepared_condition_equals_the_plain_one(lengths):
    net = randomise(DecoderNet(DecoderParams(conditioner=TOKENS, unet=FULL, image_size=16)))
    mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    condition = net.condition(draw(3, 12), draw(3, 12, seed=2), draw(3, 5, 12, seed=3), mask)
    prepared = net.prepare(condition)
    assert not {"context", "context_mask"} & set(prepared)
    assert all(len(value) == 3 for value in prepared.values())  # so that guidance can join the halves
    for t in (torch.tensor([3, 500, 900]), torch.tensor([0, 1, 2])):
        x = draw(3, 3, 16, 16, seed=4)
        assert error(net(x, t, prepared), net(x, t, condition)) < 1e-6


@pytest.mark.parametrize("batch", [1, 2, 7])
@torch.no_grad()
def test_turns_equal_the_whole_batch(monkeypatch, batch):
    params = dataclasses.replace(FULL, context_dim=None)
    net, seen = randomise(UNet(params)), []
    x, t, shift = draw(batch, 3, 16, 12), torch.arange(batch) * 100, draw(batch, 3, 1, 1, seed=2)

    def model(x, t, condition):
        seen.append(len(x))
        return net(x + condition["shift"]["of"], t)

    whole = model(x, t, {"shift": {"of": shift}, "none": None})
    monkeypatch.setattr(turns, "MAX_ELEMENTS_THIN", 3 * 8 * 16 * 12)
    seen.clear()
    made = turns.chunked(model, params)(x, t, {"shift": {"of": shift}, "none": None})
    assert seen == {1: [1], 2: [2], 7: [3, 3, 1]}[batch]
    assert error(made, whole) < 1e-5


@torch.no_grad()
def test_times_embedded_beforehand_equal_those_embedded_in_each_step():
    net = randomise(UNet(dataclasses.replace(FULL, context_dim=None)))
    times = torch.tensor([999, 500, 3, 0])
    table = TimeTable(net.time_embed, times)
    for t in (times[:3], torch.tensor([3, 3]), times[3:].expand(2)):
        assert error(table(t), net.time_embed(t)) < 1e-6
    x, t = draw(2, 3, 16, 12), torch.tensor([3, 999])
    assert error(net(x, t, times=table), net(x, t)) < 1e-5


@torch.no_grad()
def test_times_that_were_not_embedded_beforehand_are_nan():
    """The first time's embedding in their place would go unnoticed."""
    net = randomise(UNet(dataclasses.replace(FULL, context_dim=None)))
    table = TimeTable(net.time_embed, torch.tensor([999, 500, 3]))
    found = table(torch.tensor([500, 0, 998, 3]))
    assert found[1:3].isnan().all() and error(found[[0, 3]], net.time_embed(torch.tensor([500, 3]))) < 1e-6
    with pytest.raises(IndexError):
        table(torch.tensor([1000]))
