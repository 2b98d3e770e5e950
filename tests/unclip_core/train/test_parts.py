"""The parts of training on own images: configuration, order of samples, losses, embeddings."""

import json
import math
from pathlib import Path

import pytest
import torch
from device_without_float64 import DEVICE, WithoutFloat64
from factories import draw
from torch.nn import functional as F

from unclip.unclip_core.data.center_crop import center_crop
from unclip.unclip_core.diffusion.denoiser import ModelDenoiser
from unclip.unclip_core.diffusion.forward import add_noise
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.unet import UNet
from unclip.unclip_core.nets.unet_params import UNetParams
from unclip.unclip_core.train import losses
from unclip.unclip_core.train.activation_checkpointing import enable_activation_checkpointing
from unclip.unclip_core.train.batch_sampler import BatchSampler, Shuffle, generator_of
from unclip.unclip_core.train.config import STAGES, config_from_dict, read_config
from unclip.unclip_core.train.noise_levels import NoiseLevels
from unclip.unclip_core.train.pixels import random_crop

LEAST = {"training": {"steps": 5}}


# ---- configuration ----


@pytest.mark.parametrize("stage", STAGES)
def test_the_least_configuration_has_the_papers_shares(stage):
    config = config_from_dict(LEAST, stage)
    assert config.start == "base" and config.training.steps == 5
    drops = {name: value for name, value in vars(config.loss).items() if name.startswith("drop")}
    assert drops == {"prior": {"drop_text": 0.1}, "decoder": {"drop_image": 0.1, "drop_text": 0.5}}.get(stage, {})


def test_toml_and_json_say_the_same(tmp_path):
    (tmp_path / "a.toml").write_text(
        'base = "bundled (shapes)"\n[training]\nsteps = 7\nlr = 1\n[loss]\nweighting = "min_snr"\n'
    )
    data = {"base": "bundled (shapes)", "training": {"steps": 7, "lr": 1.0}, "loss": {"weighting": "min_snr"}}
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert read_config(tmp_path / "a.toml", "prior") == read_config(tmp_path / "a.json", "prior")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"speed": 1}, r"unknown settings \['speed'\]"),
        ({"training": {"steps": 5, "speed": 1}}, r"unknown settings \['training.speed'\]"),
        ({"training": {}}, r"\['training.steps'\] are missing"),
        ({"training": {"steps": "many"}}, "training.steps must be of the type int, got 'many'"),
        ({"training": {"steps": True}}, "training.steps must be of the type int, got True"),
        ({"training": {"steps": 1.5}}, "training.steps must be of the type int"),
        ({"training": {"steps": 0}}, "training.steps must be 1 or more, got 0"),
        ({"training": {"steps": 1, "batch": 6, "accumulation": 4}}, "6 is not a multiple of training.accumulation 4"),
        ({"training": {"steps": 1, "precision": "fp8"}}, r"training.precision must be one of \['no', 'bf16', 'fp16'\]"),
        ({"training": 5}, "training must be a table, got 5"),
        ({"loss": {"drop_text": 1.5}}, r"loss.drop_text must be in 0..1, got 1.5"),
        ({"loss": {"drop_image": 0.1}}, r"unknown settings \['loss.drop_image'\]"),
        ({"start": "zero"}, "start must be one of"),
        ({"start": "scratch"}, "needs the shape of the new net"),
        ({"net": {"preset": "tiny"}}, 'with them write start = "scratch"'),
    ],
)
def test_a_wrong_setting_is_said(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        config_from_dict(LEAST | change, "prior")


def test_the_readmes_example_is_one(tmp_path):
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (tmp_path / "decoder.toml").write_text(readme.split("```toml\n")[1].split("```")[0])
    config = read_config(tmp_path / "decoder.toml", "decoder")
    assert config.base == "bundled (things)" and config.loss.weighting == "min_snr"


def test_a_file_that_is_no_configuration_is_said(tmp_path):
    for name, text in (("a.toml", "steps ="), ("a.json", "[]"), ("a.yaml", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=name):
            read_config(tmp_path / name, "clip")
    with pytest.raises(ValueError, match="cannot be read"):
        read_config(tmp_path / "none.toml", "clip")


# ---- order ----


@pytest.mark.parametrize(("world", "accumulation"), [(1, 1), (2, 1), (1, 2), (2, 2), (3, 4)])
def test_processes_share_the_same_step(world, accumulation):
    whole = Shuffle(17, 24, seed=3)
    crew = [Shuffle(17, 24, accumulation, 3, rank, world) for rank in range(world)]
    for step in (0, 1, 9):
        (expected,) = whole.parts(step)
        parts = [order.parts(step) for order in crew]
        together = [key for number in range(accumulation) for own in parts for key in own[number]]
        assert together == expected


def test_every_epoch_has_every_sample_once_in_another_order():
    order = Shuffle(10, 5)
    seen = [index for step in range(4) for _, _, index in order.parts(step)[0]]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10] != seen[10:]
    assert list(BatchSampler(order, 2, 4)) == order.parts(2) + order.parts(3)
    with pytest.raises(ValueError, match="cannot be shared by 3 processes"):
        Shuffle(10, 8, world=3)


# ---- losses ----


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_the_target_gives_back_x0(prediction):
    spec = DiffusionSpec(prediction=prediction)
    g = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(3, 2, 4, generator=g, dtype=torch.float64) for _ in range(2))
    times = torch.tensor([0, 300, 990])
    ab = spec.table[times]
    x = add_noise(x0, noise, ab)
    denoiser = ModelDenoiser(lambda *_: losses.target_of(prediction, x0, noise, ab), spec.table, prediction)
    torch.testing.assert_close(denoiser(x, times).x0, x0)


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_min_snr_bounds_the_weight_of_x0s_error(prediction):
    """Whatever is predicted, an error that moves x0 by d costs min(SNR, gamma) d^2."""
    ab = torch.tensor([0.9999, 0.9, 0.5, 0.01, 1e-6], dtype=torch.float64)
    noise, x0, shift = torch.zeros(5), torch.zeros(5), 0.1
    x = add_noise(x0, noise, ab)
    moved_noise = (x - ab.sqrt() * (x0 + shift)) / (1 - ab).sqrt()
    moved = losses.target_of(prediction, x0 + shift, moved_noise, ab)
    error = (moved - losses.target_of(prediction, x0, noise, ab)).square()
    expected = torch.minimum(ab / (1 - ab), torch.tensor(5.0)) * shift**2
    torch.testing.assert_close(losses.min_snr_weight(prediction, ab, 5.0) * error, expected)


def bound_batch(spec, times, x0, noise):
    return {
        "alpha_bar": spec.table[times],
        "times": times,
        "noise": noise,
        "weight": torch.ones(len(times)),
    }


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_the_bound_is_the_divergence_of_two_normals(prediction):
    spec = DiffusionSpec(prediction=prediction, variance="learned_range")
    g = torch.Generator().manual_seed(0)
    x0, noise, said = (torch.randn(3, 5, generator=g, dtype=torch.float64) for _ in range(3))
    fraction = torch.tanh(torch.randn(3, 5, generator=g, dtype=torch.float64))
    times = torch.tensor([1, 200, 900])
    batch = bound_batch(spec, times, x0, noise)
    found = losses.variance_bound(said, fraction, x0, batch, spec)
    for row, time in enumerate(times.tolist()):
        ab, before = spec.table[time], spec.table[time - 1]
        alpha = ab / before
        x = ab.sqrt() * x0[row] + (1 - ab).sqrt() * noise[row]

        def posterior_mean(clean, x=x, ab=ab, before=before, alpha=alpha):
            return (before.sqrt() * (1 - alpha) * clean + alpha.sqrt() * (1 - before) * x) / (1 - ab)

        small = (1 - before) / (1 - ab) * (1 - alpha)
        width = torch.exp((fraction[row] + 1) / 2 * (1 - alpha).log() + (1 - fraction[row]) / 2 * small.log()).sqrt()
        clean = {
            "sample": said[row],
            "epsilon": (x - (1 - ab).sqrt() * said[row]) / ab.sqrt(),
            "v_prediction": ab.sqrt() * x - (1 - ab).sqrt() * said[row],
        }[prediction]
        true = torch.distributions.Normal(posterior_mean(x0[row]), small.sqrt())
        given = torch.distributions.Normal(posterior_mean(clean), width)
        expected = torch.distributions.kl_divergence(true, given).mean() / math.log(2)
        torch.testing.assert_close(found[row].double(), expected, rtol=1e-4, atol=1e-6, msg=f"t = {time}")


def test_the_loss_of_a_learned_variance_needs_no_float64_on_the_device():
    """Apple's and Intel's devices have none."""
    spec = DiffusionSpec(prediction="epsilon", variance="learned_range")
    times = torch.tensor([0, 1, 900])
    raw, x0, noise = draw(3, 8, 2, 2), draw(3, 4, 2, 2, seed=1).clamp(-1, 1), draw(3, 4, 2, 2)
    batch = {**bound_batch(spec, times, x0, noise), "alpha_bar": spec.table[times].float()}
    expected = losses.diffusion_loss(raw, x0, batch, spec)["loss"]
    with WithoutFloat64():
        moved = {name: value.to(DEVICE) for name, value in batch.items()}
        found = losses.diffusion_loss(raw.to(DEVICE), x0.to(DEVICE), moved, spec)["loss"].cpu()
    torch.testing.assert_close(found, expected)


def test_the_bounds_last_term_counts_levels():
    """At t = 0 the probabilities of all 256 levels add up to one."""
    spec = DiffusionSpec(prediction="epsilon", variance="learned_range")
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)[:, None]
    ab = spec.table[0]
    x = torch.tensor(0.3, dtype=torch.float64)
    noise = (x - ab.sqrt() * levels) / (1 - ab).sqrt()
    batch = bound_batch(spec, torch.zeros(256, dtype=torch.int64), levels, noise)
    said = torch.full_like(levels, 0.5)
    bits = losses.variance_bound(said, torch.zeros_like(levels), levels, batch, spec)
    assert float((2 ** -bits.double()).sum()) == pytest.approx(1, abs=1e-4)


def test_further_texts_are_wrong_choices_of_the_images_alone():
    g = torch.Generator().manual_seed(0)
    images, texts, wrong = (F.normalize(torch.randn(n, 4, generator=g), dim=1) for n in (6, 6, 3))
    logits, right = math.exp(2.0) * images @ torch.cat([texts, wrong]).T, torch.arange(6)
    of_images, of_texts = F.cross_entropy(logits, right), F.cross_entropy(logits[:, :6].T, right)
    found = losses.contrast(images, texts, torch.tensor(2.0), wrong)["loss"]
    torch.testing.assert_close(found, (of_images + of_texts) / 2)
    without = F.cross_entropy(logits[:, :6], right)
    torch.testing.assert_close(losses.contrast(images, texts, torch.tensor(2.0))["loss"], (without + of_texts) / 2)


def test_times_and_noise_are_those_of_the_settings():
    spec = DiffusionSpec()
    loss = config_from_dict(LEAST | {"loss": {"times": "logit_normal", "times_mean": 1.0}}, "prior").loss
    drawn = [NoiseLevels(spec, loss).draw((2,), generator_of(number)) for number in range(2000)]
    logits = torch.logit((torch.stack([item["times"] for item in drawn]) + 0.5) / 1000)
    assert float(logits.mean()) == pytest.approx(1.0, abs=0.1) and float(logits.std()) == pytest.approx(1.0, abs=0.1)
    uniform = config_from_dict(LEAST, "prior").loss
    drawn = [NoiseLevels(spec, uniform).draw((2,), generator_of(number)) for number in range(2000)]
    assert float(torch.stack([item["times"] for item in drawn]).double().mean()) == pytest.approx(499.5, abs=20)
    item = drawn[0]
    assert item["alpha_bar"] == spec.table[item["times"]].float()


# ---- images, activations ----


def test_squares_come_from_the_middle_and_crops_from_the_whole():
    from PIL import Image

    ramp = torch.arange(12, dtype=torch.uint8).repeat(6, 1)
    image = Image.fromarray(torch.stack([ramp * 20] * 3, dim=2).numpy())
    square = center_crop(image, 6)
    assert square.shape == (6, 6, 3) and square[0, :, 0].tolist() == [60, 80, 100, 120, 140, 160]
    starts = {int(random_crop(image, 6, 4, generator_of(number))[0, 0, 0]) // 20 for number in range(80)}
    assert starts == set(range(9))


@pytest.mark.parametrize("attention", [False, True])
def test_recomputed_activations_give_the_same_gradients(attention):
    params = UNetParams(
        in_channels=3,
        out_channels=3,
        channels=(8, 16),
        blocks=(1, 1),
        attention=(False, attention),
        map_channels=(0, 0),
        time_channels=8,
        time_embed_dim=16,
        head_dim=8,
        groups=4,
    )
    torch.manual_seed(0)
    nets = [UNet(params) for _ in range(2)]
    for parameter in nets[0].parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    nets[1].load_state_dict(nets[0].state_dict())
    names = list(nets[1].state_dict())
    assert enable_activation_checkpointing(nets[1]) > 3 and list(nets[1].state_dict()) == names
    x = torch.randn(2, 3, 8, 8)
    for net in nets:
        F.mse_loss(net(x, torch.tensor([3, 700])), torch.zeros_like(x)).backward()
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_bundled_clip_is_checkpointed_too_and_a_net_without_blocks_refused():
    adapters = [load_model("bundled (shapes)").clip.adapter for _ in range(2)]
    clips = [adapter.model.requires_grad_(True) for adapter in adapters]
    assert enable_activation_checkpointing(clips[1]) > 3
    size = adapters[0].image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    for clip in clips:
        clip.encode_image(images).square().sum().backward()
    for (name, one), other in zip(clips[0].visual.named_parameters(), clips[1].visual.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    with pytest.raises(ValueError, match="no blocks that could be computed again"):
        enable_activation_checkpointing(torch.nn.Linear(2, 2))


def test_the_configurations_of_things_go_on_from_things():
    from unclip.unclip_core.families.loading import BUNDLED
    from unclip.unclip_core.recipes import things

    configs = sorted((Path(things.__file__).parent / "configs").glob("*.toml"))
    assert len(configs) > 5
    for path in configs:
        config = read_config(path, path.stem.split("_")[0])
        assert config.base not in BUNDLED or BUNDLED[config.base].name == "things", path.name


def test_presets_make_nets():
    from unclip.unclip_core.train.net_shapes import PRESETS, merged

    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 5}, "e": 6}) == {"a": {"b": 5, "c": 2}, "d": 3, "e": 6}
    with torch.device("meta"):
        assert isinstance(PRESETS["decoder"]["tiny"](), DecoderParams)
        DecoderNet(PRESETS["decoder"]["tiny"]())


@pytest.mark.parametrize("stage", ["prior", "decoder", "upsampler"])
@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_presets_of_every_stage_are_nets(stage, preset):
    from unclip.unclip_core.nets.prior import PriorParams, PriorTransformer
    from unclip.unclip_core.train.net_shapes import PRESETS

    params = PRESETS[stage][preset]()
    with torch.device("meta"):
        net = {"prior": PriorTransformer, "decoder": DecoderNet, "upsampler": UNet}[stage](params)
    count = sum(p.numel() for p in net.parameters())
    assert isinstance(params, PriorParams) == (stage == "prior")
    if preset == "small":
        assert {"prior": 7e6, "decoder": 28e6, "upsampler": 0.5e6}[stage] < count
        assert count < {"prior": 9e6, "decoder": 33e6, "upsampler": 1.5e6}[stage]


def test_a_preset_takes_a_conditioner_of_another_kind():
    from unclip.unclip_core.train.net_shapes import net_shape

    token = {"kind": "token", "text_width": 192, "context_dim": 64}
    shape = net_shape("decoder", {"preset": "tiny", "conditioner": token})
    assert shape["conditioner"] == token | {"embed_dim": 192, "time_embed_dim": 256}
    unet = {"context_dim": 64, "attention": [False, True, True], "map_channels": [0, 0, 0]}
    assert DecoderParams.from_dict(net_shape("decoder", {"preset": "tiny", "conditioner": token, "unet": unet}))


def test_a_small_decoder_predicts_v_and_wrong_processes_are_said():
    from unclip.unclip_core.train.net_shapes import new_process

    assert new_process("decoder", {}, "small").prediction == "v_prediction"
    assert new_process("decoder", {}).prediction == "sample"
    for wrong in ({"train_steps": 10**9}, {"train_steps": "x"}, {"prediction": 3}, {"schedule": "none"}, {"x": 1}):
        with pytest.raises(ValueError, match="diffusion"):
            new_process("decoder", wrong)


def test_clips_logits_are_float32_under_autocast():
    g = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(64, 32, generator=g), dim=1) for _ in range(2))
    expected = losses.contrast(images.double(), texts.double(), torch.tensor(math.log(100.0)))["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        found = losses.contrast(images, texts, torch.tensor(math.log(100.0)))["loss"]
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


def test_attention_is_written_out_only_with_gradients_on_a_cpu(monkeypatch):
    from unclip.unclip_core.nets import layers

    calls = []
    real = F.scaled_dot_product_attention
    monkeypatch.setattr(layers.F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or real(*a, **k))
    for device, fused in (("cpu", 0), ("meta", 1)):
        q = torch.randn(1, 2, 3, 4, device=device, requires_grad=True)
        layers.attend(q, q, q)
        assert len(calls) == fused
