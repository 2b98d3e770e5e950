"""Every pipeline on a device that has no float64 (Apple, Intel Arc): it runs, and gives what the CPU gives."""

import copy

import pytest
import torch
from device_pipelines import PIPELINES, text_to_image
from device_without_float64 import DEVICE, DeviceTensor, NoFloat64, WithoutFloat64
from factories import draw, error, randomise, write_model

from unclip.unclip_core.diffusion.samplers import SAMPLERS
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.nets import feature_rows, movq
from unclip.unclip_core.nets.movq import MoVQ
from unclip.unclip_core.nets.movq_params import MoVQParams
from unclip.unclip_core.pipelines import encode_text, sample_prior


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write_model(tmp_path_factory.mktemp("model")))


def on_device(part):
    """A copy of the part whose weights lie on the device."""
    part = copy.deepcopy(part)
    part.module.to(DEVICE)
    return part


def run_there(pipeline, model, **more):
    with WithoutFloat64() as device:
        parts = [on_device(part) for part in (model.clip, model.prior, model.decoder, model.upsampler)]
        found = pipeline(lambda value: value.to(DEVICE), *parts, **more)
        assert device.operations > 10
        return found.cpu() if isinstance(found, DeviceTensor) else found


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.__name__)
def test_a_pipeline_runs_without_float64_and_gives_the_same(pipeline, model):
    here = pipeline(lambda value: value, model.clip, model.prior, model.decoder, model.upsampler)
    there = run_there(pipeline, model)
    assert there.isfinite().all()
    assert error(there, here) < 2e-4


def test_a_codec_in_strips_needs_no_float64(monkeypatch):
    net = randomise(MoVQ(MoVQParams((32, 64), (False, False), blocks=1, groups=4, codes=5))).requires_grad_(False)
    monkeypatch.setattr(movq, "WHOLE_ELEMENTS", 1)
    monkeypatch.setattr(feature_rows, "STRIP_ELEMENTS", 1)
    latents = draw(1, 4, 24, 8)
    here = net.decode(latents)
    with WithoutFloat64():
        there = copy.deepcopy(net).to(DEVICE).decode(latents.to(DEVICE)).cpu()
    assert error(there, here) < 2e-4


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs_without_float64(sampler, model):
    here = text_to_image(None, model.clip, model.prior, model.decoder, model.upsampler, sampler=sampler)
    assert error(run_there(text_to_image, model, sampler=sampler), here) < 2e-4


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda x: x.double(),
        lambda x: x.sum(dtype=torch.float64),
        lambda x: x.to("cpu", torch.float64),  # it is cast where it lies
        lambda x: torch.zeros(3, dtype=torch.float64, device=x.device),
        lambda x: torch.zeros(3, dtype=torch.float64).to(x.device),
        lambda x: x.new_zeros(3, dtype=torch.float64),
    ],
)
def test_the_device_refuses_a_float64(forbidden):
    with WithoutFloat64(), pytest.raises(NoFloat64):
        forbidden(torch.zeros(3, device=DEVICE))


def test_the_device_takes_no_tensor_of_the_cpu():
    """Else a value left on the CPU would go unnoticed, and be counted as the device's."""
    with WithoutFloat64(), torch.no_grad(), pytest.raises(RuntimeError, match="beside tensors of"):
        torch.zeros(3, device=DEVICE) + torch.zeros(3)


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
@pytest.mark.parametrize("negative", [None, "a blue square"])
def test_a_prior_takes_a_text_that_lies_elsewhere(model, guidance_scale, negative):
    """As ComfyUI hands it on: read by a CLIP on the CPU, mapped by a prior on the device."""
    text = encode_text(model.clip, ["a red circle", "a blue square"])
    away = None if negative is None else encode_text(model.clip, [negative])
    settings = {"seeds": [3, 4], "steps": 2, "guidance_scale": guidance_scale, "candidates": 2, "keep": 1}
    here = sample_prior(model.prior, text, negative=away, **settings)
    with WithoutFloat64():
        there = sample_prior(on_device(model.prior), text, negative=away, **settings)
        assert isinstance(there, DeviceTensor)
        there = there.cpu()
    assert error(there, here) < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "pipeline", [pipeline for pipeline in PIPELINES if pipeline.__name__ != "embedding_space"],
    ids=lambda pipeline: pipeline.__name__,
)  # fmt: skip
def test_a_pipeline_takes_what_lies_on_the_cpu(pipeline, model):
    here = pipeline(lambda value: value, model.clip, model.prior, model.decoder, model.upsampler)
    with WithoutFloat64():
        parts = [on_device(part) for part in (model.clip, model.prior, model.decoder, model.upsampler)]
        there = pipeline(lambda value: value, *parts)
        there = there.cpu() if isinstance(there, DeviceTensor) else there
    assert error(there, here) < 2e-4
