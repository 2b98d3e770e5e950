"""Read Karlo in diffusers' folder layout (`UnCLIPPipeline`, `UnCLIPImageVariationPipeline`), of any size."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from ...clip.image_input import ImageInput
from ...clip.tokenizer import read_tokenizer
from ...clip.tower_adapter import TowerAdapter
from ...diffusion.spec import DiffusionSpec
from ...models import Decoder, Prior, Upsampler
from ...nets.clip_towers import TextTower, VisionTower
from ...nets.decoder import DecoderNet, DecoderParams
from ...nets.prior import PriorTransformer
from ...nets.token_conditioner import TokenConditioner
from ...nets.unet import UNet
from ...nets.unet_params import UNetParams
from ...nets.upsampler import UpsamplerNet
from ...weights.files import CheckpointError
from ...weights.meta_init import meta_init
from ...weights.net_weights import load_net, match_keys
from ...weights.weak_cached_property import weak_cached_property
from .. import clip_config, prior_config
from ..diffusers_folder import DiffusersFolder
from ..statistics import STATISTICS, check_statistics
from . import config as configs
from . import names
from .shared import NATIVE_PRIOR_CLIP, KarloParts, family_of

_COMPONENTS_OF = {
    "clip": {"text_encoder", "image_encoder"},
    "prior": {"prior"},
    "decoder": {"decoder"},
    "upsampler": {"super_res_first"},
}
_SCHEDULERS = {
    "prior": "prior_scheduler",
    "decoder": "decoder_scheduler",
    "super_res_first": "super_res_scheduler",
}
_POSITION_IDS = ("position_ids",)
_T = TypeVar("_T")


_BUILT_OF: dict[str, tuple[Callable, Callable, names.Rules]] = {
    "text_encoder": (clip_config.text_tower_params, TextTower, names.TEXT_TOWER),
    "image_encoder": (clip_config.vision_tower_params, VisionTower, names.VISION_TOWER),
    "prior": (partial(prior_config.prior_params, soft_mask=False), PriorTransformer, names.PRIOR),
    "text_proj": (configs.conditioner_params, TokenConditioner, names.TEXT_PROJECTION),
    "decoder": (configs.decoder_unet_params, UNet, names.UNET),
    "super_res_first": (configs.super_res_params, UNet, names.UNET),
    "super_res_last": (configs.super_res_params, UNet, names.UNET),
}


class KarloFolder(KarloParts):
    """A diffusers folder. Parts are read one by one; a missing part is an error only when it is asked for."""

    def __init__(self, folder: Path, index: dict[str, Any], dtype: torch.dtype, conventions: str) -> None:
        """Check that the index names unCLIP's components. Raises CheckpointError where it does not."""
        self.files = DiffusersFolder(folder, index, ("text_proj",))
        self.folder, self.dtype, self.conventions = folder, dtype, conventions
        self.components = self.files.components
        self.parts = frozenset(part for part, needed in _COMPONENTS_OF.items() if needed & self.components)
        params = self._configured("text_proj", configs.conditioner_params)
        self.family = family_of(params.embed_dim)

    def prior(self) -> Prior:
        """Read the prior, with the statistics of CLIP's embeddings."""
        params = self._configured("prior", lambda config: prior_config.prior_params(config, soft_mask=self.compatible))
        net = load_net(
            lambda: PriorTransformer(params),
            names.diffusers_key_map(names.PRIOR),
            self.files.tensors("prior"),
            self.dtype,
            keep=STATISTICS,
        )
        check_statistics(net, self.folder / "prior")
        return self._prior(net, self.diffusion("prior_scheduler", NATIVE_PRIOR_CLIP))

    def decoder(self) -> Decoder:
        """Read the decoder with its text projection."""
        params = self.decoder_params()
        with meta_init():
            net = DecoderNet(params)
        load_net(
            lambda: net.conditioner,
            names.diffusers_key_map(names.TEXT_PROJECTION),
            self.files.tensors("text_proj"),
            self.dtype,
        )
        self._fill_unet("decoder", net.unet)
        return self._decoder(net, self.diffusion("decoder_scheduler"))

    def upsampler(self) -> Upsampler:
        """Read both super-resolution nets."""
        scale = self.super_res_scale()
        nets = []
        for name in ("super_res_first", "super_res_last"):
            params = self.super_res_params(name)
            with meta_init():
                net = UpsamplerNet(params)
            self._fill_unet(name, net.unet)
            nets.append(net)
        return self._upsampler(nets[0], nets[1], self.diffusion("super_res_scheduler"), scale)

    def check(self) -> None:
        """Compare keys and shapes of every component that is there; no weights are read.

        Raises:
            CheckpointError: one does not fit its configuration.
        """
        for name, (params, build, rules) in _BUILT_OF.items():
            if name in self.components:
                shape = self._configured(name, params)
                match_keys(
                    partial(build, shape), names.diffusers_key_map(rules), self.files.tensors(name), _POSITION_IDS
                )
        self._check_whole()

    def _check_whole(self) -> None:
        """Read what no component states alone: sizes, processes, the preparation of images."""
        self.decoder_params()
        for component, scheduler in _SCHEDULERS.items():
            if component in self.components:
                self.diffusion(scheduler)
        if "super_res_first" in self.components:
            self.super_res_scale()
        if "image_encoder" in self.components:
            self._image_input(self._configured("image_encoder", clip_config.vision_tower_params).image_size)

    # ---- configuration ----

    def decoder_params(self) -> DecoderParams:
        """Read the configurations of decoder and text projection."""
        projection = self.files.config("text_proj", dict[str, Any])
        return self._configured("decoder", lambda config: configs.decoder_params(config, projection))

    def super_res_params(self, name: str) -> UNetParams:
        """Read the configuration of one of the two super-resolution nets."""
        return self._configured(name, configs.super_res_params)

    def super_res_scale(self) -> int:
        """Return the super-resolution's scale factor."""
        small, large = self.decoder_params().image_size, self._configured("super_res_first", configs.super_res_size)
        if large < small or large % small:
            raise CheckpointError(
                f"'{self.folder}': the super-resolution's images of {large} px are no multiple "
                f"of the decoder's {small} px."
            )
        return large // small

    def diffusion(self, scheduler: str, native_clip: float | None = None) -> DiffusionSpec:
        """Read the diffusion that a scheduler's configuration states."""
        return self._configured(
            scheduler,
            lambda config: prior_config.diffusion_spec(config, self.compatible, native_clip),
            "scheduler_config.json",
        )

    @weak_cached_property
    def _clip(self) -> TowerAdapter:
        text = self._tower("text_encoder", clip_config.text_tower_params, TextTower, names.TEXT_TOWER)
        vision = self._tower("image_encoder", clip_config.vision_tower_params, VisionTower, names.VISION_TOWER)
        if text is None and vision is None:
            raise CheckpointError(f"'{self.folder}' has neither a 'text_encoder' nor an 'image_encoder'.")
        tokenizer = text and read_tokenizer(
            self.folder / "tokenizer", text.params.context, self.conventions, text.params.vocabulary
        )
        images = vision and self._image_input(vision.params.image_size)
        return TowerAdapter(text, vision, tokenizer, images, str(self.folder))

    def _image_input(self, side: int) -> ImageInput:
        return self._configured(
            "feature_extractor",
            lambda config: clip_config.image_input(config, side, squash=not self.compatible),
            "preprocessor_config.json",
        )

    # ---- files ----

    def _tower(self, name: str, params: Callable, build: Callable, rules: names.Rules) -> Any:
        if name not in self.components:
            return None
        shape = self._configured(name, params)
        return load_net(
            lambda: build(shape),
            names.diffusers_key_map(rules),
            self.files.tensors(name),
            torch.float32,
            ignored=_POSITION_IDS,
        )

    def _fill_unet(self, name: str, net: UNet) -> None:
        load_net(lambda: net, names.diffusers_key_map(names.UNET), self.files.tensors(name), self.dtype)

    def _configured(self, name: str, build: Callable[[dict[str, Any]], _T], file: str = "config.json") -> _T:
        return self.files.configured(name, dict[str, Any], build, file)
