"""diffusers' Kandinsky 2.2 decoders with random weights, as folders that it writes itself."""

import json

import factories
import pytest
import torch

WIDTH, CONTEXT = 20, 24
PIPELINES = {
    None: "KandinskyV22Pipeline",
    "masked": "KandinskyV22InpaintPipeline",
    "hint": "KandinskyV22ControlnetPipeline",
}
DDPM = {"beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "clip_sample": False}


def unet(beside=None, **changes):
    """A UNet2DConditionModel of the family's kind, every parameter random."""
    diffusers = pytest.importorskip("diffusers")
    config = {
        "sample_size": 8, "in_channels": {None: 4, "masked": 9, "hint": 8}[beside], "out_channels": 8,
        "block_out_channels": (32, 64), "layers_per_block": 1,
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "attention_head_dim": 16, "cross_attention_dim": CONTEXT,
        "encoder_hid_dim": WIDTH, "encoder_hid_dim_type": "image_proj",
        "addition_embed_type": "image_hint" if beside == "hint" else "image",
        "resnet_time_scale_shift": "scale_shift", "norm_num_groups": 8, "class_embed_type": None,
    } | changes  # fmt: skip
    net = factories.randomise(diffusers.UNet2DConditionModel(**config), 3).requires_grad_(False)
    net.conv_out.weight.mul_(0.3)
    return net


def movq(**changes):
    """A VQModel of the family's kind with three levels: images are eight times as large as latents only with four."""
    diffusers = pytest.importorskip("diffusers")
    config = {
        "block_out_channels": (32, 32, 32, 64), "layers_per_block": 1, "norm_num_groups": 8, "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        "up_block_types": ("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3,
        "vq_embed_dim": 4, "num_vq_embeddings": 30, "norm_type": "spatial",
    } | changes  # fmt: skip
    net = factories.randomise(diffusers.VQModel(**config), 4).requires_grad_(False)
    for name, value in net.named_parameters():  # else the latents would turn every feature's sign about
        if name.endswith("conv_y.bias"):
            value.add_(1)
    return net


def pipeline(beside=None, scheduler=None, **changes):
    """A decoder's pipeline."""
    import diffusers

    scheduler = diffusers.DDPMScheduler(**DDPM) if scheduler is None else scheduler
    return getattr(diffusers, PIPELINES[beside])(unet=unet(beside, **changes), scheduler=scheduler, movq=movq())


def write(folder, pipe, variant=None, safe=True, prior=None, **more):
    """The folder that diffusers writes of a pipeline, with a card that names its prior."""
    pipe.save_pretrained(folder, variant=variant, safe_serialization=safe, **more)
    if prior is not None:
        (folder / "README.md").write_text(f"---\nlicense: apache-2.0\nprior:\n- {prior}\n---\n# A decoder\n")
    return folder


def changed(folder, file, **values):
    """Change keys of one of the folder's JSON files; None removes one."""
    path = folder / file
    config = json.loads(path.read_text())
    config.update(values)
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


def embeds(count=2, seed=11):
    """Image embeddings and their negatives."""
    return factories.draw(count, WIDTH, seed=seed), factories.draw(count, WIDTH, seed=seed + 1)


def draws(steps, count, side=8, wide=None, seed=21):
    """The noise of a run: start and one a step, as diffusers draws it from a generator of that seed."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, 4, side, wide or side, generator=generator) for _ in range(steps + 1)]
