"""Nets in channels last, as they run on a GPU, against plain ones; whose weights are turned, and when."""

import dataclasses

import pytest
import torch
from factories import channels_last, draw, error, full_unet_params, is_channels_last, randomise, turned, unet_params
from layout_changes import LayoutChanges

from unclip.unclip_core.lora import delta
from unclip.unclip_core.nets import feature_rows, memory_formats, movq
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.image_conditioner import ImageConditionerParams
from unclip.unclip_core.nets.map_conditioner import MapConditionerParams
from unclip.unclip_core.nets.movq_params import MoVQParams
from unclip.unclip_core.nets.unet import UNet
from unclip.unclip_core.nets.upsampler import UpsamplerNet, UpsamplerParams

FULL = full_unet_params((32, 64), (1, 2))
MAPS = MapConditionerParams(
    embed_dim=12,
    hidden=8,
    time_embed_dim=16,
    map_channels=(6, 7),
    map_sizes=(8, 4),
    factors=(2, 0),
    frames=2,
    canvas_channels=2,
)


@pytest.fixture
def like_a_gpu(monkeypatch):
    """A CPU that is asked for nothing that a GPU is not: features follow the weights alone, no shorter ways."""
    monkeypatch.setattr("unclip.unclip_core.nets.unet.laid_out", memory_formats.following)
    for name in ("winograd_is_faster", "im2col_is_faster", "weight_reorder_is_costly"):
        monkeypatch.setattr(f"unclip.unclip_core.nets.convolutions.{name}", lambda x, weight: False)
    monkeypatch.setattr("unclip.unclip_core.nets.linear.Conv1x1.forward", torch.nn.Conv2d.forward)


def full(time_shift):
    net = randomise(UNet(dataclasses.replace(FULL, time_shift=time_shift)))
    given = {"context": draw(2, 5, 10, seed=3), "context_mask": torch.arange(5)[None] < torch.tensor([[5], [2]])}
    return net, lambda: net(draw(2, 3, 16, 12), torch.tensor([3, 900]), **given)


def mapped():
    net = randomise(DecoderNet(DecoderParams(MAPS, unet_params(3, (6, 7)), image_size=16)))
    condition = net.condition(draw(2, 12), draw(2, 12, seed=2))
    return net, lambda: net(draw(2, 3, 16, 16), torch.tensor([3, 900]), condition)


def upsampler(**changes):
    params = dataclasses.asdict(unet_params(6, (0, 0)))
    net = randomise(UpsamplerNet(UpsamplerParams(**{**params, **changes})))
    return net, lambda: net(draw(2, 3, 16, 16), torch.tensor([3, 900]), draw(2, 3, 16, 16, seed=2))


def hint():
    net = randomise(ImageConditionerParams(embed_dim=4, time_embed_dim=4, context_dim=4, hint=True).build())
    return net, lambda: net.read_hint(draw(2, 3, 32, 24))


def codec(way):
    net = randomise(movq.MoVQ(MoVQParams((32, 32, 64), (False, False, True), blocks=1, groups=4, codes=7)))
    given = draw(2, *((3, 32, 24) if way == "encode" else (4, 8, 6)))
    return net, lambda: getattr(net, way)(given.to(net.to_code.weight))


NETS = {
    "full": lambda: full("scale_shift"),
    "full, times added": lambda: full("add"),
    "maps and frames": mapped,
    "upsampler": upsampler,
    "upsampler between two colours": lambda: upsampler(residual=True, reach=1),
    "hint": hint,
    "encoder": lambda: codec("encode"),
    "decoder of latents": lambda: codec("decode"),
}
CLOSE_IN_FLOAT64 = 1e-12  # rounding alone leaves 1e-15 or so, a number out of its place 1
FIRST_ONES = {"decoder of latents": 1}
"""Convolutions that are given what the caller gave: `from_code` reads the latents."""


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_every_net_in_channels_last_equals_the_plain_one_and_turns_nothing(name, like_a_gpu):
    net, run = NETS[name]()
    with LayoutChanges() as before:
        plain = run()
    net.double()
    exact = run()
    turned(net)
    assert error(run(), exact) < CLOSE_IN_FLOAT64
    net.float()
    with LayoutChanges() as after:
        made = run()
    assert error(made, plain) < 2e-5
    assert before.count > 1 and after.of == before.of
    assert after.count <= FIRST_ONES.get(name, 0)


@torch.no_grad()
def test_strips_keep_to_channels_last(monkeypatch, like_a_gpu):
    net, run = codec("decode")
    plain = run()
    turned(net)
    monkeypatch.setattr(movq, "WHOLE_ELEMENTS", 500)
    monkeypatch.setattr(feature_rows, "STRIP_ELEMENTS", 3000)
    assert error(run(), plain) < 2e-5
    rows = feature_rows.Rows.of(draw(2, 4, 9, 5).contiguous(memory_format=torch.channels_last))
    assert is_channels_last(rows.stored()) and rows.stored().shape == (2, 4, 9, 5)
    assert not is_channels_last(feature_rows.Rows.of(draw(2, 4, 9, 5)).stored())


@pytest.fixture
def arriving(monkeypatch):
    """A meta device that passes for a GPU where channels last pays."""
    monkeypatch.setattr(memory_formats, "channels_last_pays", lambda device: device.type == "meta")
    return "meta"


def test_weights_are_turned_when_they_arrive_and_stay_so(arriving):
    """Whoever moves them: the whole net, or ComfyUI each layer by itself; in any precision."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for move in (lambda net: net.to(arriving), lambda net: [layer.to(arriving) for layer in net.modules()]):
            net = UNet(FULL).eval().requires_grad_(False).to(dtype)
            kernels = [layer.weight for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)]
            wide = [kernel for kernel in kernels if kernel.shape[2] > 1 or kernel.shape[3] > 1]
            assert len(kernels) > 10 and not any(map(is_channels_last, wide))
            move(net)
            kernels = [layer.weight for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)]
            assert all(is_channels_last(kernel) and kernel.dtype == dtype for kernel in kernels)
            net.to(torch.float64)
            assert all(is_channels_last(layer.weight) for layer in net.modules() if isinstance(layer, torch.nn.Conv2d))


def test_the_format_survives_the_way_back_to_a_cpu():
    net = turned(UNet(FULL).eval().requires_grad_(False))
    for _ in range(2):
        net.to("cpu", torch.float16).to(torch.float32)
        kernels = [layer.weight for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)]
        assert all(map(is_channels_last, kernels))
    copy = net.stem.weight.to("cpu", copy=True)
    assert is_channels_last(copy)


def test_weights_in_training_are_turned_too(arriving):
    net = UNet(FULL).train()
    net.to(arriving)
    assert is_channels_last(net.stem.weight) and net.stem.weight.requires_grad


def test_a_cpus_weights_stay_as_they_are():
    for net in (UNet(FULL).eval().requires_grad_(False), UNet(FULL).train()):
        assert not is_channels_last(net.to("cpu", torch.float16).stem.weight)


def test_training_on_a_cpu_keeps_the_layout_that_it_is_given():
    """The shapes' recipe gives it features that are channels last, people's trainings plain ones."""
    net, x = turned(UNet(FULL)), draw(2, 3, 16, 12)
    assert memory_formats.laid_out(x, net.stem.weight) is x
    assert is_channels_last(memory_formats.laid_out(last_one := channels_last(x), net.stem.weight))
    assert memory_formats.following(last_one, net.stem.weight) is last_one
    with torch.no_grad():
        assert is_channels_last(memory_formats.laid_out(x, net.stem.weight))


def test_weights_that_a_lora_changes_keep_the_format():
    net = turned(randomise(DecoderNet(DecoderParams(MAPS, unet_params(3, (6, 7)), image_size=16))))
    name = "unet.down.0.blocks.0.conv1"
    weight = dict(net.named_modules())[name].weight
    a, b = draw(2, *weight.shape[1:]), draw(len(weight), 2, 1, 1, seed=2)
    lora = delta.Lora("file", "decoder", None, {name: (a, b)}, {name: 1.0})
    changed = dict(delta.with_loras(net, [(lora, 0.5)]).named_modules())[name].weight
    assert is_channels_last(changed) and not torch.equal(changed, weight)


@pytest.mark.parametrize(
    ("hip", "there", "major", "pays"),
    [(None, True, 9, True), ("6", True, 9, False), (None, False, 9, False), (None, True, 6, False)],
)
def test_where_it_pays(monkeypatch, hip, there, major, pays):
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(memory_formats, "triton_is_there", lambda: there)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, 0))
    assert memory_formats.channels_last_pays(torch.device("cuda")) == pays
    for other in ("cpu", "mps", "xpu"):
        assert not memory_formats.channels_last_pays(torch.device(other))


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "bound"), [("float32", 1e-4), ("float16", 2e-2), ("bfloat16", 1e-1)])
def test_on_a_gpu_a_net_gives_the_cpus_numbers_and_gradients(kind, bound, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU: its ways are not run here")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    dtype = getattr(torch, kind)
    net, x, t = randomise(UNet(FULL)), draw(2, 3, 16, 16), torch.tensor([3, 900])
    context, grad = draw(2, 5, 10, seed=3), draw(2, 6, 16, 16, seed=4)

    def found(net, device, dtype):
        leaf = x.to(device, dtype).requires_grad_()
        made = net(leaf, t.to(device), context=context.to(device, dtype))
        slopes = torch.autograd.grad(made, [leaf, *net.parameters()], grad.to(device, dtype))
        with torch.no_grad():
            alone = net(leaf, t.to(device), context=context.to(device, dtype))
        return [part.detach().float().cpu() for part in (alone, made, *slopes)]

    expected = found(net, "cpu", torch.float32)
    net.to("cuda", dtype)
    assert is_channels_last(net.down[1].blocks[0].conv1.weight) is memory_formats.triton_serves()
    given = found(net, "cuda", dtype)
    assert max(error(mine, whole) for mine, whole in zip(given, expected, strict=True)) < bound
