"""The shape of a MoVQ."""

from dataclasses import dataclass

from .params import require_divisible, require_positive

SPATIAL_GROUPS = 32
"""Groups of the decoder's normalisations, whatever the encoder has: so do the published code and diffusers."""


@dataclass(frozen=True)
class MoVQParams:
    """Shape of a MoVQ (Zheng et al. 2022); levels run from the image's own size to the latents'.

    Attributes:
        channels: width of each level; every level but the last halves the image.
        attention: whether the encoder's blocks of a level are each followed by attention; the decoder's likewise.
        blocks: residual blocks a level in the encoder; the decoder has one more.
        groups: of the encoder's normalisations; the decoder's have `SPATIAL_GROUPS`.
        latent_channels: of the latents that a diffusion draws, and of the codebook's vectors.
        codes: number of vectors in the codebook.
        image_channels: 3.
    """

    channels: tuple[int, ...] = (128, 256, 256, 512)
    attention: tuple[bool, ...] = (False, False, False, True)
    blocks: int = 2
    groups: int = 32
    latent_channels: int = 4
    codes: int = 16384
    image_channels: int = 3

    def __post_init__(self) -> None:
        """Check that the numbers agree; raises ValueError stating those that do not."""
        counts = ("blocks", "groups", "latent_channels", "codes", "image_channels")
        require_positive("MoVQParams", **{name: getattr(self, name) for name in counts})
        if not self.channels or len(self.attention) != len(self.channels):
            raise ValueError(f"MoVQParams: {len(self.channels)} channels and {len(self.attention)} attention differ")
        if not (len(self.channels) <= 8 and self.blocks <= 64 and self.codes <= 2**20 and self.latent_channels <= 4096):
            raise ValueError(
                f"MoVQParams: {len(self.channels)} levels of {self.blocks} blocks and {self.codes} codes of "
                f"{self.latent_channels} numbers are more than any MoVQ has (8 levels, 64 blocks, {2**20} codes)"
            )
        for width in self.channels:
            require_positive("MoVQParams", channels=width)
            require_divisible("MoVQParams", "channels", width, "groups", self.groups)
            require_divisible("MoVQParams", "channels", width, "the decoder's groups", SPATIAL_GROUPS)

    @property
    def factor(self) -> int:
        """How many times as wide and high as its latents an image is."""
        return 2 ** (len(self.channels) - 1)
