"""What a training writes in the native format: the part, the base's others, and how each is sampled."""

import json
from dataclasses import asdict

import pytest
import torch

from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.families.native.family import FAMILY
from unclip.unclip_core.families.registry import TrainedPart
from unclip.unclip_core.models import StageSettings
from unclip.unclip_core.nets.params import params_to_dict


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
