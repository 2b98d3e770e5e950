"""Write Karlo's parts as a folder in diffusers' layout: safetensors, one tensor at a time, the index last."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ...clip.image_input import ImageInput
from ...clip.tokenizer import ClipTokenizer, write_tokenizer
from ...diffusion.spec import DiffusionSpec
from ...nets.clip_towers import TextTower, VisionTower
from ...nets.prior import PriorTransformer
from ...nets.upsampler import UpsamplerNet
from ...weights.config_checks import refused
from ...weights.files import CheckpointError
from .. import clip_config, prior_config
from ..detect import read_any_index
from ..diffusers_writer import DIFFUSERS, TRANSFORMERS, WEIGHTS, DiffusersWriter
from . import config as configs
from . import names
from .reader import KarloFolder

P = TypeVar("P")
_UNCLIP = "unclip"


def check_folder(folder: Path, dtype: torch.dtype, index: Mapping[str, Any] | None = None) -> None:
    """Have the reader check all that a folder holds, but the weights' numbers.

    Args:
        folder: the folder.
        dtype: as its weights are to be read.
        index: what its index will say, while there is none.

    Raises:
        CheckpointError: the folder would not load.
    """
    told = read_any_index(folder) if index is None else dict(index)
    KarloFolder(folder, told, dtype, "diffusers").check()


class FolderWriter(DiffusersWriter):
    """Writes Karlo's components."""

    processor, prior_scheduler = "feature_extractor", "prior_scheduler"
    """The folders of what prepares images, and of the prior's process."""

    def check(self) -> None:
        """Have the reader of such folders check what was written; raises CheckpointError."""
        check_folder(self.folder, self.dtype)

    def text(self, tower: TextTower, tokenizer: ClipTokenizer) -> None:
        """Write the text encoder and its tokenizer."""
        self._net(
            "text_encoder",
            tower,
            names.TEXT_TOWER,
            _saying(tower.params, clip_config.text_tower_config, clip_config.text_tower_params),
            (TRANSFORMERS, "CLIPTextModelWithProjection"),
            "model.safetensors",
        )
        write_tokenizer(tokenizer, self.folder / "tokenizer")
        self.index["tokenizer"] = [TRANSFORMERS, "CLIPTokenizer"]

    def vision(self, tower: VisionTower, images: ImageInput) -> None:
        """Write the image encoder and its preparation of images."""
        self._net(
            "image_encoder",
            tower,
            names.VISION_TOWER,
            _saying(tower.params, clip_config.vision_tower_config, clip_config.vision_tower_params),
            (TRANSFORMERS, "CLIPVisionModelWithProjection"),
            "model.safetensors",
        )
        self.json(
            self.processor,
            "preprocessor_config.json",
            clip_config.image_input_config(images),
            (TRANSFORMERS, "CLIPImageProcessor"),
        )

    def prior(self, net: PriorTransformer, spec: DiffusionSpec) -> None:
        """Write the prior and its process (as diffusers states it)."""
        read = partial(prior_config.prior_params, soft_mask=net.params.soft_mask)
        config = _saying(net.params, prior_config.prior_config, read)
        self._net("prior", net, names.PRIOR, config, (DIFFUSERS, "PriorTransformer"))
        self._scheduler(self.prior_scheduler, spec)

    def decoder(self, net: Any, spec: DiffusionSpec) -> None:
        """Write the decoder, its text projection and its process."""
        projection = _saying(net.params.conditioner, configs.conditioner_config, configs.conditioner_params)
        self._net(
            "text_proj",
            net.conditioner,
            names.TEXT_PROJECTION,
            projection,
            (_UNCLIP, "UnCLIPTextProjModel"),
        )
        self._net(
            "decoder",
            net.unet,
            names.UNET,
            _saying(net.params, configs.decoder_config, partial(configs.decoder_params, text_projection=projection)),
            (DIFFUSERS, "UNet2DConditionModel"),
        )
        self._scheduler("decoder_scheduler", spec)

    def upsampler(self, first: UpsamplerNet, last: UpsamplerNet, image_size: int, spec: DiffusionSpec) -> None:
        """Write both super-resolution nets, for images of `image_size` px, and their process."""
        for name, net in (("super_res_first", first), ("super_res_last", last)):
            self._net(
                name,
                net.unet,
                names.UNET,
                _saying(net.params, partial(configs.super_res_config, image_size=image_size), configs.super_res_params),
                (DIFFUSERS, "UNet2DModel"),
            )
        self._scheduler("super_res_scheduler", spec)

    @property
    def pipeline(self) -> str:
        """diffusers' class that the index names."""
        return "UnCLIPPipeline" if "prior" in self.index else "UnCLIPImageVariationPipeline"

    def _scheduler(self, name: str, spec: DiffusionSpec) -> None:
        self.json(name, "scheduler_config.json", prior_config.scheduler_config(spec), (DIFFUSERS, "UnCLIPScheduler"))

    def _net(
        self,
        name: str,
        net: nn.Module,
        rules: names.Rules,
        config: dict[str, Any],
        owner: tuple[str, str],
        file: str = WEIGHTS,
    ) -> None:
        self.net(name, net, lambda key: names.renamed(key, rules), config, owner, file)


def _saying(params: P, write: Callable[[P], dict[str, Any]], read: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """Return the configuration that says what the params do.

    Raises:
        CheckpointError: read again it says something else: diffusers has no such net.
    """
    config = write(params)
    with refused(f"As diffusers would write it, the {type(params).__name__}"):
        found = read(config)
    if found != params:
        own = {item.name: getattr(params, item.name) for item in fields(params)}  # type: ignore[arg-type]  # a dataclass
        odd = {name: value for name, value in own.items() if getattr(found, name, None) != value}
        raise CheckpointError(f"diffusers' layout has no net with {odd} ({type(params).__name__}): it is not written.")
    return config
