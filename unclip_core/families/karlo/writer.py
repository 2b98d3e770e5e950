"""Write Karlo's parts as a folder in diffusers' layout: safetensors, one tensor at a time, the index last."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...clip.image_input import ImageInput
from ...clip.tokenizer import ClipTokenizer, write_tokenizer
from ...diffusion.spec import DiffusionSpec
from ...nets.clip_towers import TextTower, VisionTower
from ...nets.prior import PriorTransformer
from ...nets.upsampler import UpsamplerNet
from ...weights.files import CheckpointError, Entry, stream_weights, write_whole
from ..statistics import STATISTICS
from . import clip_config, names
from . import config as configs

Make = Callable[[str, Tensor], Tensor]

_VERSION = "0.11.0"
_DIFFUSERS, _TRANSFORMERS, _UNCLIP = "diffusers", "transformers", "unclip"


def as_it_is(key: str, tensor: Tensor) -> Tensor:
    """Return the net's own tensor."""
    return tensor


class FolderWriter:
    """Writes one component after the other; `finish` writes the index, without which the folder is no model.

    folder: must not hold anything yet. dtype: of the weights; the statistics of CLIP's embeddings stay float32.
    make: (key, the net's tensor) -> what is written in its place; by default the tensor itself.
    Raises CheckpointError where the folder is not empty.
    """

    processor, prior_scheduler = "feature_extractor", "prior_scheduler"
    """The folders of what prepares images, and of the prior's process."""

    def __init__(self, folder: Path, dtype: torch.dtype, make: Make = as_it_is) -> None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CheckpointError(f"'{folder}' is there already and not empty: name a new folder.")
        self.folder, self.dtype, self.make = folder, dtype, make
        self.index: dict[str, Any] = {}

    def text(self, tower: TextTower, tokenizer: ClipTokenizer) -> None:
        """Write the text encoder and its tokenizer."""
        self._net(
            "text_encoder",
            tower,
            names.TEXT_TOWER,
            clip_config.text_tower_config(tower.params),
            (_TRANSFORMERS, "CLIPTextModelWithProjection"),
            "model.safetensors",
        )
        write_tokenizer(tokenizer, self.folder / "tokenizer")
        self.index["tokenizer"] = [_TRANSFORMERS, "CLIPTokenizer"]

    def vision(self, tower: VisionTower, images: ImageInput) -> None:
        """Write the image encoder and its preparation of images."""
        self._net(
            "image_encoder",
            tower,
            names.VISION_TOWER,
            clip_config.vision_tower_config(tower.params),
            (_TRANSFORMERS, "CLIPVisionModelWithProjection"),
            "model.safetensors",
        )
        self._json(
            self.processor,
            "preprocessor_config.json",
            clip_config.image_input_config(images),
            (_TRANSFORMERS, "CLIPImageProcessor"),
        )

    def prior(self, net: PriorTransformer, spec: DiffusionSpec) -> None:
        """Write the prior and its process (as diffusers states it)."""
        self._net("prior", net, names.PRIOR, configs.prior_config(net.params), (_DIFFUSERS, "PriorTransformer"))
        self._scheduler(self.prior_scheduler, spec)

    def decoder(self, net: Any, spec: DiffusionSpec) -> None:
        """Write the decoder, its text projection and its process."""
        self._net(
            "text_proj",
            net.conditioner,
            names.TEXT_PROJECTION,
            configs.conditioner_config(net.params.conditioner),
            (_UNCLIP, "UnCLIPTextProjModel"),
        )
        self._net(
            "decoder", net.unet, names.UNET, configs.decoder_config(net.params), (_DIFFUSERS, "UNet2DConditionModel")
        )
        self._scheduler("decoder_scheduler", spec)

    def upsampler(self, first: UpsamplerNet, last: UpsamplerNet, image_size: int, spec: DiffusionSpec) -> None:
        """Write both super-resolution nets, for images of `image_size` px, and their process."""
        for name, net in (("super_res_first", first), ("super_res_last", last)):
            self._net(
                name,
                net.unet,
                names.UNET,
                configs.super_res_config(net.params, image_size),
                (_DIFFUSERS, "UNet2DModel"),
            )
        self._scheduler("super_res_scheduler", spec)

    def finish(self) -> None:
        """Write the index."""
        index = {"_class_name": self.pipeline, "_diffusers_version": _VERSION, **dict(sorted(self.index.items()))}
        write_whole(self.folder / "model_index.json", json.dumps(index, indent=2).encode())

    @property
    def pipeline(self) -> str:
        """diffusers' class that the index names."""
        return "UnCLIPPipeline" if "prior" in self.index else "UnCLIPImageVariationPipeline"

    def _scheduler(self, name: str, spec: DiffusionSpec) -> None:
        self._json(name, "scheduler_config.json", configs.scheduler_config(spec), (_DIFFUSERS, "UnCLIPScheduler"))

    def _net(
        self,
        name: str,
        net: nn.Module,
        rules: names.Rules,
        config: dict[str, Any],
        owner: tuple[str, str],
        file: str = "diffusion_pytorch_model.safetensors",
    ) -> None:
        entries = [
            Entry(
                names.renamed(key, rules),
                torch.float32 if key in STATISTICS else self.dtype,
                tuple(value.shape),
                partial(self.make, key, value),
            )
            for key, value in net.state_dict().items()
        ]
        stream_weights(self.folder / name / file, entries)
        self._json(name, "config.json", {"_diffusers_version": _VERSION, **config}, owner)

    def _json(self, name: str, file: str, config: dict[str, Any], owner: tuple[str, str]) -> None:
        write_whole(self.folder / name / file, json.dumps(config, indent=2).encode())
        self.index[name] = list(owner)
