"""Read the prior's folder of Kandinsky 2.2: prior, the two towers of its CLIP, tokenizer. It has no decoder."""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...clip.image_input import ImageInput
from ...clip.tokenizer import read_tokenizer
from ...clip.tower_adapter import LateVision, TowerAdapter
from ...diffusion.spec import DiffusionSpec
from ...models import Clip, Decoder, MissingPart, Prior, StageSettings, Upsampler
from ...nets.clip_towers import TextTower, TextTowerParams, TowerBlock, VisionTower, VisionTowerParams
from ...nets.prior import PriorParams, PriorTransformer
from ...weights.config_checks import Config
from ...weights.files import CheckpointError
from ...weights.meta_init import meta_init
from ...weights.net_weights import load_net, match_keys
from ...weights.weak_cached_property import weak_cached_property
from .. import clip_config, prior_config
from ..diffusers_folder import DiffusersFolder
from ..karlo import names as karlo_names
from ..statistics import STATISTICS, check_statistics
from .decoder_reader import family_name

PRIOR, TEXT, VISION = "prior", "text_encoder", "image_encoder"
PROCESSOR, SCHEDULER, TOKENIZER = "image_processor", "scheduler", "tokenizer"
SETTINGS = StageSettings(25, 4.0, "ddpm")
"""diffusers' defaults, which the authors' notebooks leave as they are."""
POSITION_IDS = ("position_ids",)
"""Numbers from 0 up, which older versions of transformers saved with each tower."""


class PriorFolder:
    """A prior's folder in diffusers' layout. The image encoder, its largest part, is read when an image comes in."""

    small = False

    def __init__(self, folder: Path, index: Mapping[str, Any], dtype: torch.dtype, conventions: str) -> None:
        """Read the prior's configuration.

        Raises:
            CheckpointError: it cannot be read, or the folder lacks the prior or its texts' encoder.
        """
        self.files = DiffusersFolder(folder, index, (PRIOR, TEXT, TOKENIZER, SCHEDULER))
        self.dtype, self.conventions = dtype, conventions
        self.family = family_name(self.prior_params.embed_dim)
        self.parts = frozenset({"clip", "prior"})

    @property
    def compatible(self) -> bool:
        """Whether diffusers' tables and tokens are followed."""
        return self.conventions == "diffusers"

    # ---- parts ----

    def clip(self) -> Clip:
        """Read the text encoder, in float32; the image encoder follows when it is needed."""
        return Clip(self.family, self._clip)

    def prior(self) -> Prior:
        """Read the prior, with the statistics of CLIP's embeddings."""
        net: Any = load_net(
            lambda: PriorTransformer(self.prior_params),
            karlo_names.diffusers_key_map(karlo_names.PRIOR),
            self.files.tensors(PRIOR),
            self.dtype,
            keep=STATISTICS,
        )
        check_statistics(net, self.files.path(PRIOR))
        return Prior(self.family, net, self.diffusion, unit_norm=False, settings=SETTINGS)

    def decoder(self) -> Decoder:
        """There is none."""
        raise MissingPart(f"The model '{self.files.folder.name}' has no 'decoder': it is a prior's folder.")

    def upsampler(self) -> Upsampler:
        """There is none."""
        raise MissingPart(f"The model '{self.files.folder.name}' has no 'upsampler': it is a prior's folder.")

    def check(self) -> None:
        """Compare keys and shapes of every component with its configuration; no weights are read.

        Raises:
            CheckpointError: one does not fit.
        """
        _ = self.text_params, self.diffusion  # whether the parts go together is said first
        self._planned(PRIOR, PriorTransformer, self.prior_params, karlo_names.PRIOR)
        self._planned(TEXT, TextTower, self.text_params, karlo_names.TEXT_TOWER, POSITION_IDS)
        if VISION in self.files.components:
            self._planned(VISION, VisionTower, self.vision_params, karlo_names.VISION_TOWER, POSITION_IDS)

    # ---- configuration ----

    @cached_property
    def prior_params(self) -> PriorParams:
        """Shape of the prior."""
        return self.files.configured(
            PRIOR, dict[str, Any], lambda config: prior_config.prior_params(config, soft_mask=self.compatible)
        )

    @cached_property
    def text_params(self) -> TextTowerParams:
        """Shape of the text encoder, whose states and embeddings are as wide as the prior reads them."""
        params: TextTowerParams = self.files.configured(TEXT, dict[str, Any], clip_config.text_tower_params)
        width, given = self.prior_params.embed_dim, (params.width, params.embed_dim)
        if given != (width, width):
            raise CheckpointError(
                f"'{self.files.path(TEXT)}' makes token states of {given[0]} numbers and embeddings of {given[1]}; "
                f"the prior beside it reads {width} of both: the two are of different models."
            )
        return params

    @cached_property
    def vision_params(self) -> VisionTowerParams:
        """Shape of the image encoder, whose embeddings are as wide as those that the prior makes."""
        params: VisionTowerParams = self.files.configured(VISION, dict[str, Any], clip_config.vision_tower_params)
        if params.embed_dim != self.prior_params.embed_dim:
            raise CheckpointError(
                f"'{self.files.path(VISION)}' makes embeddings of {params.embed_dim} numbers; the prior beside it, of "
                f"{self.prior_params.embed_dim}: the two are of different models."
            )
        return params

    @cached_property
    def diffusion(self) -> DiffusionSpec:
        """The prior's process, as its scheduler states it."""
        return self.files.configured(
            SCHEDULER,
            dict[str, Any],
            lambda config: diffusion_spec(config, self.compatible),
            "scheduler_config.json",
        )

    def image_input(self) -> ImageInput:
        """How images are prepared: OpenAI's way where the folder does not say."""
        side = self.vision_params.image_size
        if PROCESSOR not in self.files.components:
            return ImageInput(side, side)
        return self.files.configured(
            PROCESSOR,
            dict[str, Any],
            lambda config: clip_config.image_input(config, side, squash=False),
            "preprocessor_config.json",
        )

    # ---- towers ----

    @weak_cached_property
    def _clip(self) -> TowerAdapter:
        params = self.text_params
        text = self._tower(TEXT, TextTower, params, karlo_names.TEXT_TOWER, torch.float32)
        tokenizer = read_tokenizer(self.files.path(TOKENIZER), params.context, self.conventions, params.vocabulary)
        vision = None
        if VISION in self.files.components:
            vision = LateVision(self.vision_params, self.image_input(), self._vision)
        return TowerAdapter(text, vision, tokenizer, None, str(self.files.folder))

    def _vision(self, dtype: torch.dtype) -> VisionTower:
        """Read the image encoder."""
        return self._tower(VISION, VisionTower, self.vision_params, karlo_names.VISION_TOWER, dtype)

    @torch.no_grad()
    def empty_picture(self) -> Tensor:
        """CLIP's embedding `[D]` of a picture that is 0 once it is normalised, float32 on the CPU.

        It stands for "no image" in the decoder's guidance. The image encoder's blocks are read for it one after the
        other, in float32, and not kept: beside the decoder's weights there is room for one of them, not for all.

        Raises:
            CheckpointError: the folder has no image encoder.
        """
        if VISION not in self.files.components:
            raise CheckpointError(
                f"'{self.files.folder}' has no '{VISION}', which the decoder's guidance needs once: take a prior's "
                "folder that has one, or set guidance_scale to 1."
            )
        params = self.vision_params
        self._planned(VISION, VisionTower, params, karlo_names.VISION_TOWER, POSITION_IDS)
        tower: Any = self._vision_piece(lambda: _without_blocks(params), "")
        tower.blocks = nn.ModuleList(
            _LateBlock(partial(self._vision_piece, lambda: TowerBlock(params), f"blocks.{index}."))
            for index in range(params.layers)
        )
        return tower(torch.zeros(1, params.channels, params.image_size, params.image_size))[0]

    def _vision_piece(self, build: Callable[[], nn.Module], prefix: str) -> nn.Module:
        """Read a piece of the image encoder in float32, the one whose keys begin so."""
        key_map = karlo_names.diffusers_key_map(karlo_names.VISION_TOWER)
        with meta_init():
            wanted = {key_map(prefix + key).key for key in build().state_dict()}
        tensors = self.files.tensors(VISION).only(wanted.__contains__)  # opened anew, so that it is unmapped with these
        return load_net(build, lambda key: key_map(prefix + key), tensors, torch.float32)

    def _tower(self, name: str, build: Any, params: Any, rules: karlo_names.Rules, dtype: torch.dtype) -> Any:
        key_map = karlo_names.diffusers_key_map(rules)
        return load_net(lambda: build(params), key_map, self.files.tensors(name), dtype, ignored=POSITION_IDS)

    def _planned(
        self, name: str, build: Any, params: Any, rules: karlo_names.Rules, ignored: tuple[str, ...] = ()
    ) -> None:
        match_keys(lambda: build(params), karlo_names.diffusers_key_map(rules), self.files.tensors(name), ignored)


def diffusion_spec(config: Config, compatible: bool) -> DiffusionSpec:
    """Read the scheduler of a prior, which predicts embeddings. Raises ValueError where ours does not follow it."""
    spec = prior_config.diffusion_spec(config, compatible, native_spacing="karlo")
    if (spec.prediction, spec.variance) != ("sample", "fixed_small_log"):
        raise ValueError(
            f"'prediction_type' is {spec.prediction!r} and 'variance_type' {spec.variance!r}; a prior of Kandinsky 2.2 "
            "has 'sample' and 'fixed_small_log'"
        )
    if spec.train_steps < 2:
        raise ValueError(f"'num_train_timesteps' is {spec.train_steps}; it must be 2 or more")
    return spec


def _without_blocks(params: VisionTowerParams) -> VisionTower:
    tower = VisionTower(params)
    tower.blocks = nn.ModuleList()
    return tower


class _LateBlock(nn.Module):
    """A block that is read whenever it runs, and held no longer."""

    def __init__(self, read: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.read()(x)
        return y
