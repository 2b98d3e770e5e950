"""What a training writes in the native format: the part, the base's others, and how each is sampled."""

import dataclasses
import json
from dataclasses import asdict

import pytest
import torch
from factories import draw
from safetensors.torch import load_file

from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.families.native.family import FAMILY
from unclip.unclip_core.families.registry import TrainedPart
from unclip.unclip_core.models import StageSettings
from unclip.unclip_core.nets.params import params_to_dict
from unclip.unclip_core.weights.files import CheckpointError


def trained_prior(model, settings):
    prior = model.prior
    config = {"net": params_to_dict(prior.net.params), "diffusion": asdict(prior.diffusion), "unit_norm": True}
    tensors = {name: tensor + 1 for name, tensor in prior.net.state_dict().items()}
    return TrainedPart("prior", model.family, config, tensors, torch.float32, settings)


@pytest.mark.parametrize("settings", [None, StageSettings(5, 1.0, "deis")])
def test_the_settings_stated_are_the_trained_parts_and_the_others_keep_the_bases(tmp_path, settings):
    base = load_model(SHAPES)
    FAMILY.write_trained(base, tmp_path, trained_prior(base, settings))
    made = load_model(tmp_path)
    assert made.prior.settings == (settings or base.prior.settings)
    assert made.decoder.settings == base.decoder.settings and made.upsampler.settings == base.upsampler.settings
    for name, tensor in made.prior.net.state_dict().items():
        assert torch.equal(tensor, base.prior.net.state_dict()[name] + 1), name
    for name, tensor in made.decoder.net.state_dict().items():
        assert torch.equal(tensor, base.decoder.net.state_dict()[name]), name
    assert set(json.loads((tmp_path / "model_index.json").read_text())) == {
        "format", "family", "components", "settings",
    }  # fmt: skip


def test_a_second_training_keeps_what_the_first_stated(tmp_path):
    base = load_model(SHAPES)
    FAMILY.write_trained(base, tmp_path, trained_prior(base, StageSettings(5, 1.0, "deis")))
    FAMILY.write_trained(base, tmp_path, trained_prior(base, None))
    assert load_model(tmp_path).prior.settings == StageSettings(5, 1.0, "deis")


HALVES = (torch.float16, torch.bfloat16)
STATISTICS = ("clip_mean", "clip_std")


def prior_of(model, dtype, **changes):
    """A part of the model's prior with those tensors changed, to be written in `dtype`."""
    part = trained_prior(model, None)
    return dataclasses.replace(part, tensors={**part.tensors, **changes}, dtype=dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_priors_statistics_stay_float32_written_and_read_in_half(tmp_path, dtype):
    base, width = load_model(SHAPES), load_model(SHAPES).prior.net.params.embed_dim
    told = {name: torch.linspace(0.1, 0.7, width)[None] / (1 + place) for place, name in enumerate(STATISTICS)}
    FAMILY.write_trained(base, tmp_path, prior_of(base, dtype, **told))
    written = load_file(tmp_path / "prior.safetensors")
    for name, numbers in told.items():
        assert torch.equal(written[name], numbers)
    assert {tensor.dtype for name, tensor in written.items() if name not in told} == {dtype}

    net = load_model(tmp_path, dtype=dtype).prior.net
    for name, numbers in told.items():
        assert getattr(net, name).dtype == torch.float32 and torch.equal(getattr(net, name), numbers)
    assert {parameter.dtype for parameter in net.parameters()} == {dtype}
    embeds = draw(3, width)
    wanted = embeds.double() * told["clip_std"].double() + told["clip_mean"].double()
    assert (net.denormalize_embeds(embeds).double() - wanted).abs().max() < 1e-6


def test_what_float16_cannot_hold_is_not_written(tmp_path):
    base = load_model(SHAPES)
    large = torch.full_like(base.prior.net.query, 1e5)
    with pytest.raises(CheckpointError, match="'query' of .*prior.safetensors' holds values too large for float16"):
        FAMILY.write_trained(base, tmp_path, prior_of(base, torch.float16, query=large))
    assert not any(tmp_path.iterdir())
    FAMILY.write_trained(base, tmp_path, prior_of(base, torch.float32, query=large))
    with pytest.raises(CheckpointError, match="'query' of .*prior.safetensors' holds values too large for float16"):
        _ = load_model(tmp_path, dtype=torch.float16).prior
    with pytest.raises(CheckpointError, match="'query' of .*prior.safetensors' holds values too large for float16"):
        FAMILY.code(tmp_path, tmp_path / "coded", torch.float16, ["decoder"])
    assert not (tmp_path / "coded").exists()
