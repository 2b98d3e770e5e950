"""What Karlo is in either layout of its files: how its parts are put together and sampled."""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

from ...clip.adapter import TextCondition
from ...clip.tower_adapter import TowerAdapter
from ...diffusion.spec import DiffusionSpec
from ...models import Clip, Decoder, Prior, StageSettings, Upsampler
from ...nets.decoder import DecoderNet
from ...nets.upsampler import UpsamplerNet

KARLO_WIDTH = 768
NATIVE_PRIOR_CLIP = 10.0
"""kakaobrain's code clips the prior's x0 here; diffusers, at half of it."""

PRIOR = StageSettings(25, 4.0, "ddpm")
DECODER = StageSettings(25, 8.0, "ddpm")
UPSAMPLER = StageSettings(7, 1.0, "ddpm")
"""What Karlo is sampled with by its authors (kakaobrain/karlo, configs and `template.py`) and by diffusers."""


def family_of(embed_dim: int) -> str:
    """Name the family by the embedding width: "karlo" for Karlo's 768, else "karlo-<width>"."""
    return "karlo" if embed_dim == KARLO_WIDTH else f"karlo-{embed_dim}"


class KarloParts(ABC):
    """A reader of a Karlo folder. Subclasses know where its tensors and configurations stand.

    Attributes:
        conventions: one of `tokenizer.CONVENTIONS`.
        family: whose embeddings the parts exchange.
    """

    small = False
    conventions: str
    family: str

    @property
    def compatible(self) -> bool:
        """Whether diffusers' conventions are followed."""
        return self.conventions == "diffusers"

    @property
    @abstractmethod
    def _clip(self) -> TowerAdapter:
        """Read the towers, in float32: they are small and run once."""

    def clip(self) -> Clip:
        """Read text and image encoders."""
        return Clip(self.family, self._clip)

    @cached_property
    def _blank(self) -> TextCondition:
        """The encoding of the empty prompt, kept for classifier-free guidance; CLIP itself may be freed."""
        return self._clip.encode_text([""])

    def _prior(self, net: Any, diffusion: DiffusionSpec) -> Prior:
        return Prior(self.family, net, diffusion, unit_norm=False, settings=PRIOR)

    def _decoder(self, net: DecoderNet, diffusion: DiffusionSpec) -> Decoder:
        return Decoder(
            self.family,
            net.eval(),
            diffusion,
            net.params.image_size,
            blank_text=lambda: self._blank,
            settings=DECODER,
        )

    def _upsampler(self, first: UpsamplerNet, last: UpsamplerNet, diffusion: DiffusionSpec, scale: int) -> Upsampler:
        nets = first.eval(), last.eval()
        return Upsampler(self.family, nets[0], diffusion, scale, nets[1], clamp=False, settings=UPSAMPLER)
