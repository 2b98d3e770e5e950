"""A small Karlo in kakaobrain's own files: random weights under the names that they have there."""

from pathlib import Path

import torch
from torch import nn

from unclip.unclip_core.families.karlo import kakao_names as names
from unclip.unclip_core.families.karlo.random_weights import KarloSizes, small_size
from unclip.unclip_core.nets.clip_towers import TextTower, TextTowerParams, VisionTower, VisionTowerParams
from unclip.unclip_core.nets.decoder import DecoderNet
from unclip.unclip_core.nets.prior import PriorTransformer
from unclip.unclip_core.nets.upsampler import UpsamplerNet

YAML = """model: {type: t2i-decoder, hparams: {image_size: 16, num_head_channels: 16}}
diffusion: {steps: 1000, learn_sigma: true, predict_xstart: false, noise_schedule: squaredcos_cap_v2}
"""


def write_kakao(folder: Path, sizes: KarloSizes | None = None, clip: bool = True) -> Path:
    """Write random weights, with or without OpenAI's CLIP: that has its real vocabulary, and takes its time."""
    folder.mkdir(parents=True)
    sizes = sizes or small_size()
    prior = _random(PriorTransformer(sizes.prior), names.prior_key_map(sizes.prior.head_dim))
    stats = torch.zeros(sizes.prior.embed_dim), torch.ones(sizes.prior.embed_dim)
    torch.save(
        {"state_dict": {key: value for key, value in prior.items() if key.startswith("model.")}}, folder / "a.ckpt"
    )
    decoder = DecoderNet(sizes.decoder)
    held = _random(decoder.conditioner, names.conditioner_key_map)
    held |= _random(decoder.unet, names.unet_key_map(sizes.decoder.unet, "model."))
    torch.save({"state_dict": held}, folder / "b.ckpt")
    prefixes = ("model_first_steps.", "model_last_step.")
    both = [_random(UpsamplerNet(sizes.super_res).unet, names.unet_key_map(sizes.super_res, it)) for it in prefixes]
    torch.save({"state_dict": both[0] | both[1]}, folder / "c.ckpt")
    torch.save(stats, folder / "d.th")
    if clip:
        torch.save(_clip(sizes.prior.embed_dim), folder / "e.pt")
    (folder / "decoder.yaml").write_text(YAML)
    return folder


def _clip(embed_dim: int) -> dict[str, torch.Tensor]:
    shared = {"width": 64, "mlp_width": 64, "layers": 1, "heads": 1, "embed_dim": embed_dim}
    text, vision = TextTowerParams(**shared), VisionTowerParams(**shared, image_size=16, patch_size=8)
    held = _random(TextTower(text), names.openai_key_map(names.OPENAI_TEXT))
    return held | _random(VisionTower(vision), names.openai_key_map(names.OPENAI_VISION))


def _random(net: nn.Module, key_map) -> dict[str, torch.Tensor]:
    """Random tensors under the names and shapes that the reader looks for."""
    generator = torch.Generator().manual_seed(1)
    shapes = {
        key_map(key).key: key_map(key).source_shape(tuple(value.shape)) for key, value in net.state_dict().items()
    }
    return {key: torch.randn(shape, generator=generator) * 0.1 for key, shape in shapes.items()}
