"""Read a prior of ECLIPSE: diffusers' PriorTransformer without a time token."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ...models import Clip, Decoder, MissingPart, Prior, StageSettings, Upsampler
from ...nets.one_pass_prior import EXTRA_TOKENS, OnePassPrior
from ...nets.prior import EXTRA_TOKENS as DIFFUSION_TOKENS
from ...nets.prior import PriorParams
from ...weights.components import open_component
from ...weights.config_checks import Config, read_table, require, usable
from ...weights.files import CheckpointError
from ...weights.net_weights import load_net, match_keys
from .. import prior_config
from ..kandinsky22.decoder_reader import FAMILY_WIDTH as KANDINSKY_WIDTH
from ..kandinsky22.decoder_reader import family_name
from ..karlo import names
from ..karlo.reader import family_of
from ..registry import CONFIG
from ..statistics import STATISTICS

KEY_MAP = names.diffusers_key_map(names.PRIOR)


def prior_params(config: Config, soft_mask: bool) -> PriorParams:
    """Read the configuration of a prior of one pass. Raises ValueError for settings that our net does not have."""
    require(config, {"additional_embeddings": EXTRA_TOKENS})
    return prior_config.prior_params({**config, "additional_embeddings": DIFFUSION_TOKENS}, soft_mask)


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
        path, soft_mask = self.folder / CONFIG, self.conventions == "diffusers"
        return usable(f"'{path}'", lambda config: prior_params(config, soft_mask), read_table(path))

    def check(self) -> None:
        """Compare keys and shapes with the configuration; no weights are read."""
        match_keys(lambda: OnePassPrior(self.params), KEY_MAP, open_component(self.folder), STATISTICS)

    def prior(self) -> Prior:
        """Read the prior. The statistics that its file may hold are not used by it."""
        net: Any = load_net(
            lambda: OnePassPrior(self.params), KEY_MAP, open_component(self.folder), self.dtype, ignored=STATISTICS
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
                f"'{self.folder}' holds a prior of lambda-ECLIPSE (it has an 'embedding_control'), which reads "
                "pictures of the text's subjects and a Canny edge map: that is not supported. Take "
                "ECLIPSE_KandinskyV22_Prior (`unclip download eclipse-kandinsky-2-2`) for texts, blend an image's "
                "embedding into its own for a subject, and kandinsky-2-2-controlnet-depth for a given outline."
            )
