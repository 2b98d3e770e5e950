"""The schedules of latent decoders, against diffusers' DDPMScheduler and DDIMScheduler."""

import factories
import pytest
import torch

from unclip.unclip_core.diffusion.noise import FixedNoise
from unclip.unclip_core.diffusion.samplers import sample
from unclip.unclip_core.families.kandinsky22.decoder_config import SchedulerConfig
from unclip.unclip_core.parsing import checked

LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
# Where the last timestep is not 0, diffusers adds noise after the last step too: a large or learned variance shows it.
DDPM = {
    "published": LATENT | {"clip_sample": False},
    "clipped": LATENT | {"clip_sample": True},
    "clipped wider": LATENT | {"clip_sample": True, "clip_sample_range": 2.0},
    "old, without offset": LATENT | {"steps_offset": 0},
    "learned variance": LATENT | {"variance_type": "learned_range", "clip_sample": False, "steps_offset": 0},
    "threshold": LATENT | {"thresholding": True, "sample_max_value": 2.0, "clip_sample_range": 2.0},
    "large variance": LATENT | {"variance_type": "fixed_large", "beta_schedule": "scaled_linear", "steps_offset": 0},
    "sample": LATENT | {"prediction_type": "sample", "timestep_spacing": "trailing"},
    "v, linspace": LATENT | {"prediction_type": "v_prediction", "timestep_spacing": "linspace", "clip_sample": False},
}
DDIM = {
    "published": LATENT | {"clip_sample": False, "set_alpha_to_one": False},
    "to one": LATENT | {"clip_sample": False},
}


def both(kind, config, steps):
    """Latents of diffusers' scheduler and of ours under the same made-up net, and the timesteps of both."""
    diffusers = pytest.importorskip("diffusers")
    theirs = getattr(diffusers, kind)(**config)
    theirs.set_timesteps(steps)
    learned = theirs.config.get("variance_type") == "learned_range"

    def net(x, t):
        drawn = torch.sin(1.3 * x + 0.01 * float(t.flatten()[0])) * 0.7
        return torch.cat([drawn, 0.3 * x.tanh()], dim=1)

    start, generator = factories.draw(2, 4, 3, 5, seed=2), torch.Generator().manual_seed(7)
    x = start
    for t in theirs.timesteps:
        out = net(x, t)
        x = theirs.step(out if learned else out[:, :4], t, x, generator=generator).prev_sample
    generator = torch.Generator().manual_seed(7)
    noise = FixedNoise([torch.randn(start.shape, generator=generator) for _ in range(steps)])
    read = checked(SchedulerConfig, {**theirs.config, "_class_name": kind}, "scheduler")
    spec = read.diffusion(predicts_variance=True)
    plan = spec.steps(steps, read.sampler)
    ours = sample(read.sampler, spec.denoiser(net, torch.float32), start, plan, noise)
    return ours, x, plan.timesteps.tolist(), theirs.timesteps.tolist()


@pytest.mark.parametrize("steps", [2, 7, 50])
@pytest.mark.parametrize("name", DDPM)
def test_ddpm(name, steps):
    ours, theirs, times, their_times = both("DDPMScheduler", DDPM[name], steps)
    assert times == their_times
    assert factories.error(ours, theirs) < 1e-5


@pytest.mark.parametrize("steps", [2, 7, 50])
@pytest.mark.parametrize("name", DDIM)
def test_ddim(name, steps):
    ours, theirs, times, their_times = both("DDIMScheduler", DDIM[name], steps)
    assert times == their_times
    assert factories.error(ours, theirs) < 1e-5


def test_timesteps_are_those_of_the_published_decoder():
    spec = SchedulerConfig(**LATENT).diffusion(predicts_variance=True)
    assert spec.steps(50).timesteps.tolist() == list(range(981, 0, -20))
    assert spec.steps(7).timesteps.tolist() == [853, 711, 569, 427, 285, 143, 1]
    assert spec.steps(100).timesteps.tolist()[0] == 991
    assert spec.steps(50, "dpmpp_2m").timesteps.tolist()[0] == 999
    known = torch.tensor([0.99915, 0.99829, 0.00196, 0.00158])
    torch.testing.assert_close(spec.table[[0, 1, 981, 999]].float(), known, rtol=0, atol=6e-6)


def test_a_net_that_is_said_to_give_a_spare_variance_must_give_it():
    spec = SchedulerConfig(**LATENT).diffusion(predicts_variance=True)
    denoiser = spec.denoiser(lambda x, t: x, torch.float32)
    with pytest.raises(ValueError, match="needs 8 channels"):
        denoiser(torch.zeros(1, 4, 2, 2), torch.tensor([3]))


@pytest.mark.parametrize(
    "config", [{}, {"timestep_spacing": "linspace"}, {"timestep_spacing": "linspace", "steps_offset": 1}]
)
def test_a_last_step_that_changes_nothing_is_refused(config):
    with pytest.raises(ValueError, match="would change nothing"):
        SchedulerConfig(_class_name="DDIMScheduler", set_alpha_to_one=False, **config).diffusion(True)


@pytest.mark.parametrize("count", [667, 800, 998, 999, 1000])
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_sde", "deis"])
def test_steps_that_would_begin_at_their_end_are_refused_with_the_most_that_can_be_made(sampler, count):
    """Trailing steps of 1000 / N: the last timestep, round(1000 / N) - 1, is 0 from N = 667 on."""
    config = LATENT | {"_class_name": "DDIMScheduler", "set_alpha_to_one": False}
    spec = SchedulerConfig(**config).diffusion(predicts_variance=True)
    with pytest.raises(ValueError, match=f"{count} steps, spaced trailing, visit t = 0.* Take 666 at most"):
        spec.steps(count, sampler)
    plan = spec.steps(666, sampler)
    assert int(plan.timesteps[-1]) == 1 and float(plan.alpha_bar[-1]) == float(spec.table[0])
    assert len(spec.steps(500, "ddim")) == 500  # of its own spacing, which ends at t = 1
