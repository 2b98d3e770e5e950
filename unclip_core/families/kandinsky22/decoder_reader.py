"""Read a decoder folder of Kandinsky 2.2: UNet with its conditioner, MoVQ, scheduler. It has no CLIP and no prior."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...models import Decoder, StageSettings
from ...nets.decoder import DecoderNet, DecoderParams
from ...nets.movq import MoVQ
from ...nets.movq_codec import MoVQCodec
from ...nets.movq_params import MoVQParams
from ...weights.files import CheckpointError
from ...weights.key_map import CheckpointKey
from ...weights.net_weights import load_net, match_keys
from ..diffusers_folder import DiffusersFolder
from ..karlo.names import renamed
from . import decoder_config, names

FAMILY_WIDTH = 1280
STEPS, GUIDANCE = 50, 4.0
"""As in the authors' notebooks (ai-forever/Kandinsky-2); diffusers' default is twice as many steps."""

UNET, MOVQ, SCHEDULER = "unet", "movq", "scheduler"


def family_name(embed_dim: int) -> str:
    """Name the family by its embedding's width: "kandinsky22" for the published 1280, else "kandinsky22-<width>"."""
    return "kandinsky22" if embed_dim == FAMILY_WIDTH else f"kandinsky22-{embed_dim}"


class DecoderFolder:
    """A decoder's folder in diffusers' layout: text to image, inpainting or controlnet, told apart by the UNet."""

    def __init__(self, folder: Path, index: Mapping[str, Any], dtype: torch.dtype) -> None:
        """Read the configurations. Raises CheckpointError where they do not fit, or something is missing."""
        self.files, self.dtype = DiffusersFolder(folder, index, (UNET, MOVQ)), dtype
        self.family = family_name(self.params.conditioner.embed_dim)

    @cached_property
    def params(self) -> DecoderParams:
        """Shape of UNet and conditioner."""
        return self.files.configured(UNET, dict[str, Any], decoder_config.decoder_params)

    @cached_property
    def movq_params(self) -> MoVQParams:
        """Shape of the MoVQ."""
        return self.files.configured(MOVQ, decoder_config.MoVQConfig, decoder_config.MoVQConfig.params)

    @cached_property
    def reads_beside(self) -> decoder_config.Beside:
        """What the UNet reads beside the latents."""
        channels = self.movq_params.latent_channels
        return self.files.configured(
            UNET, dict[str, Any], lambda config: decoder_config.reads_beside(self.params, channels)
        )

    def check(self) -> None:
        """Compare keys and shapes of UNet and MoVQ with their configurations; no weights are read."""
        _ = self.reads_beside
        match_keys(lambda: DecoderNet(self.params), decoder_key_map, self.files.tensors(UNET))
        match_keys(lambda: MoVQ(self.movq_params), movq_key_map, self.files.tensors(MOVQ))

    def decoder(self, find_null: Callable[[], Tensor] | None) -> Decoder:
        """Read UNet and MoVQ.

        find_null: gives the embedding `[D]` of an empty picture; None where no CLIP can.
        """
        net: Any = load_net(lambda: DecoderNet(self.params), decoder_key_map, self.files.tensors(UNET), self.dtype)
        net.conditioner.find_null = find_null
        channels = self.movq_params.latent_channels
        scheduler = self._scheduler()
        return Decoder(
            self.family,
            net,
            self._of_scheduler(lambda: scheduler.diffusion(self.params.unet.out_channels == 2 * channels)),
            self.params.image_size * self.movq_params.factor,
            codec=self.codec(),
            settings=self._of_scheduler(lambda: decoder_settings(scheduler)),
            any_size=True,
            reads_beside=self.reads_beside,
        )

    def codec(self) -> MoVQCodec:
        """Read the MoVQ alone."""
        movq: Any = load_net(lambda: MoVQ(self.movq_params), movq_key_map, self.files.tensors(MOVQ), self.dtype)
        return MoVQCodec(movq)

    def _scheduler(self) -> decoder_config.SchedulerConfig:
        if SCHEDULER not in self.files.components:
            return decoder_config.published_scheduler(clips=self.reads_beside is None)
        return self.files.config(SCHEDULER, decoder_config.SchedulerConfig, "scheduler_config.json")

    def _of_scheduler(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ValueError as error:
            path = self.files.folder / SCHEDULER / "scheduler_config.json"
            raise CheckpointError(f"'{path}' is not usable: {error}") from error


def decoder_settings(scheduler: decoder_config.SchedulerConfig) -> StageSettings:
    """How a decoder with that scheduler is sampled by default."""
    return StageSettings(STEPS, GUIDANCE, scheduler.sampler)


def decoder_key_map(key: str) -> CheckpointKey:
    """Where a key of `DecoderNet` stands in the UNet's file."""
    part, _, rest = key.partition(".")
    return CheckpointKey(renamed(rest, names.UNET if part == "unet" else names.CONDITIONER))


def movq_key_map(key: str) -> CheckpointKey:
    """Where a key of `MoVQ` stands in its file."""
    return CheckpointKey(renamed(key, names.MOVQ))
