"""Read a prior of ECLIPSE: diffusers' PriorTransformer without a time token."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ...models import Clip, Decoder, MissingPart, Prior, StageSettings, Upsampler
from ...nets.one_pass_prior import EXTRA_TOKENS, OnePassPrior
from ...nets.prior import EXTRA_TOKENS as DIFFUSION_TOKENS
from ...nets.prior import PriorParams
from ...parsing import MalformedInput, checked, read_json
from ...weights.files import CheckpointError
from ...weights.tensors import fill, open_component, planned
from ..kandinsky22.decoder_reader import FAMILY_WIDTH as KANDINSKY_WIDTH
from ..kandinsky22.decoder_reader import family_name
from ..kandinsky22.prior_config import PriorConfig
from ..karlo import names
from ..karlo.reader import family_of
from ..registry import CONFIG
from ..statistics import STATISTICS

ORIGIN = names.diffusers_origin(names.PRIOR)


@dataclass(frozen=True)
class EclipseConfig(PriorConfig):
    """The configuration of a prior of one pass."""

    additional_embeddings: int = EXTRA_TOKENS

    def params(self, soft_mask: bool) -> PriorParams:
        """Our params. Raises ValueError for settings that our net does not have."""
        if self.additional_embeddings != EXTRA_TOKENS:
            raise ValueError(
                f"'additional_embeddings' is {self.additional_embeddings}; a prior of one pass has {EXTRA_TOKENS}"
            )
        return PriorConfig(**{**vars(self), "additional_embeddings": DIFFUSION_TOKENS}).params(soft_mask)


class EclipseFolder:
    """A folder with a prior of one pass. Its family is that of the model whose embeddings it makes."""

    small = False
    parts = frozenset({"prior"})

    def __init__(self, folder: Path, dtype: torch.dtype, conventions: str) -> None:
        """Read the configuration.

        Raises:
            CheckpointError: it is unusable, or the folder holds a prior of another kind.
        """
        self.folder, self.dtype, self.conventions = folder, dtype, conventions
        self._check_kind()
        width = self.params.embed_dim
        self.family = family_name(width) if width == KANDINSKY_WIDTH else family_of(width)

    @cached_property
    def params(self) -> PriorParams:
        """Shape of the net."""
        path = self.folder / CONFIG
        try:
            return checked(EclipseConfig, read_json(path), f"'{path}'").params(self.conventions == "diffusers")
        except MalformedInput as error:
            raise CheckpointError(str(error)) from error
        except ValueError as error:
            raise CheckpointError(f"'{path}' is not usable: {error}") from error

    def check(self) -> None:
        """Compare keys and shapes with the configuration; no weights are read."""
        planned(lambda: OnePassPrior(self.params), ORIGIN, open_component(self.folder), STATISTICS)

    def prior(self) -> Prior:
        """Read the prior. The statistics that its file may hold are not used by it."""
        net: Any = fill(
            lambda: OnePassPrior(self.params), ORIGIN, open_component(self.folder), self.dtype, ignored=STATISTICS
        )
        return Prior(self.family, net, None, unit_norm=False, settings=StageSettings(1))

    def clip(self) -> Clip:
        """There is none."""
        raise self._missing("clip")

    def decoder(self) -> Decoder:
        """There is none."""
        raise self._missing("decoder")

    def upsampler(self) -> Upsampler:
        """There is none."""
        raise self._missing("upsampler")

    def _missing(self, part: str) -> MissingPart:
        return MissingPart(
            f"'{self.folder.name}' has no '{part}': it is a prior alone, for a model of the family '{self.family}'."
        )

    def _check_kind(self) -> None:
        """Tell by the weights' keys which prior it is: the published configurations need not say."""
        keys = open_component(self.folder).shapes
        if any(key.startswith("time_embedding.") for key in keys):
            raise CheckpointError(
                f"'{self.folder}' holds a prior by diffusion (it has a 'time_embedding') without its scheduler and "
                "CLIP: take the folder of the whole model, in which it is one component."
            )
        if any(key.startswith("embedding_control.") for key in keys):
            raise CheckpointError(
                f"'{self.folder}' holds a prior of lambda-ECLIPSE (it has an 'embedding_control'), which reads images "
                "of subjects beside the text: that is not supported. Take ECLIPSE_KandinskyV22_Prior."
            )
