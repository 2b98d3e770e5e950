"""Whole models held in half on a CPU that only emulates it: they draw in float32, at half the memory."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import draw
from torch import nn

from unclip.unclip_core import pipelines
from unclip.unclip_core.families.kandinsky22.random_decoder import small_size as small_decoder
from unclip.unclip_core.families.kandinsky22.random_decoder import write_random_decoder
from unclip.unclip_core.families.kandinsky22.random_prior import small_size as small_prior
from unclip.unclip_core.families.kandinsky22.random_prior import write_random_prior
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo
from unclip.unclip_core.families.loading import SHAPES, THINGS, load_model
from unclip.unclip_core.lora.delta import Lora, apply_lora
from unclip.unclip_core.models import PARTS, StageSettings
from unclip.unclip_core.nets.inference_gradients import enable_gradients
from unclip.unclip_core.pipelines.settings import Settings

SLOW = tuple(pytest.param(name, marks=pytest.mark.slow) for name in ("native", "things"))
FAMILIES = (*SLOW, "karlo", "kandinsky22")
QUICK = Settings(StageSettings(2, 2.0, "ddim"), StageSettings(2, 2.0, "ddim"), StageSettings(1))
LAYERS = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("families")
    write_random_prior(place / "prior", small_prior())
    return {
        "native": SHAPES,
        "things": THINGS,
        "karlo": write_random_karlo(place / "karlo", small_size()),
        "kandinsky22": write_random_decoder(place / "decoder", small_decoder(), prior="owner/prior"),
    }


def modules_of(model):
    """Every net of a model that is read, by name."""
    found = {name: getattr(model, name).module for name in PARTS if model.has(name)}
    if isinstance(module := getattr(model.codec, "module", None), nn.Module):
        found["codec"] = module
    return found


def held_in(folder, dtype):
    model = load_model(folder, dtype)
    model.clip.adapter.read_vision()
    model.clip.module.to(dtype)
    return model


def bytes_of(model):
    return {name: sum(p.nbytes for p in module.parameters()) for name, module in modules_of(model).items()}


def drawn(model):
    return pipelines.text_to_image(model, ["a red circle", "the cat"], [7, 8], QUICK)


def features_of(model, run):
    """What comes to the layers of a model while it runs, and what leaves them."""
    seen = set()

    def see(layer, given, made):
        seen.update({given[0].dtype, made.dtype})

    layers = [layer for module in modules_of(model).values() for layer in module.modules() if isinstance(layer, LAYERS)]
    hooks = [layer.register_forward_hook(see) for layer in layers]
    try:
        run(model)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_draws_what_its_weights_made_float32_draw(folders, family, dtype, emulated):
    half, exact = held_in(folders[family], dtype), held_in(folders[family], dtype)
    for module in modules_of(exact).values():
        module.float()
    ours, wanted = drawn(half), drawn(exact)
    for name in ("embeds", "small", "large"):
        torch.testing.assert_close(getattr(ours, name), getattr(wanted, name), rtol=0, atol=1e-6)
    assert float(ours.large.std()) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_it_takes_half_the_memory_and_its_features_are_float32(folders, family, emulated):
    half, whole = held_in(folders[family], torch.bfloat16), held_in(folders[family], torch.float32)
    assert features_of(half, drawn) == {torch.float32}
    sizes, full = bytes_of(half), bytes_of(whole)
    assert sizes.keys() == full.keys()
    for name, size in sizes.items():
        assert size < 0.52 * full[name], name


def test_on_a_processor_with_instructions_for_it_features_are_in_half(folders, native):
    def drawn(model):
        pipelines.sample_prior(model.prior, text, seeds=[1], steps=1)

    model = held_in(folders["karlo"], torch.bfloat16)
    text = pipelines.encode_text(model.clip, ["a red circle"])
    assert features_of(model, drawn) == {torch.bfloat16}


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_through_clip_are_those_of_float32(folders, family, emulated):
    half = held_in(folders[family], torch.bfloat16).clip
    exact = copy.deepcopy(half.adapter)
    exact.model.float()
    found = []
    for adapter in (half.adapter, exact):
        pixels = draw(1, 3, adapter.image_size, adapter.image_size).sigmoid().requires_grad_()
        with enable_gradients(adapter.model):
            found += torch.autograd.grad(adapter.encode_pixels(pixels).square().sum(), pixels)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-7)
    assert float(found[0].abs().max()) > 0


@pytest.mark.parametrize("family", ["karlo", "kandinsky22"])
def test_a_lora_is_added_to_weights_in_half(folders, family, emulated):
    model = held_in(folders[family], torch.bfloat16)
    layer = "blocks.0.to_q"
    rows, columns = model.prior.net.get_submodule(layer).weight.shape
    lora = Lora(Path("drawn"), "prior", None, {layer: (draw(2, columns), draw(rows, 2, seed=2))}, {layer: 0.5})
    changed = apply_lora(model.prior, lora, 1.0)
    exact = copy.deepcopy(changed.net).float()
    assert {parameter.dtype for parameter in changed.net.parameters()} == {torch.bfloat16}
    text = pipelines.encode_text(model.clip, ["a red circle"])

    def sampled(net):
        return pipelines.sample_prior(replace(changed, net=net), text, seeds=[1], steps=2)

    assert torch.equal(sampled(changed.net), sampled(exact))
    assert not torch.equal(sampled(changed.net), pipelines.sample_prior(model.prior, text, seeds=[1], steps=2))
