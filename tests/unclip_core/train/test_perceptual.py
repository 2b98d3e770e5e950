"""The perceptual loss, against open_clip's own tower in float64 and closed forms."""

from types import SimpleNamespace

import pytest
import torch
from factories import draw
from own_training import config_of, curve, train, write_images
from torch import nn

from unclip.unclip_core.clip.open_clip_adapter import build_open_clip
from unclip.unclip_core.diffusion.denoiser import clean_sample
from unclip.unclip_core.diffusion.forward import add_noise
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.train.config import config_from_dict
from unclip.unclip_core.train.losses import diffusion_loss, target_of
from unclip.unclip_core.train.objectives import DecoderObjective
from unclip.unclip_core.train.perceptual import PerceptualLoss


@pytest.fixture(scope="module")
def clip():
    return load_model("bundled (things)").clip.adapter


@pytest.fixture(scope="module")
def loss(clip):
    return PerceptualLoss(clip)


def cosine(a, b):
    return (a * b).sum(dim=-1) / (a.square().sum(dim=-1) * b.square().sum(dim=-1)).sqrt()


@pytest.mark.parametrize("side", [64, 32])
def test_the_distance_is_that_of_open_clips_own_features_in_float64(clip, loss, side):
    reference = build_open_clip(clip.config).double().eval()
    reference.load_state_dict({name: value.double() for name, value in clip.model.state_dict().items()}, strict=False)
    first, second = (draw(3, 3, side, side, seed=seed).clamp(-1, 1) for seed in (1, 2))

    def features(images):
        pixels = (images.double() + 1) / 2
        if side != 64:
            pixels = nn.functional.interpolate(pixels, size=(64, 64), mode="bicubic", antialias=True)
        mean, std = (torch.tensor(v).double()[:, None, None] for v in (clip.image_input.mean, clip.image_input.std))
        with torch.no_grad():
            return reference.visual.forward_intermediates((pixels - mean) / std, output_fmt="NLC")[
                "image_intermediates"
            ]

    pairs = list(zip(features(first), features(second), strict=True))
    wanted = sum(1 - cosine(a, b).mean(dim=1) for a, b in pairs) / len(pairs)
    assert len(pairs) == 6 and bool((wanted > 0.1).all())
    torch.testing.assert_close(loss(first, second).double(), wanted, atol=2e-5, rtol=0)


def test_equal_images_have_none_and_its_gradient_leads_to_the_true_one(loss):
    true = draw(2, 3, 64, 64, seed=3).clamp(-1, 1)
    assert float(loss(true, true).abs().max()) < 1e-6
    moved = (true + 0.05 * draw(2, 3, 64, 64, seed=4)).requires_grad_(True)
    before = loss(moved, true).sum()
    before.backward()
    assert moved.grad is not None and all(p.grad is None for p in loss.parameters())
    step = 1e-3 * moved.grad / moved.grad.abs().max()
    after = loss((moved - step).detach(), true).sum()
    change = float((step * moved.grad).sum())
    assert float((before - after).detach()) == pytest.approx(change, rel=0.05) and change > 0


def x0_said(prediction, raw, noisy, alpha_bar):
    level = alpha_bar[:, None, None, None]
    return clean_sample(prediction, raw, noisy, level.sqrt(), (1 - level).sqrt())


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_a_right_output_says_the_true_image(prediction):
    x0, noise, alpha_bar = draw(4, 3, 8, 8, seed=5), draw(4, 3, 8, 8, seed=6), torch.tensor([0.99, 0.6, 0.2, 0.02])
    said = target_of(prediction, x0, noise, alpha_bar)
    found = x0_said(prediction, said, add_noise(x0, noise, alpha_bar), alpha_bar)
    torch.testing.assert_close(found, x0, atol=2e-5, rtol=0)


class _Says(nn.Module):
    """A decoder that says the same whatever it sees."""

    needs_text = True

    def __init__(self, raw):
        super().__init__()
        self.raw = nn.Parameter(raw)

    def condition(self, *arguments, **named):
        return {}

    def forward(self, x, t, condition):
        return self.raw


def test_the_decoders_loss_has_so_much_of_it(loss):
    spec = DiffusionSpec(train_steps=10, schedule="cosine", prediction="v_prediction", variance="fixed_small")
    images, noise, alpha_bar = (
        draw(2, 3, 64, 64, seed=7).clamp(-1, 1),
        draw(2, 3, 64, 64, seed=8),
        torch.tensor([0.3, 0.8]),
    )
    names = ("image_embeds", "text_embeds", "text_states", "text_mask", "drop_image", "drop_text")
    batch = dict.fromkeys(names, torch.zeros(2)) | {"images": images, "noise": noise, "alpha_bar": alpha_bar}
    batch |= {"times": torch.tensor([3, 6]), "weight": torch.ones(2)}
    net = _Says(0.1 * draw(2, 3, 64, 64, seed=9))
    plain = diffusion_loss(net.raw, images, batch, spec)
    x0 = x0_said("v_prediction", net.raw, add_noise(images, noise, alpha_bar), alpha_bar)
    values = DecoderObjective(net, spec, perceptual=loss, weight=0.7)(batch)
    torch.testing.assert_close(values["perceptual"], loss(x0, images).mean())
    torch.testing.assert_close(values["loss"], plain["loss"] + 0.7 * loss(x0, images).mean())
    values["loss"].backward()
    assert net.raw.grad is not None and float(net.raw.grad.abs().max()) > 0
    assert "perceptual" not in DecoderObjective(net, spec)(batch)


def test_latents_and_other_towers_are_refused(loss):
    codec = SimpleNamespace(module=nn.Identity())
    spec = DiffusionSpec(train_steps=10, schedule="cosine")
    with pytest.raises(ValueError, match=r"loss\.perceptual looks at pixels, and this decoder draws latents"):
        DecoderObjective(nn.Identity(), spec, codec, loss)
    with pytest.raises(ValueError, match=r"needs the base's CLIP to have a vision transformer of open_clip's"):
        PerceptualLoss(SimpleNamespace(model=SimpleNamespace(visual=nn.Conv2d(3, 4, 1))))


def test_a_training_counts_it_as_its_configuration_says(tmp_path):
    images = write_images(tmp_path / "images")
    config = config_of("decoder", 1, base="bundled (shapes)", batch=2)
    config["loss"] = {"perceptual": 0.7}
    assert train("decoder", images, tmp_path / "made", config) == 0
    of_loss, of_squares, of_features = (
        curve(tmp_path / "made", "decoder", name)[1] for name in ("loss", "mse", "perceptual")
    )
    assert of_features > 0 and of_loss == pytest.approx(of_squares + 0.7 * of_features, rel=1e-4)


def test_a_negative_share_is_refused():
    with pytest.raises(ValueError, match=r"loss\.perceptual must be 0 or more, got -1"):
        config_from_dict({"training": {"steps": 5}, "loss": {"perceptual": -1.0}}, "decoder")
