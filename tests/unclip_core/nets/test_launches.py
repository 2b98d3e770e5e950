"""How many kernels a step of Karlo's nets takes, at Karlo's depth and little width: docs/speed.md says the same."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from unclip.unclip_core.families.karlo.presets import karlo_decoder, karlo_prior, karlo_super_res
from unclip.unclip_core.nets import group_norm, layers
from unclip.unclip_core.nets.decoder import DecoderNet
from unclip.unclip_core.nets.prior import PriorTransformer
from unclip.unclip_core.nets.upsampler import UpsamplerNet

KINDS = {
    "addmm": "products", "mm": "products", "relu": "norms", "native_layer_norm": "norms", "convolution": "convolutions",
    "cat": "joined", "add": "additions", "add_": "additions", "clone": "copies", "_to_copy": "copies",
    "copy_": "copies", "constant_pad_nd": "masks", "_scaled_dot_product_flash_attention_for_cpu": "attention",
}  # fmt: skip


class Kernels(TorchDispatchMode):
    """Counts what computes or copies, by kind; views are not counted."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kind = KINDS.get(func._schema.name.split("::")[1])
        if kind is not None:
            self.found[kind] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def like_a_gpu(monkeypatch):
    """A norm, its scale, shift and SiLU are one kernel (relu stands for it), and no layer takes a CPU's own way."""
    one = lambda norm, x, scale_shift=None, silu=True: x.relu()  # noqa: E731
    monkeypatch.setattr(group_norm, "fused", one)
    monkeypatch.setattr(layers, "fused", one)
    for name in ("winograd_is_faster", "im2col_is_faster", "weight_reorder_is_costly"):
        monkeypatch.setattr(f"unclip.unclip_core.nets.convolutions.{name}", lambda x, weight: False)
    monkeypatch.setattr("unclip.unclip_core.nets.linear.Conv1x1.forward", torch.nn.Conv2d.forward)
    monkeypatch.setattr("unclip.unclip_core.nets.linear._by_onednn", lambda x, weight: False)


def counted(call):
    with torch.no_grad(), Kernels() as seen:
        call()
    return dict(seen.found)


def text(count=2):
    return torch.randn(count, 768), torch.randn(count, 77, 768), torch.ones(count, 77, dtype=torch.bool)


TIME = torch.zeros(2, dtype=torch.long)


@pytest.mark.slow
def test_a_decoders_step(like_a_gpu):
    params = karlo_decoder()
    narrow = {"channels": (32, 64, 64, 64), "head_dim": 32, "time_channels": 32, "context_dim": 64}
    unet = replace(params.unet, **narrow, time_embed_dim=64)
    conditioner = replace(params.conditioner, time_embed_dim=64, context_dim=64)
    net = DecoderNet(replace(params, unet=unet, conditioner=conditioner)).to(memory_format=torch.channels_last)
    with torch.no_grad():
        read = net.prepare(net.condition(torch.randn(2, 768), *text()))
    found = counted(lambda: net(torch.randn(2, 3, 64, 64), TIME, read))
    assert found.pop("copies") <= 3
    assert found == {
        "products": 126, "norms": 95, "convolutions": 91, "joined": 61, "additions": 59, "masks": 22, "attention": 22,
    }  # fmt: skip


@pytest.mark.slow
def test_a_priors_step(like_a_gpu):
    net = PriorTransformer(replace(karlo_prior(), width=64, heads=2, head_dim=32, soft_mask=False))
    with torch.no_grad():
        read = net.prefix(*text())
    found = counted(lambda: net.step(torch.randn(2, 768), TIME, read))
    assert found.pop("copies") <= 2
    assert found == {"products": 124, "norms": 41, "joined": 42, "additions": 41, "attention": 20}


@pytest.mark.slow
def test_an_upsamplers_step(like_a_gpu):
    params = karlo_super_res()
    params = replace(params, channels=(32,) * len(params.channels), time_channels=32, time_embed_dim=64)
    net = UpsamplerNet(params).to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 64, 64)
    found = counted(lambda: net(x, TIME[:1], x))
    assert found.pop("copies") <= 3
    assert found == {"convolutions": 90, "norms": 73, "additions": 72, "products": 38, "joined": 18}
