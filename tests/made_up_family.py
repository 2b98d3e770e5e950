"""A family that the code knows nothing of: a codec of four channels and factor 8, a prior of one pass, no upsampler.

What it does is simple enough to be worked out by hand, and it goes through every stage by the contracts alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from unclip.unclip_core.clip.adapter import ClipAdapter
from unclip.unclip_core.clip.image_input import ImageInput
from unclip.unclip_core.clip.tokenizer import ClipTokenizer, byte_vocabulary
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.families.registry import INDEX, Family, Source, register, unregister
from unclip.unclip_core.models import Clip, Decoder, Prior, StageSettings
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.unet_params import UNetParams
from unclip.unclip_core.weights.files import load_strictly, load_weights, save_weights

WIDTH, SIDE, CONTEXT, FACTOR, CHANNELS = 12, 64, 24, 8, 4
PIPELINE = "MadeUpPipeline"
DIFFUSION = DiffusionSpec(schedule="scaled_linear", prediction="epsilon")
SETTINGS = StageSettings(3, 2.0, "deis")


class PatchCodec:
    """Mean colour of each 8 x 8 patch, and how much brighter its right half is: decode is a right inverse of encode."""

    channels, factor, module, limits = CHANNELS, FACTOR, None, None

    def quantised(self, latents):
        return latents

    def encode(self, images):
        means = F.avg_pool2d(images, FACTOR)
        halves = F.avg_pool2d(images, (FACTOR, FACTOR // 2)).mean(dim=1, keepdim=True)
        return torch.cat([means, (halves[..., 1::2] - halves[..., ::2]) / 2], dim=1)

    def decode(self, latents):
        images = latents[:, :3].repeat_interleave(FACTOR, 2).repeat_interleave(FACTOR, 3)
        slope = latents[:, 3:].repeat_interleave(FACTOR, 2).repeat_interleave(FACTOR, 3)
        sign = torch.ones(FACTOR).to(latents)
        sign[: FACTOR // 2] = -1
        return images + slope * sign.repeat(latents.shape[-1])

    def preview(self, latents):
        return latents[:, :3]


class BagOfBytes(ClipAdapter):
    """A CLIP whose towers are a table and a matrix."""

    normalize = False

    def __init__(self):
        super().__init__()
        self.model = nn.ModuleDict({"tokens": nn.Embedding(514, WIDTH), "patches": nn.Linear(3 * 16, WIDTH)})
        self.model.eval().requires_grad_(False)
        self.tokenizer = ClipTokenizer(byte_vocabulary([]), [], CONTEXT)

    embed_dim, context_length, image_size, temperature = WIDTH, CONTEXT, 4, 10.0
    image_input = ImageInput(4, 4)

    def read_tokens(self, ids):
        states = self.model["tokens"](ids)
        return states, states.mean(dim=1)

    def read_pixels(self, pixels):
        return self.model["patches"](pixels.flatten(1))


class OnePass(nn.Module):
    """Half the text's embedding, half the noise."""

    def __init__(self):
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))

    def forward(self, noise, text_embeds, text_states, text_mask):
        return text_embeds * self.share + noise * (1 - self.share)


@dataclass(frozen=True)
class ImageTokens:
    """Shape of a conditioner that gives context tokens, a map and an added embedding together, of the image alone."""

    kind: ClassVar[str] = "made-up"
    embed_dim: int = WIDTH
    time_embed_dim: int = 16
    context_width: int = 8
    maps: tuple[tuple[int, int], ...] = ((0, 0), (4, 4))

    def build(self):
        return ImageTokenConditioner(self)


class ImageTokenConditioner(nn.Module):
    needs_text = reads_text = False

    def __init__(self, params):
        super().__init__()
        self.params = params
        self.null_image = nn.Parameter(torch.zeros(WIDTH))
        self.embed = nn.Linear(WIDTH, params.time_embed_dim)
        self.tokens = nn.Linear(WIDTH, 2 * params.context_width)
        self.map = nn.Linear(WIDTH, 4)

    def forward(
        self, image_embeds, text_embeds=None, text_states=None, text_mask=None, drop_image=None, drop_text=None
    ):
        image = image_embeds.to(self.null_image.dtype)
        if drop_image is not None:
            image = torch.where(drop_image[:, None], self.null_image, image)
        return {
            "embed": self.embed(image),
            "context": self.tokens(image).unflatten(1, (2, -1)),
            "maps.1": self.map(image)[:, :, None, None].expand(-1, -1, 4, 4),
        }


def decoder_net():
    unet = UNetParams(
        in_channels=CHANNELS, out_channels=CHANNELS, channels=(8, 16), blocks=(1, 1), attention=(False, True),
        map_channels=(0, 4), time_channels=8, time_embed_dim=16, mid_blocks=1, groups=4, context_dim=8, head_dim=8,
    )  # fmt: skip
    return DecoderNet(DecoderParams(ImageTokens(), unet, image_size=SIDE // FACTOR))


class MadeUpFolder:
    """Reads a folder of this family."""

    small = True

    def __init__(self, folder: Path, dtype: torch.dtype):
        self.folder, self.dtype = folder, dtype
        self.family = "made-up"
        self.parts = frozenset({"clip", "prior", "decoder"})

    def check(self):
        load_strictly(decoder_net(), load_weights(self.folder / "decoder.safetensors")[0], str(self.folder))

    def clip(self):
        adapter = BagOfBytes()
        load_strictly(adapter.model, load_weights(self.folder / "clip.safetensors")[0], str(self.folder))
        return Clip(self.family, adapter)

    def prior(self):
        net = OnePass().to(self.dtype).eval().requires_grad_(False)
        return Prior(self.family, net, None, unit_norm=False, settings=StageSettings(1))

    def decoder(self):
        net = decoder_net()
        load_strictly(net, load_weights(self.folder / "decoder.safetensors")[0], str(self.folder))
        net = net.to(self.dtype).eval().requires_grad_(False)
        return Decoder(self.family, net, DIFFUSION, SIDE, codec=PatchCodec(), settings=SETTINGS)


class MadeUpFamily(Family):
    name = "made-up"
    formats = (PIPELINE,)
    sources = {"made-up": Source("nobody/made-up", "none")}

    def detect(self, folder, index):
        return index is not None and index.get("_class_name") == PIPELINE

    def read(self, folder, dtype, conventions):
        return MadeUpFolder(folder, dtype)

    def check_trainable(self, model, stage, new, output):
        if stage != "decoder" or new:
            raise ValueError("Only a made-up decoder can be trained on.")

    def write_trained(self, base, output, part):
        write_folder(output, {"decoder": part.tensors})


FAMILY = MadeUpFamily()


def write_folder(folder: Path, tensors: Mapping[str, Mapping[str, torch.Tensor]] | None = None) -> Path:
    """A model folder of this family with random weights, and these parts in place of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, net in (("clip", BagOfBytes().model), ("decoder", decoder_net())):
        state = dict((tensors or {}).get(name, random_state(net, name)))
        save_weights(folder / f"{name}.safetensors", state, {})
    (folder / INDEX).write_text(json.dumps({"_class_name": PIPELINE}))
    return folder


def random_state(net: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Output layers start at zero, which would hide every error."""
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(value.shape, generator=generator) * 0.3 for key, value in net.state_dict().items()}


class registered:
    """A context in which the family is known."""

    def __enter__(self):
        register(FAMILY)

    def __exit__(self, *error):
        unregister(FAMILY)
