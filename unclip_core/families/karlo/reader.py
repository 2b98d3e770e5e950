"""Read Karlo in diffusers' folder layout (`UnCLIPPipeline`, `UnCLIPImageVariationPipeline`), of any size."""

import json
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from ...clip.adapter import TextCondition
from ...clip.image_input import ImageInput
from ...clip.tokenizer import read_tokenizer
from ...clip.tower_adapter import TowerAdapter
from ...diffusion.spec import DiffusionSpec
from ...models import Clip, Decoder, Prior, StageSettings, Upsampler
from ...nets.clip_towers import TextTower, VisionTower
from ...nets.decoder import DecoderNet, DecoderParams
from ...nets.prior import PriorTransformer
from ...nets.token_conditioner import TokenConditioner
from ...nets.unet import UNet
from ...nets.unet_params import UNetParams
from ...nets.upsampler import UpsamplerNet
from ...weights.files import CheckpointError
from ...weights.meta_init import meta_init
from ...weights.tensors import fill, open_component, planned
from ...weights.weak_cached_property import weak_cached_property
from ..statistics import STATISTICS, check_statistics
from . import clip_config, names
from . import config as configs

KARLO_WIDTH = 768
NATIVE_PRIOR_CLIP = 10.0
"""kakaobrain's code clips the prior's x0 here; diffusers, at half of it."""

_COMPONENTS_OF = {
    "clip": {"text_encoder", "image_encoder"},
    "prior": {"prior"},
    "decoder": {"decoder"},
    "upsampler": {"super_res_first"},
}
PRIOR = StageSettings(25, 4.0, "ddpm")
DECODER = StageSettings(25, 8.0, "ddpm")
UPSAMPLER = StageSettings(7, 1.0, "ddpm")
"""What Karlo is sampled with by its authors (kakaobrain/karlo, configs and `template.py`) and by diffusers."""

_POSITION_IDS = ("position_ids",)
_T = TypeVar("_T")


_BUILT_OF: dict[str, tuple[Callable, Callable, names.Rules]] = {
    "text_encoder": (clip_config.text_tower_params, TextTower, names.TEXT_TOWER),
    "image_encoder": (clip_config.vision_tower_params, VisionTower, names.VISION_TOWER),
    "prior": (partial(configs.prior_params, soft_mask=False), PriorTransformer, names.PRIOR),
    "text_proj": (configs.conditioner_params, TokenConditioner, names.TEXT_PROJECTION),
    "decoder": (configs.decoder_unet_params, UNet, names.UNET),
    "super_res_first": (configs.super_res_params, UNet, names.UNET),
    "super_res_last": (configs.super_res_params, UNet, names.UNET),
}


def family_of(embed_dim: int) -> str:
    """Name the family by the embedding width: "karlo" for Karlo's 768, else "karlo-<width>"."""
    return "karlo" if embed_dim == KARLO_WIDTH else f"karlo-{embed_dim}"


class KarloFolder:
    """A diffusers folder. Parts are read one by one; a missing part is an error only when it is asked for."""

    small = False

    def __init__(self, folder: Path, index: dict[str, Any], dtype: torch.dtype, conventions: str) -> None:
        """Check that the index names unCLIP's components. Raises CheckpointError where it does not."""
        self.folder, self.dtype, self.conventions = folder, dtype, conventions
        self.components = {
            name for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2 and None not in entry
        }
        if "text_proj" not in self.components:
            raise CheckpointError(
                f"'{folder / 'model_index.json'}' names no 'text_proj': it is no unCLIP. "
                f"It names {sorted(self.components) or 'no components at all'}."
            )
        self.parts = frozenset(part for part, needed in _COMPONENTS_OF.items() if needed & self.components)
        params = self._configured("text_proj", configs.conditioner_params)
        self.family = family_of(params.embed_dim)

    @property
    def compatible(self) -> bool:
        """Whether diffusers' conventions are followed."""
        return self.conventions == "diffusers"

    # ---- parts ----

    def clip(self) -> Clip:
        """Read the towers that are there, in float32: they are small and run once."""
        return Clip(self.family, self._clip)

    def prior(self) -> Prior:
        """Read the prior, with the statistics of CLIP's embeddings."""
        params = self._configured("prior", lambda config: configs.prior_params(config, soft_mask=self.compatible))
        net = fill(
            lambda: PriorTransformer(params),
            names.diffusers_origin(names.PRIOR),
            self._tensors("prior"),
            self.dtype,
            keep=STATISTICS,
        )
        check_statistics(net, self.folder / "prior")
        return Prior(
            self.family, net, self.diffusion("prior_scheduler", NATIVE_PRIOR_CLIP), unit_norm=False, settings=PRIOR
        )

    def decoder(self) -> Decoder:
        """Read the decoder with its text projection."""
        params = self.decoder_params()
        with meta_init():
            net = DecoderNet(params)
        fill(
            lambda: net.conditioner,
            names.diffusers_origin(names.TEXT_PROJECTION),
            self._tensors("text_proj"),
            self.dtype,
        )
        self._fill_unet("decoder", net.unet)
        return Decoder(
            self.family,
            net.eval(),
            self.diffusion("decoder_scheduler"),
            params.image_size,
            blank_text=lambda: self._blank,
            settings=DECODER,
        )

    def upsampler(self) -> Upsampler:
        """Read both super-resolution nets."""
        scale = self.super_res_scale()
        nets = []
        for name in ("super_res_first", "super_res_last"):
            params = self.super_res_params(name)
            with meta_init():
                net = UpsamplerNet(params)
            self._fill_unet(name, net.unet)
            nets.append(net.eval())
        return Upsampler(
            self.family, nets[0], self.diffusion("super_res_scheduler"), scale, nets[1], clamp=False, settings=UPSAMPLER
        )

    def check(self) -> None:
        """Compare keys and shapes of every component that is there; no weights are read.

        Raises:
            CheckpointError: one does not fit its configuration.
        """
        for name, (params, build, rules) in _BUILT_OF.items():
            if name in self.components:
                shape = self._configured(name, params)
                planned(partial(build, shape), names.diffusers_origin(rules), self._tensors(name), _POSITION_IDS)

    # ---- configuration ----

    def decoder_params(self) -> DecoderParams:
        """Read the configurations of decoder and text projection."""
        projection = self._config("text_proj")
        return self._configured("decoder", lambda config: configs.decoder_params(config, projection))

    def super_res_params(self, name: str) -> UNetParams:
        """Read the configuration of one of the two super-resolution nets."""
        return self._configured(name, configs.super_res_params)

    def super_res_scale(self) -> int:
        """Return the super-resolution's scale factor."""
        small, large = self.decoder_params().image_size, self._config("super_res_first").get("sample_size")
        if not isinstance(large, int) or large % small:
            raise CheckpointError(
                f"'{self.folder}': the super-resolution's images of {large} px are no multiple "
                f"of the decoder's {small} px."
            )
        return large // small

    def diffusion(self, scheduler: str, native_clip: float | None = None) -> DiffusionSpec:
        """Read the diffusion that a scheduler's configuration states."""
        return self._configured(
            scheduler,
            lambda config: configs.diffusion_spec(config, self.compatible, native_clip),
            "scheduler_config.json",
        )

    @cached_property
    def _blank(self) -> TextCondition:
        """The encoding of the empty prompt, kept for classifier-free guidance; CLIP itself may be freed."""
        return self._clip.encode_text([""])

    @weak_cached_property
    def _clip(self) -> TowerAdapter:
        text = self._tower("text_encoder", clip_config.text_tower_params, TextTower, names.TEXT_TOWER)
        vision = self._tower("image_encoder", clip_config.vision_tower_params, VisionTower, names.VISION_TOWER)
        if text is None and vision is None:
            raise CheckpointError(f"'{self.folder}' has neither a 'text_encoder' nor an 'image_encoder'.")
        tokenizer = text and read_tokenizer(self.folder / "tokenizer", text.params.context, self.conventions)
        return TowerAdapter(text, vision, tokenizer, vision and self._image_input(vision), str(self.folder))

    def _image_input(self, vision: VisionTower) -> ImageInput:
        side = vision.params.image_size
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
        return fill(
            lambda: build(shape),
            names.diffusers_origin(rules),
            self._tensors(name),
            torch.float32,
            ignored=_POSITION_IDS,
        )

    def _fill_unet(self, name: str, net: UNet) -> None:
        fill(lambda: net, names.diffusers_origin(names.UNET), self._tensors(name), self.dtype)

    def _tensors(self, name: str) -> Any:
        return open_component(self._component(name))

    def _component(self, name: str) -> Path:
        folder = self.folder / name
        if name not in self.components or not folder.is_dir():
            raise CheckpointError(
                f"The model '{self.folder.name}' has no '{name}': there is no folder '{folder}' "
                "that its model_index.json names. Take a model that has one."
            )
        return folder

    def _config(self, name: str, file: str = "config.json") -> dict[str, Any]:
        path = self._component(name) / file
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"'{path}' cannot be read ({error}).") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"'{path}' holds no JSON object.")
        return config

    def _configured(self, name: str, build: Callable[[dict[str, Any]], _T], file: str = "config.json") -> _T:
        config = self._config(name, file)
        try:
            return build(config)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"'{self.folder / name / file}' is not usable: {error}") from error
