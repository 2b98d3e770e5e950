"""Write Karlo's parts as a folder in diffusers' layout: safetensors, one tensor at a time, the index last."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...clip.image_input import ImageInput
from ...clip.tokenizer import ClipTokenizer, write_tokenizer
from ...diffusion.spec import DiffusionSpec
from ...nets.clip_towers import TextTower, VisionTower
from ...nets.prior import PriorTransformer
from ...nets.upsampler import UpsamplerNet
from ...weights.config_checks import refused
from ...weights.files import CheckpointError, Entry, stream_weights, write_whole
from .. import clip_config, prior_config
from ..detect import read_any_index
from ..statistics import STATISTICS
from . import config as configs
from . import names
from .reader import KarloFolder

Make = Callable[[str, Tensor], Tensor]

P = TypeVar("P")
_VERSION = "0.11.0"
_DIFFUSERS, _TRANSFORMERS, _UNCLIP = "diffusers", "transformers", "unclip"


def as_it_is(key: str, tensor: Tensor) -> Tensor:
    """Return the net's own tensor."""
    return tensor


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


class FolderWriter:
    """Writes one component after the other into a folder aside, which takes its name where `with` ends without error.

    Before that the index is written, and the reader of such folders checks what was written; whatever fails, nothing is
    left behind.

    folder: must not hold anything yet. dtype: of the weights; the statistics of CLIP's embeddings stay float32.
    make: (key, the net's tensor) -> what is written in its place; by default the tensor itself.
    Raises CheckpointError where the folder is not empty, or its own reader refuses what was written.
    """

    processor, prior_scheduler = "feature_extractor", "prior_scheduler"
    """The folders of what prepares images, and of the prior's process."""

    def __init__(self, folder: Path, dtype: torch.dtype, make: Make = as_it_is) -> None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CheckpointError(f"'{folder}' is there already and not empty: name a new folder.")
        self.target, self.dtype, self.make = folder, dtype, make
        self.folder = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        self.index: dict[str, Any] = {}

    def __enter__(self) -> "FolderWriter":
        self._new_parents = [path for path in self.folder.parents if not path.exists()]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        done = False
        try:
            if kind is None:
                self._finish()
                done = True
        finally:
            if not done:
                self._clean_up()

    def _finish(self) -> None:
        """Write the index, have the reader check the folder, and give it its name."""
        index = {"_class_name": self.pipeline, "_diffusers_version": _VERSION, **dict(sorted(self.index.items()))}
        write_whole(self.folder / "model_index.json", json.dumps(index, indent=2).encode())
        self.check()
        if self.target.is_dir():
            self.target.rmdir()  # it is empty; some systems rename no folder over another
        self.folder.rename(self.target)

    def _clean_up(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in self._new_parents:
            with contextlib.suppress(OSError):  # something else lies in it by now
                path.rmdir()

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
            _saying(tower.params, clip_config.vision_tower_config, clip_config.vision_tower_params),
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
        read = partial(prior_config.prior_params, soft_mask=net.params.soft_mask)
        config = _saying(net.params, prior_config.prior_config, read)
        self._net("prior", net, names.PRIOR, config, (_DIFFUSERS, "PriorTransformer"))
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
            (_DIFFUSERS, "UNet2DConditionModel"),
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
                (_DIFFUSERS, "UNet2DModel"),
            )
        self._scheduler("super_res_scheduler", spec)

    @property
    def pipeline(self) -> str:
        """diffusers' class that the index names."""
        return "UnCLIPPipeline" if "prior" in self.index else "UnCLIPImageVariationPipeline"

    def _scheduler(self, name: str, spec: DiffusionSpec) -> None:
        self._json(name, "scheduler_config.json", prior_config.scheduler_config(spec), (_DIFFUSERS, "UnCLIPScheduler"))

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
