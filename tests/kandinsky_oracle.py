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
    for norm in (net.encoder_hid_proj.norm, net.add_embedding.image_norm):
        norm.weight.mul_(0.05)  # else guidance would lead far away from any picture
    return fit_to_noise(net)


def fit_to_noise(net):
    """Fit the output layer's first half to the noise in its input: else a sampler's states grow without bounds.

    Ridge regression from the features that the layer sees, in noisy latents at many timesteps.
    """
    seen, channels = [], net.config.out_channels // 2
    hook = net.conv_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    times = torch.linspace(0, 999, 40).long()
    table = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64).neg().add(1).cumprod(0).float()[times]
    clean, noise = factories.draw(40, 4, 8, 8, seed=7), factories.draw(40, 4, 8, 8, seed=8)
    ab = table[:, None, None, None]
    more = factories.draw(40, max(0, net.config.in_channels - 4), 8, 8, seed=9)
    if hint := net.config.addition_embed_type == "image_hint":
        more = more[:, :0]
    added = {"image_embeds": factories.draw(40, WIDTH, seed=10)}
    if hint:
        added["hint"] = factories.draw(40, 3, 64, 64, seed=12).sigmoid()
    net(torch.cat([ab.sqrt() * clean + (1 - ab).sqrt() * noise, more], 1), times, None, added_cond_kwargs=added)
    hook.remove()
    rows = torch.nn.functional.unfold(seen[0], 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    rows = torch.cat([rows, torch.ones(len(rows), 1).double()], dim=1)
    wanted = noise.flatten(2).transpose(1, 2).flatten(0, 1).double()
    gram = rows.T @ rows + len(rows) * 1e-2 * torch.eye(rows.shape[1]).double()
    found = torch.linalg.solve(gram, rows.T @ wanted).T.float()
    net.conv_out.weight[:channels] = found[:, :-1].view(channels, *net.conv_out.weight.shape[1:])
    net.conv_out.bias[:channels] = found[:, -1]
    net.conv_out.weight[channels:] *= 0.1
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
        if ".conv_y." in name or ".conv_b." in name:
            value.mul_(0.2).add_(1.0 if name.endswith("conv_y.bias") else 0.0)
    spread = net.decode(factories.draw(2, 4, 4, 4), force_not_quantize=True).sample.std()
    net.decoder.conv_out.weight.mul_(0.3 / spread)
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
