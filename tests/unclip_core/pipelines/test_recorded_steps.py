"""Every stage with its steps recorded and replayed, by a stand-in for the GPU: the same to the bit."""

import pytest
import torch
from step_recorder import Recorder

from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.nets import step_graphs
from unclip.unclip_core.pipelines.decoder import sample_decoder
from unclip.unclip_core.pipelines.prior import sample_prior
from unclip.unclip_core.pipelines.upsampler import upscale


@pytest.fixture(scope="module")
def model():
    return load_model(SHAPES)


@pytest.fixture
def recorder(monkeypatch):
    made = Recorder()
    monkeypatch.setattr(step_graphs, "GRAPHS", step_graphs.StepGraphs(made))
    monkeypatch.setattr(step_graphs, "pays", lambda x: False)
    return made


def both(monkeypatch, run):
    """What a run makes with plain steps, and with recorded ones."""
    plain = run()
    monkeypatch.setattr(step_graphs, "pays", lambda x: not torch.is_grad_enabled())
    return plain, run(), run()


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.3, 0.8)])
def test_the_prior(model, recorder, monkeypatch, interval):
    """Guidance in a part of the run alone: two graphs, of both halves and of one."""
    text = model.clip.adapter.encode_text(["a red circle", "two blue squares"])
    settings = {"seeds": [1, 2], "steps": 8, "guidance_interval": interval}
    plain, first, second = both(monkeypatch, lambda: sample_prior(model.prior, text, **settings))
    assert torch.equal(first, plain) and torch.equal(second, plain)
    graphs = 1 if interval == (0.0, 1.0) else 2
    assert recorder.recorded == graphs and recorder.replayed == 16 - graphs


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_the_decoder(model, recorder, monkeypatch, sampler):
    """A sampler that keeps what the net made in the last step gets it unchanged."""
    embeds = torch.nn.functional.normalize(torch.randn(1, model.prior.net.params.embed_dim), dim=1)
    settings = {"seeds": [1], "steps": 4, "sampler": sampler}
    plain, first, second = both(monkeypatch, lambda: sample_decoder(model.decoder, embeds, **settings))
    assert torch.equal(first, plain) and torch.equal(second, plain)
    assert recorder.recorded == 1 and recorder.replayed == 7


def test_the_upsampler_and_a_large_image_in_tiles(model, recorder, monkeypatch):
    """Tiles gather statistics by hooks: they are never recorded."""
    images = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    run = lambda tile: lambda: upscale(model.upsampler, images, seeds=[1], steps=3, tile=tile)  # noqa: E731
    plain, first, second = both(monkeypatch, run(0))
    assert torch.equal(first, plain) and torch.equal(second, plain)
    assert recorder.recorded == 1 and recorder.replayed == 5
    both(monkeypatch, run(24))
    assert recorder.recorded == 1
